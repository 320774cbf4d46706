"""A master whose nodes are fake hosts, with WireGuard sessions between them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from saltext_wgmesh.core.model.view import Peer
from saltext_wgmesh.master.fleet.jobs import JobResult
from saltext_wgmesh.master.report import MeshReport
from saltext_wgmesh.minion.apply import assignments
from saltext_wgmesh.minion.reporting import facts
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.peer_keys import PeerKeyTracker
from tests.unit.harness.fake_master import FakeMaster
from tests.unit.harness.fakehost import FakeDevice, FakeHost, FakePeer, Kernel, with_ipv6
from tests.unit.harness.memory_cache import Cut

RUNS = 40
"""More than any rotation here takes."""


class KilledError(Exception):
    """The node's process, or its power, is gone."""


class RotatingMaster(FakeMaster):
    """Nodes with kernels of values, which are whole after every step, or the test fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, nodes: dict[str, Any]) -> None:
        super().__init__()
        self.policy["wg0"] |= {"nodes": nodes, "sites": {"s": {}}}
        self.hosts = {n: FakeHost.below(folder / n, Kernel(sysctls=with_ipv6())) for n in nodes}
        self.trackers = {n: PeerKeyTracker(host) for n, host in self.hosts.items()}
        self.mine: dict[str, dict[str, Any]] = {}
        self.reboots = False
        """Whether a node's kernel dies with it."""
        self.after_each: Callable[[], None] = self.assert_whole
        # The nodes' own code has no clock of its own to pass.
        monkeypatch.setattr("time.time", lambda: self.now)
        for node in nodes:
            self.publish(node)
        self.after_each = lambda: None
        self.run()
        self.after_each = self.assert_whole
        self.after_each()

    def publish(self, node: str) -> None:
        keys.ensure(self.hosts[node])
        self.mine[node] = facts.gather(self.hosts[node], node, f"key of {node}")

    def keys(self) -> dict[str, str]:
        """Node → the key in its file."""
        return {node: str(keys.public_key(host)) for node, host in self.hosts.items()}

    def rotate(self, *patterns: str) -> MeshReport:
        """A run in which the operator asks for other keys of nodes."""
        return self.run(rotate=patterns)

    def settle(self) -> list[MeshReport]:
        """Runs, half a minute apart, until no node is about to get another key."""
        reports = []
        for _ in range(RUNS):
            self.now += 30
            reports.append(self.run())
            if not reports[-1].rotating and not reports[-1].not_acknowledged:
                return reports
        raise AssertionError(f"after {RUNS} runs: {reports[-1]}")

    def renew_keys(self, nodes: list[str]) -> None:
        for node in nodes:
            if node not in self.off:
                with self._may_be_killed(node):
                    keys.create_next_key(self.hosts[node])
                    self.publish(node)

    def applied(self, node: str) -> dict[str, Any]:
        """What ``wgmesh.apply`` returns."""
        try:
            keys.ensure(self.hosts[node])
            outcomes = assignments.apply_assignments(self.hosts[node], self.ledger.assignments(node))
            self.publish(node)
            return {outcome.mesh: outcome.as_dict() for outcome in outcomes}
        finally:
            self.now += 1
            self.handshakes()
            self.after_each()

    def push(self, nodes: list[str]) -> JobResult:
        returned: dict[str, Any] = {}
        self.pushes.append(list(nodes))
        for node in nodes:
            if node not in self.off:
                with self._may_be_killed(node):
                    returned[node] = self.applied(node)
        return JobResult(returned=returned, unanswered={node: "1" for node in nodes if node not in returned})

    @contextmanager
    def _may_be_killed(self, node: str) -> Iterator[None]:
        try:
            yield
        except KilledError:
            if self.reboots:
                reboot(self.hosts[node])
                self.handshakes()
                self.after_each()

    def rotate_until_cut(self, name: str) -> None:
        """As far as the ledger takes what is written."""
        with contextlib.suppress(Cut):
            self.rotate(name)
            self.settle()

    def known_to_rotate(self, node: str, before: dict[str, str]) -> bool:
        """Whether the operator's request to rotate the key of *node* was written down."""
        begun = self.keys()[node] != before[node] or keys.next_key(self.hosts[node])
        return bool(begun or node in self.ledger.head("wg0").rotation.requested)

    # -- WireGuard --------------------------------------------------------------------------------------

    def ends(self) -> Iterator[tuple[str, FakeDevice, Peer]]:
        """Each end of a link that a node has applied: the node, the device, and the neighbour as its view has it."""
        for node, host in self.hosts.items():
            view = Store(host=host, mesh="wg0").view()
            for interface in view.interfaces if view else ():
                for peer in interface.peers:
                    yield node, host.kernel.devices[interface.name], peer

    def sessions(self) -> Iterator[tuple[str, str, FakeDevice, str, FakePeer]]:
        """Node, neighbour, device, the neighbour's key and peer entry, of every link on which a handshake succeeds."""
        running = {(n, d.public_key): d for n, host in self.hosts.items() for d in host.kernel.devices.values()}
        for node, device, peer in self.ends():
            for key in peer.keys:
                other = running.get((peer.node, key))
                if other and key in device.peers and any(device.public_key in d.peers for d in self.devices(peer.node)):
                    yield node, peer.node, device, key, device.peers[key]

    def devices(self, node: str) -> list[FakeDevice]:
        return list(self.hosts[node].kernel.devices.values())

    def handshakes(self) -> None:
        """All sessions are fresh, and the watchers have looked."""
        for _, _, _, _, entry in self.sessions():
            entry.handshake_at = int(self.now)
            entry.received += 100
        for node, tracker in self.trackers.items():
            view = Store(host=self.hosts[node], mesh="wg0").view()
            tracker.update((i.name, p) for i in view.interfaces for p in i.peers) if view else None

    def assert_whole(self) -> None:
        """On every link of which both ends have applied a view, both take the key that the other runs."""
        up = {(node, other): entry for node, other, _, _, entry in self.sessions() if entry.allowed_ips}
        for node, _, peer in self.ends():
            assert (node, peer.node) in up, f"{node} does not take what {peer.node} runs"


