"""Rotation of keys from the runner to the nodes' kernels: a master, nodes of values, and WireGuard between them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from saltext_wgmesh.core.health import Health, Trouble
from saltext_wgmesh.core.types import Peer
from saltext_wgmesh.master import checkup, converge, fleet, record
from saltext_wgmesh.minion import apply, facts, files, keys, offers
from saltext_wgmesh.minion.following import Follower
from saltext_wgmesh.minion.store import Store
from tests.unit.fakehost import FakeDevice, FakeHost, FakePeer, Kernel, with_ipv6
from tests.unit.test_converge import World
from tests.unit.test_ledger import Cut

RUNS = 40
"""More than any rotation here takes."""


class KilledError(Exception):
    """The node's process, or its power, is gone."""


class Fleet(World):
    """Nodes with kernels of values, which are whole after every step, or the test fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, nodes: dict[str, Any]) -> None:
        super().__init__(monkeypatch)
        self.policy["wg0"] |= {"nodes": nodes, "sites": {"s": {}}}
        self.hosts = {n: FakeHost.below(folder / n, Kernel(sysctls=with_ipv6())) for n in nodes}
        self.followers = {n: Follower(host) for n, host in self.hosts.items()}
        self.mine: dict[str, dict[str, Any]] = {}
        self.reboots = False
        """Whether a node's kernel dies with it."""
        self.after_each: Callable[[], None] = self.assert_whole
        monkeypatch.setattr(fleet, "renew", lambda _opts, nodes: self._renew(nodes))
        for node in nodes:
            self.publish(node)
        self.after_each = lambda: None
        self.converge()
        self.after_each = self.assert_whole
        self.after_each()

    def publish(self, node: str) -> None:
        keys.ensure(self.hosts[node])
        self.mine[node] = facts.gather(self.hosts[node], node, f"key of {node}")

    def keys(self) -> dict[str, str]:
        """Node → the key in its file."""
        return {node: str(keys.public_key(host)) for node, host in self.hosts.items()}

    def rotate(self, *names: str) -> converge.Report:
        (report,) = converge.converge({}, converge.Asked(rotate=frozenset(names)))
        return report

    def converge_all(self) -> None:
        """A run of all meshes."""
        converge.converge({}, converge.Asked())

    def settle(self) -> list[converge.Report]:
        """Runs, half a minute apart, until nobody is about to get another key."""
        reports = []
        for _ in range(RUNS):
            self.now += 30
            reports.append(self.converge())
            if not reports[-1].rotating and not reports[-1].not_acknowledged:
                return reports
        raise AssertionError(f"after {RUNS} runs: {reports[-1]}")

    def _renew(self, nodes: list[str]) -> None:
        for node in nodes:
            if node not in self.off:
                with self._may_be_killed(node):
                    keys.prepare(self.hosts[node])
                    self.publish(node)

    def applied(self, node: str) -> dict[str, Any]:
        """What ``wgmesh.apply`` returns."""
        try:
            keys.ensure(self.hosts[node])
            outcomes = offers.take(self.hosts[node], self.ledger.views(node))
            self.publish(node)
            return {outcome.mesh: outcome.as_dict() for outcome in outcomes}
        finally:
            self.now += 1
            self.handshakes()
            self.after_each()

    def _push(self, nodes: list[str]) -> fleet.Answers:
        answers = fleet.Answers()
        self.pushes.append(list(nodes))
        for node in nodes:
            answers.jobs[node] = "1"
            if node not in self.off:
                with self._may_be_killed(node):
                    answers.returned[node] = self.applied(node)
                    del answers.jobs[node]
        return answers

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
        """Whether the wish of somebody to rotate *node* was written down."""
        begun = self.keys()[node] != before[node] or keys.next_key(self.hosts[node])
        return bool(begun or node in self.ledger.head("wg0").rotation.wanted)

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
        for node, follower in self.followers.items():
            view = Store(host=self.hosts[node], mesh="wg0").view()
            follower.look((i.name, p) for i in view.interfaces for p in i.peers) if view else None

    def assert_whole(self) -> None:
        """On every link of which both ends have applied a view, both take the key that the other runs."""
        up = {(node, other): entry for node, other, _, _, entry in self.sessions() if entry.allowed_ips}
        for node, _, peer in self.ends():
            assert (node, peer.node) in up, f"{node} does not take what {peer.node} runs"


