"""A watcher made of values: it obeys at once, and reports what a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.apply.outcome import ApplyResult
from saltext_wgmesh.minion.apply.timeouts import Timeouts
from saltext_wgmesh.minion.state import admin_down, link_report_file
from tests.nodeviews import key
from tests.unit.harness.fakehost import FakeHost

FAST = Timeouts(verify=0.5, recovery=0.5, link=0.5, optional_link=0.1, follow_up=0.1)
OLD, NEW = "192.0.2.10:51820", "198.51.100.10:51820"
"""The endpoint of relay n1 in the views of ``nodeviews``, and another one."""


def apply_fast(host: FakeHost, view: View, **kwargs: Any) -> ApplyResult:
    """Apply *view*, with short timeouts."""
    return apply.apply(host, view, **{"timeouts": FAST, **kwargs})


class FakeWatcher:
    """Holds links down as requested, and reports all others as up but those that are *broken*."""

    def __init__(self, host: FakeHost, view: View) -> None:
        self.host = host
        self.broken: Callable[[FakeHost], set[str]] = lambda _host: set()
        self.admin_down: list[tuple[str, ...]] = []
        """The neighbours of each request to hold links down."""
        self.names = {p.node: i.name for i in view.interfaces for p in i.peers}
        self._stop = threading.Event()
        self._reports = 0
        self.report()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def report(self) -> None:
        requested = admin_down.requested(self.host, "wg0")
        if requested and (not self.admin_down or self.admin_down[-1] != tuple(sorted(requested))):
            self.admin_down.append(tuple(sorted(requested)))
        broken = self.broken(self.host)
        links = {n: self._link(n, requested, broken) for n in sorted(self.names)}
        link_report_file.write_report(
            self.host, LinkReport(mesh="wg0", from_watcher=True, links=MappingProxyType(links))
        )

    def _link(self, name: str, requested: frozenset[str], broken: set[str]) -> LinkStatus:
        state = LinkState.DOWN if name in broken else LinkState.ADMIN_DOWN if name in requested else LinkState.UP
        return LinkStatus(
            neighbour=name,
            interface=self.names[name],
            state=state,
            since=7.0,
            admin_down_acknowledged=name in requested,
        )

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self.report()
            self._reports += 1

    def settle(self) -> None:
        """Wait until the report is newer than this call."""
        enough, deadline = self._reports + 2, time.monotonic() + 5
        while self._reports < enough and time.monotonic() < deadline:
            time.sleep(0.005)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def with_endpoint(view: View, number: int, endpoint: str) -> View:
    """Return *view*, with relay *number* at another endpoint."""
    changed = tuple(
        replace(i, peers=tuple(replace(p, endpoint=endpoint) if p.node == f"n{number}" else p for p in i.peers))
        for i in view.interfaces
    )
    return replace(view, interfaces=changed)


def with_ports(view: View, *ports: int) -> View:
    """Return *view*, with these listen ports."""
    listed = zip(view.interfaces, ports, strict=True)
    return replace(view, interfaces=tuple(replace(i, listen_port=port) for i, port in listed))


def broken_while(number: int, endpoint: str) -> Callable[[FakeHost], set[str]]:
    """Return a rule by which the link of relay *number* is down while it has *endpoint*."""

    def broken(host: FakeHost) -> set[str]:
        device = host.kernel.devices.get(f"wg0-u{number}")
        found = (device.peers or {}).get(key(number)) if device else None
        return {f"n{number}"} if found and found.endpoint == endpoint else set()

    return broken


def sets(host: FakeHost) -> list[str]:
    """Return the ``wg set`` commands that were run, in order."""
    return [" ".join(argv) for argv in host.kernel.ran if argv[:2] == ("wg", "set")]
