"""Rotation of keys from the runner to the nodes' kernels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from saltext_wgmesh.core.liveness.mesh_health import Health, Outage
from saltext_wgmesh.master.fleet.jobs import JobResult
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from tests.unit.harness.rotating_master import Power, RotatingMaster

RELAYS = {f"r{i}": {"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2)}


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RotatingMaster:
    """Two relays and three leaves, two of which share a site and so a direct link."""
    return RotatingMaster(monkeypatch, tmp_path, {**RELAYS, "a": {"site": "s"}, "b": {"site": "s"}, "c": {"nat": True}})


def assert_rotated(mesh: RotatingMaster, before: dict[str, str], *nodes: str) -> None:
    """*nodes*, and no others, have another key than *before*; no node knows another key of any."""
    after = mesh.keys()
    assert {n for n in after if after[n] != before[n]} == set(nodes)
    assert not any(keys.next_file(host).exists() for host in mesh.hosts.values())
    for node, host in mesh.hosts.items():
        for device in host.kernel.devices.values():
            assert device.public_key == after[node]
            assert set(device.peers) <= set(after.values())
            assert all(peer.allowed_ips for peer in device.peers.values())
    assert [sorted(i["public_key"] for i in mesh.mine.values())] == [sorted(after.values())]
    assert mesh.ledger.head("wg0").rotation.activated == {}


def test_one_node_gets_another_key(mesh: RotatingMaster) -> None:
    """Its neighbours take both, it turns, the old one goes; the links hold at every step."""
    before = mesh.keys()
    assert mesh.rotate("a").rotating == {"a": "it must create its next key"} or mesh.mine["a"].get("next_key")
    reports = mesh.settle()
    assert_rotated(mesh, before, "a")
    assert len(reports) <= 4


def test_all_nodes_get_other_keys(mesh: RotatingMaster) -> None:
    """Never do two neighbours turn in one push, and never two relays."""
    before = mesh.keys()
    pushed = mesh.push

    def watched(nodes: list[str]) -> JobResult:
        turning = {
            n for n in nodes if mesh.ledger.assignments(n)["wg0"].get("activate_key") not in (None, mesh.keys()[n])
        }
        assert len(turning & RELAYS.keys()) <= 1
        links = {(link.a, link.b) for link in mesh.plan().links}
        assert not [pair for pair in links if set(pair) <= turning]
        return pushed(nodes)

    mesh.push = watched
    mesh.rotate("*")
    mesh.settle()
    assert_rotated(mesh, before, *before)


def test_followed_key_is_no_drift(mesh: RotatingMaster) -> None:
    """Where a neighbour turned and its new facts are not there yet, a look at the node finds nothing to do."""
    published = mesh.publish
    mesh.publish = lambda node: published(node) if keys.next_key(mesh.hosts[node]) else None
    mesh.rotate("a")
    mesh.run()
    mesh.run()
    assert {d.public_key for d in mesh.devices("a")} == {mesh.keys()["a"]} != {mesh.mine["a"]["public_key"]}
    for host in mesh.hosts.values():
        view = Store(host=host, mesh="wg0").view()
        assert view
        assert apply.apply(host, view, dry_run=True).lines == []


def test_silent_neighbour_delays_only_its_own_links(mesh: RotatingMaster) -> None:
    """The leaf c hears nothing of new keys: its relays keep theirs, a and b get others."""
    before = mesh.keys()
    mesh.off = {"c"}
    mesh.rotate("*")
    for _ in range(10):
        mesh.now += 30
        report = mesh.run()
    assert report.rotating == {
        "c": "it must create its next key",
        "r1": "not acknowledged by c",
        "r2": "not acknowledged by c",
    }
    after = mesh.keys()
    assert {n for n in after if after[n] != before[n]} == {"a", "b"}
    mesh.off = set()
    mesh.now += 300
    mesh.settle()
    assert_rotated(mesh, before, *before)


def test_down_node_delays_no_rotation(mesh: RotatingMaster) -> None:
    """It learns of the new keys when it returns."""
    before = mesh.keys()
    mesh.off = {"c"}
    mesh.after_each = lambda: None
    mesh.ledger.save_health(
        "wg0", Health(down_nodes=frozenset({"c"}), nodes={"c": Outage(since=1.0, reporters=("r1", "r2"))})
    )
    mesh.rotate("r*")
    for _ in range(10):
        mesh.now += 30
        mesh.run()
    after = mesh.keys()
    assert {n for n in after if after[n] != before[n]} == {"r1", "r2"}
    mesh.off = set()
    mesh.now += 300
    mesh.after_each = mesh.assert_whole
    mesh.run()
    assert_rotated(mesh, before, "r1", "r2")


def test_activation_that_fails_is_withdrawn(mesh: RotatingMaster) -> None:
    """The relay that stopped to answer keeps the other relay waiting for a while, and not for ever."""
    before = mesh.keys()
    mesh.rotate("r*")
    mesh.run()
    mesh.off = {"r1"}
    for _ in range(20):
        mesh.now += 30
        mesh.run()
    turning = [n for n in before if mesh.ledger.assignments(n)["wg0"].get("activate_key")]
    assert turning == []
    mesh.off = set()
    mesh.now += 400
    mesh.settle()
    assert_rotated(mesh, before, "r1", "r2")


def test_policy_rotates_every_node_once_a_period(mesh: RotatingMaster) -> None:
    """Without a request; in a day with a period of a day, each once."""
    before = mesh.keys()
    mesh.policy["wg0"]["rotate_after"] = "1d"
    mesh.run()
    hours: dict[str, int] = {}
    for hour in range(1, 25):
        mesh.now += 3600
        mesh.run()
        mesh.settle()
        after = mesh.keys()
        hours |= {n: hour for n in after if after[n] != before[n] and n not in hours}
    assert_rotated(mesh, before, *before)
    assert len(set(hours.values())) > 1


def test_node_in_two_meshes_activates_in_both_first(mesh: RotatingMaster) -> None:
    """One key serves all its interfaces."""
    mesh.policy["wg1"] = {
        "network": "10.1.0.0/16",
        "listen_port": 52000,
        "nodes": {"c": {"role": "relay", "endpoint": "203.0.113.9"}, "a": {}},
    }
    mesh.run_all()
    before = mesh.keys()
    mesh.run_all(rotate="a")
    for _ in range(8):
        mesh.now += 30
        mesh.run_all()
    assert_rotated(mesh, before, "a")
    assert {d.public_key for d in mesh.devices("a")} == {mesh.keys()["a"]}
    assert len(mesh.devices("a")) == 5


# --- lost keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepared", [False, True])
def test_lost_key_is_replaced_without_broken_link(mesh: RotatingMaster, prepared: bool) -> None:
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
    assert told == ([] if prepared else ["a: it has made another key that was not requested: was its key file lost?"])


def test_new_disk_gives_a_new_key(mesh: RotatingMaster) -> None:
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
    assert reports[0].warnings == ("a: it has another key than it announced: was its disk replaced?",)
    mesh.assert_whole()


# --- interruptions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reboots", [False, True])
def test_node_that_dies_anywhere_gets_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reboots: bool) -> None:
    """Whichever command or file it was at, the links hold, and the rotation is finished by the runs after. The same if
    the whole machine starts again."""
    nodes = {"r1": RELAYS["r1"], "a": {"site": "s"}, "b": {"site": "s"}}
    for steps in range(1, 400):
        mesh = RotatingMaster(monkeypatch, tmp_path / str(steps), nodes)
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


def test_master_that_dies_anywhere_is_continued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whichever record it was writing."""
    nodes = {"r1": RELAYS["r1"], "a": {"site": "s"}, "b": {"site": "s"}}
    for cut in range(400):
        mesh = RotatingMaster(monkeypatch, tmp_path / str(cut), nodes)
        before = mesh.keys()
        cache = mesh.cache
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