class Power:
    """The node loses it at its step number *steps*: a command, or a write, rename or removal of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mesh: RotatingMaster, node: str, steps: int) -> None:
        self.left = steps
        self.host = mesh.hosts[node]
        run, replace, remove = FakeHost.run, os.replace, files.remove_file

        def counted_run(host: FakeHost, *argv: str, text: str = "") -> str:
            if host is self.host:
                self.step()
            return run(host, *argv, text=text)

        def counted_replace(source: Any, target: Any) -> None:
            if self.host.state_dir.parent in Path(target).parents:
                self.step()
            replace(source, target)

        def counted_remove(path: Path) -> None:
            if self.host.state_dir.parent in path.parents:
                self.step()
            remove(path)

        monkeypatch.setattr(FakeHost, "run", counted_run)
        monkeypatch.setattr(os, "replace", counted_replace)
        monkeypatch.setattr(files, "remove_file", counted_remove)

    def step(self) -> None:
        """Once; afterwards it is there again."""
        self.left -= 1
        if self.left == 0:
            raise KilledError


def reboot(host: FakeHost) -> None:
    """The interfaces are as wg-quick makes them of their files and of the key file."""
    for path in host.conf_dir.glob("*.conf"):
        key, peers = "", {}
        for word, value in (line.split(" = ", 1) for line in path.read_text().splitlines() if " = " in line):
            key = value if word == "PublicKey" else key
            if key:
                entry = peers.setdefault(key, FakePeer())
                entry.allowed_ips |= set(value.split(", ")) if word == "AllowedIPs" else set()
                entry.endpoint = value if word == "Endpoint" else entry.endpoint
        device = host.kernel.devices[path.stem]
        device.peers, device.public_key = peers, keys.public_key(host)