RELAYS = {f"r{i}": {"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2)}


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    """Two relays and three leaves, two of which share a site and so a direct link."""
    return Fleet(monkeypatch, tmp_path, {**RELAYS, "a": {"site": "s"}, "b": {"site": "s"}, "c": {"nat": True}})


def assert_rotated(mesh: Fleet, before: dict[str, str], *nodes: str) -> None:
    """*nodes*, and no others, have another key than *before*; nobody knows another of anybody."""
    after = mesh.keys()
    assert {n for n in after if after[n] != before[n]} == set(nodes)
    assert not any(keys.next_file(host).exists() for host in mesh.hosts.values())
    for node, host in mesh.hosts.items():
        for device in host.kernel.devices.values():
            assert device.public_key == after[node]
            assert set(device.peers) <= set(after.values())
            assert all(peer.allowed_ips for peer in device.peers.values())
    assert [sorted(i["public_key"] for i in mesh.mine.values())] == [sorted(after.values())]
    assert mesh.ledger.head("wg0").rotation.turns == {}


def test_one_node_gets_another_key(mesh: Fleet) -> None:
    """Its neighbours take both, it turns, the old one goes; the links hold at every step."""
    before = mesh.keys()
    assert mesh.rotate("a").rotating == {"a": "it is to make another key"} or mesh.mine["a"].get("next_key")
    reports = mesh.settle()
    assert_rotated(mesh, before, "a")
    assert len(reports) <= 4


def test_all_nodes_get_other_keys(mesh: Fleet) -> None:
    """Never do two neighbours turn in one push, and never two relays."""
    before = mesh.keys()
    pushed = mesh._push

    def watched(nodes: list[str]) -> fleet.Answers:
        turning = {n for n in nodes if mesh.ledger.views(n)["wg0"].get("turn_to") not in (None, mesh.keys()[n])}
        assert len(turning & RELAYS.keys()) <= 1
        links = {(link.a, link.b) for link in record.published(mesh.ledger).plan.links}
        assert not [pair for pair in links if set(pair) <= turning]
        return pushed(nodes)

    mesh.monkeypatch.setattr(mesh, "_push", watched)
    mesh.rotate("*")
    mesh.settle()
    assert_rotated(mesh, before, *before)


def test_what_the_neighbours_follow_is_no_drift(mesh: Fleet) -> None:
    """Where a neighbour turned and its new facts are not there yet, a look at the node finds nothing to do."""
    published = mesh.publish
    mesh.monkeypatch.setattr(mesh, "publish", lambda node: published(node) if keys.next_key(mesh.hosts[node]) else None)
    mesh.rotate("a")
    mesh.converge()
    mesh.converge()
    assert {d.public_key for d in mesh.devices("a")} == {mesh.keys()["a"]} != {mesh.mine["a"]["public_key"]}
    for host in mesh.hosts.values():
        view = Store(host=host, mesh="wg0").view()
        assert view
        assert apply.apply(host, view, dry_run=True).lines == []


def test_a_neighbour_that_does_not_answer_holds_the_turn_and_nothing_else(mesh: Fleet) -> None:
    """The leaf c hears nothing of new keys: its relays keep theirs, a and b get others."""
    before = mesh.keys()
    mesh.off = {"c"}
    mesh.rotate("*")
    for _ in range(10):
        mesh.now += 30
        report = mesh.converge()
    assert report.rotating == {
        "c": "it is to make another key",
        "r1": "not acknowledged by c",
        "r2": "not acknowledged by c",
    }
    after = mesh.keys()
    assert {n for n in after if after[n] != before[n]} == {"a", "b"}
    mesh.off = set()
    mesh.now += 300
    mesh.settle()
    assert_rotated(mesh, before, *before)


def test_a_node_that_is_down_holds_nobody_up(mesh: Fleet) -> None:
    """It learns of the new keys when it returns."""
    before = mesh.keys()
    mesh.off = {"c"}
    mesh.after_each = lambda: None
    mesh.ledger.keep_health("wg0", Health(down=frozenset({"c"}), nodes={"c": Trouble(since=1.0, by=("r1", "r2"))}))
    mesh.monkeypatch.setattr(checkup, "ask", lambda _opts, _nodes, _gone: {})
    mesh.rotate("r*")
    for _ in range(10):
        mesh.now += 30
        mesh.converge()
    after = mesh.keys()
    assert {n for n in after if after[n] != before[n]} == {"r1", "r2"}
    mesh.off = set()
    mesh.now += 300
    mesh.after_each = mesh.assert_whole
    mesh.converge()
    assert_rotated(mesh, before, "r1", "r2")


def test_a_turn_that_is_not_taken_is_given_back(mesh: Fleet) -> None:
    """The relay that stopped to answer keeps the other relay waiting for a while, and not for ever."""
    before = mesh.keys()
    mesh.rotate("r*")
    mesh.converge()
    mesh.off = {"r1"}
    for _ in range(20):
        mesh.now += 30
        mesh.converge()
    turning = [n for n in before if mesh.ledger.views(n)["wg0"].get("turn_to")]
    assert turning == []
    mesh.off = set()
    mesh.now += 400
    mesh.settle()
    assert_rotated(mesh, before, "r1", "r2")


def test_by_the_policy_every_node_gets_another_key_in_its_time(mesh: Fleet) -> None:
    """Nobody asks for it; in a day with a period of a day, each once."""
    before = mesh.keys()
    mesh.policy["wg0"]["rotate_after"] = "1d"
    mesh.converge()
    hours: dict[str, int] = {}
    for hour in range(1, 25):
        mesh.now += 3600
        mesh.converge()
        mesh.settle()
        after = mesh.keys()
        hours |= {n: hour for n in after if after[n] != before[n] and n not in hours}
    assert_rotated(mesh, before, *before)
    assert len(set(hours.values())) > 1


def test_a_node_in_two_meshes_turns_in_both_before_the_old_key_goes(mesh: Fleet) -> None:
    """One key serves all its interfaces."""
    mesh.policy["wg1"] = {
        "network": "10.1.0.0/16",
        "listen_port": 52000,
        "nodes": {"c": {"role": "relay", "endpoint": "203.0.113.9"}, "a": {}},
    }
    mesh.converge_all()
    before = mesh.keys()
    converge.converge({}, converge.Asked(rotate=frozenset({"a"})))
    for _ in range(8):
        mesh.now += 30
        mesh.converge_all()
    assert_rotated(mesh, before, "a")
    assert {d.public_key for d in mesh.devices("a")} == {mesh.keys()["a"]}
    assert len(mesh.devices("a")) == 5


# --- lost keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepared", [False, True])
def test_a_lost_key_is_replaced_without_a_broken_link(mesh: Fleet, prepared: bool) -> None:
    """The interfaces run on with what the kernel has until the neighbours take the new key; a next key that is there
    already becomes it."""
    before = mesh.keys()
    if prepared:
        mesh.rotate("a")
    awaited = keys.next_key(mesh.hosts["a"])
    mesh.hosts["a"].key_file.unlink()
    mesh.applied("a")
    assert mesh.mine["a"]["public_key"] == before["a"] != mesh.keys()["a"] == mesh.mine["a"]["next_key"]
    assert awaited in (None, mesh.keys()["a"])
    reports = mesh.settle()
    assert_rotated(mesh, before, "a")
    told = [warning for report in reports for warning in report.warnings]
    assert told == ([] if prepared else ["a: it has made another key that nobody asked for: was its key file lost?"])


def test_a_new_disk_is_a_new_key(mesh: Fleet) -> None:
    """Nothing of the old one is left, and the first run gives the neighbours the new one, with a warning."""
    before = mesh.keys()
    mesh.after_each = lambda: None
    host = mesh.hosts["a"]
    shutil.rmtree(host.state_dir.parent)
    host.kernel.devices.clear()
    host.kernel.routes.clear()
    mesh.applied("a")
    reports = mesh.settle()
    assert_rotated(mesh, before, "a")
    assert reports[0].warnings == ["a: it has another key than it announced: was its disk replaced?"]
    mesh.assert_whole()


# --- interruptions -------------------------------------------------------------------------------------


class Power:
    """The node loses it at its step number *steps*: a command, or a write, rename or removal of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mesh: Fleet, node: str, steps: int) -> None:
        self.left = steps
        self.host = mesh.hosts[node]
        run, replace, remove = FakeHost.run, os.replace, files.remove

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
        monkeypatch.setattr(files, "remove", counted_remove)

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


@pytest.mark.parametrize("reboots", [False, True])
def test_a_node_that_dies_at_any_step_ends_with_its_new_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reboots: bool
) -> None:
    """Whichever command or file it was at, the links hold, and the rotation is finished by the runs after. The same if
    the whole machine starts again."""
    nodes = {"r1": RELAYS["r1"], "a": {"site": "s"}, "b": {"site": "s"}}
    for steps in range(1, 400):
        mesh = Fleet(monkeypatch, tmp_path / str(steps), nodes)
        mesh.reboots = reboots
        before = mesh.keys()
        with monkeypatch.context() as patch:
            power = Power(patch, mesh, "a", steps)
            mesh.rotate("a")
            mesh.now += 30
            mesh.settle()
        assert_rotated(mesh, before, "a")
        if power.left > 0:
            assert steps > 20
            return
    raise AssertionError("it never came to its end")


def test_a_master_that_dies_at_any_step_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whichever record it was writing."""
    nodes = {"r1": RELAYS["r1"], "a": {"site": "s"}, "b": {"site": "s"}}
    for cut in range(400):
        mesh = Fleet(monkeypatch, tmp_path / str(cut), nodes)
        before = mesh.keys()
        cache: Any = mesh.ledger._cache
        cache.cut = cut
        mesh.rotate_until_cut("a")
        died = cache.cut == 0
        cache.cut = None
        mesh.rotate("a") if not mesh.known_to_rotate("a", before) else None
        mesh.settle()
        assert mesh.keys()["a"] != before["a"]
        if not died:
            return
    raise AssertionError("it never came to its end")
