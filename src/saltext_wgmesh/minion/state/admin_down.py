"""Administratively down links: an apply asks the watcher to hold links down while it changes them.

The request is a file beside the watcher's report. It expires by itself, so that an apply that dies leaves no link down.
The watcher takes the sessions to AdminDown (RFC 5880 section 6.8.16), so both ends route around the link first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState
from saltext_wgmesh.minion.state import link_report_file
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host

REQUEST_TTL = 30.0
"""Seconds after which a request is void."""
UNUSED_TIMEOUT = 2.0
"""Seconds to wait until the links are unused: the watcher polls each 0.2 s, and notifies the other end at once."""
NOTICE_TIME = 0.3
"""Seconds within which the watcher has read a request."""
LINK_POLL_INTERVAL = 0.05
"""Seconds."""


def request_path(host: Host, mesh: str) -> Path:
    """Return the path of the request."""
    return host.run_dir / f"{mesh}.admin-down"


def requested(host: Host, mesh: str) -> frozenset[str]:
    """Return the neighbours whose links are to be administratively down now."""
    try:
        raw = json.loads(request_path(host, mesh).read_text())
        # A request that lies far in the future was written before a reboot.
        valid = 0.0 <= float(raw["until"]) - time.monotonic() <= REQUEST_TTL
        return frozenset(map(str, raw["neighbours"])) if valid else frozenset()
    except (OSError, *files.DAMAGE):
        return frozenset()


@contextmanager
def links_admin_down(host: Host, mesh: str, neighbours: Set[str]) -> Iterator[None]:
    """Within the block, hold the links to *neighbours* down. Traffic that has another path takes that, both ways.

    The block begins when the links are unused, or after UNUSED_TIMEOUT: a neighbour may not answer. Links that are down
    before stay down within the block. Without a watcher the block runs at once.
    """
    report = link_report_file.read_report(host, mesh)
    if not neighbours or report is None or not report.from_watcher:
        yield
        return
    used: set[str] = set()
    requested_at = time.monotonic()

    def unused(latest: LinkReport) -> bool:
        # A link that is just coming up may carry traffic until the watcher has read the request.
        used.update(n for n in neighbours if _state(latest, n) in _ANSWERING)
        noticed = used >= neighbours or time.monotonic() - requested_at > NOTICE_TIME
        return noticed and all(_is_unused(latest, n) for n in used)

    request = {"neighbours": sorted(neighbours), "until": time.monotonic() + REQUEST_TTL}
    files.write_file(request_path(host, mesh), json.dumps(request), mode=0o644)
    try:
        _wait_until(host, mesh, unused, UNUSED_TIMEOUT)
        yield
    finally:
        files.remove_file(request_path(host, mesh))


def wait_for_links(host: Host, mesh: str, neighbours: Set[str], timeout: float) -> tuple[str, ...]:
    """Wait until the links to *neighbours* are up, at most *timeout* seconds; return those that are not, sorted.

    Without a watcher there is no evidence, and the result is empty.
    """
    report = _wait_until(host, mesh, lambda latest: all(_state(latest, n) in _ANSWERING for n in neighbours), timeout)
    return tuple(sorted(n for n in neighbours if report is not None and _state(report, n) not in _ANSWERING))


_ANSWERING = (LinkState.UP, LinkState.BLACKHOLE)


def _state(report: LinkReport, neighbour: str) -> LinkState | None:
    link = report.links.get(neighbour)
    return link.state if link else None


def _is_unused(report: LinkReport, neighbour: str) -> bool:
    """Return whether the link carries no traffic that has another path."""
    link = report.links.get(neighbour)
    return link is None or link.state in (LinkState.DOWN, LinkState.NEW) or link.admin_down_acknowledged


def _wait_until(host: Host, mesh: str, is_met: Callable[[LinkReport], bool], timeout: float) -> LinkReport | None:
    """Return the watcher's first report that *is_met*, or its last one after *timeout* s; None if the watcher ended."""
    deadline = time.monotonic() + timeout
    while True:
        report = link_report_file.read_report(host, mesh)
        if report is None or not report.from_watcher or is_met(report) or time.monotonic() >= deadline:
            return report if report and report.from_watcher else None
        time.sleep(LINK_POLL_INTERVAL)
