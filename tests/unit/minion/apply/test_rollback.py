"""A view that breaks the node is rolled back."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from saltext_wgmesh.core.errors import HostError, RolledBack
from saltext_wgmesh.core.model.policy import Role
from saltext_wgmesh.minion.apply import assignments, untracked
from saltext_wgmesh.minion.apply.health_check import Master
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import key, leaf, peer, relay
from tests.unit.harness.fake_watcher import (
    FAST,
    NEW,
    OLD,
    apply_fast,
    broken_while,
    with_endpoint,
    with_ports,
)
from tests.unit.harness.fakehost import FakeHost


def test_view_that_loses_link_is_rolled_back(host, watched) -> None:
    """Endpoints, files and state are as before, and the interface of the next step was not touched."""
    watcher = watched(leaf())
    watcher.broken = broken_while(1, NEW)
    memory = Store(host=host, mesh="wg0")
    with pytest.raises(
        RolledBack, match="rolled back: n1 is no longer reachable after the changes of wg0-u1"
    ) as caught:
        apply_fast(host, with_endpoint(with_endpoint(leaf(), 1, NEW), 2, NEW))
    assert caught.value.digest == leaf().digest()
    assert watcher.admin_down == [("n1",)]
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD
    assert NEW not in (host.conf_dir / "wg0-u1.conf").read_text()
    assert (memory.view(), memory.previous()) == (leaf(), None)
    assert apply_fast(host, leaf()).lines == []


def test_rolled_back_role_loses_its_table(host, watched, monkeypatch) -> None:
    """The view of a relay wrote its table; with the leaf's view the node has none again."""
    watched(leaf()).broken = broken_while(1, NEW)
    asked: list[Role] = []
    monkeypatch.setattr(untracked, "apply_table", lambda _host, view, **_more: asked.append(view.role) or ())
    broken = replace(with_endpoint(leaf(), 1, NEW), role=Role.RELAY, forward=True)
    with pytest.raises(RolledBack):
        apply_fast(host, broken)
    assert asked[-1] is Role.LEAF


def test_key_that_loses_link_is_rolled_back(host, watched) -> None:
    """The interface runs the old key again, which still exists; the next key waits for another activation."""
    watcher = watched(leaf())
    old, new = keys.public_key(host), keys.create_next_key(host)
    watcher.broken = lambda found: {"n2"} if found.kernel.devices["wg0-u2"].public_key == new else set()
    with pytest.raises(RolledBack, match="n2 is no longer reachable after the changes of wg0-u2"):
        apply_fast(host, replace(leaf(), activate_key=new))
    assert {d.public_key for d in host.kernel.devices.values()} == {old}
    assert (keys.public_key(host), keys.next_key(host)) == (old, new)
    assert apply_fast(host, leaf()).lines == []


def test_recent_handshake_does_not_keep_broken_endpoint(host, watched) -> None:
    """The rollback sets the endpoint that the broken view had changed, though the session is alive."""
    watcher = watched(leaf())
    host.kernel.devices["wg0-u1"].peers[key(1)].handshake_at = int(time.time())
    watcher.broken = broken_while(1, NEW)
    with pytest.raises(RolledBack):
        apply_fast(host, with_endpoint(leaf(), 1, NEW))
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD


def test_leaf_without_reachable_relay_rolls_back(host, watched) -> None:
    """None of the new relays knows the leaf: the old relays and their routes are restored."""
    watcher = watched(leaf())
    watcher.names |= {"n3": "wg0-u3"}
    watcher.broken = lambda _host: {"n3"}
    with pytest.raises(RolledBack, match=r"no relay is reachable any longer \(n3\)"):
        apply_fast(host, leaf(relays=(3,), via=3))
    assert sorted(host.kernel.devices) == ["wg0", "wg0-u1", "wg0-u2"]
    assert host.kernel.routes["main", "10.100.0.0/16"]["dev"] == "wg0-u1"
    assert {p.stem for p in host.conf_dir.glob("*.conf")} == {"wg0", "wg0-u1", "wg0-u2"}


@pytest.mark.parametrize("beyond", [True, False])
def test_view_that_cuts_off_master_is_rolled_back(host, monkeypatch, beyond) -> None:
    """The check also works without a watcher. A master whose path can't lead through the mesh is not asked."""
    tried: list[str] = []

    def answers(master: Master) -> bool:
        tried.append(master.address)
        return ("main", "10.100.0.7/32") not in host.kernel.routes

    monkeypatch.setattr(Master, "answers", answers)
    apply_fast(host, leaf())
    master = Master(address="10.100.0.7" if beyond else "203.0.113.99", port=4505)
    if not beyond:
        apply_fast(host, leaf(direct=(peer(7),)), master=master)
        assert tried == []
        return
    with pytest.raises(RolledBack, match=r"the master \(10\.100\.0\.7, port 4505\) is no longer reachable"):
        apply_fast(host, leaf(direct=(peer(7),)), master=master)
    assert ("main", "10.100.0.7/32") not in host.kernel.routes


def test_first_view_that_cuts_off_master_is_removed(host, monkeypatch) -> None:
    """Without a previous view the mesh is removed from the node."""
    monkeypatch.setattr(Master, "answers", lambda _master: not host.kernel.routes)
    with pytest.raises(RolledBack) as caught:
        apply_fast(host, leaf(), master=Master(address="10.100.0.7", port=4505))
    assert (caught.value.digest, host.kernel.devices, host.kernel.routes) == (None, {}, {})


def test_rolled_back_view_is_retried_on_request_only(host, watched) -> None:
    """A highstate does not retry it; the master's push does. Success clears the record."""
    watcher = watched(leaf())
    watcher.broken = broken_while(1, NEW)
    bad = with_endpoint(leaf(), 1, NEW)
    offered = {"wg0": bad.as_dict()}
    (first,) = assignments.apply_assignments(host, offered, timeouts=FAST)
    assert (first.rolled_back, first.digest, first.as_dict()["rolled_back"]) == (True, leaf().digest(), True)
    assert str(first.error).startswith("rolled back: n1 is no longer reachable")
    steps = len(watcher.admin_down)
    (second,) = assignments.apply_assignments(host, offered, timeouts=FAST)
    assert (second.rolled_back, len(watcher.admin_down)) == (True, steps)
    watcher.broken = lambda _host: set()
    (third,) = assignments.apply_assignments(host, offered, retry_rolled_back=True, timeouts=FAST)
    assert (third.error, third.digest) == (None, bad.digest())
    assert Store(host=host, mesh="wg0").rolled_back() is None


def test_failed_command_in_step_is_rolled_back(host, watched, monkeypatch) -> None:
    """A port that another program holds: the changes until then are undone."""
    watched(relay(leaves=(peer(7),)))
    view = with_ports(relay(leaves=(peer(7),)), 51900, 51901)
    run = FakeHost.run

    def refuse(self: FakeHost, *argv: str, text: str = "") -> str:
        if "51901" in argv:
            raise HostError("Address already in use")
        return run(self, *argv, text=text)

    monkeypatch.setattr(FakeHost, "run", refuse)
    with pytest.raises(RolledBack, match="rolled back: Address already in use"):
        apply_fast(host, view)
    assert [host.kernel.devices[n].port for n in ("wg0", "wg0-t2")] == [51820, 51822]
