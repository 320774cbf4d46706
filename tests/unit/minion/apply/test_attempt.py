"""Disruptive steps: each is made while its links are held down, and is followed by a check of the links."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.state import admin_down, keys
from tests.nodeviews import key, leaf, peer, relay
from tests.unit.harness.fake_watcher import (
    FAST,
    OLD,
    apply_fast,
    sets,
    with_endpoint,
    with_ports,
)
from tests.unit.harness.fakehost import FakeHost


def test_mtu_changes_one_interface_after_another(host, watched) -> None:
    """Another MTU disrupts both uplinks: never both at once. The access interface has no neighbours to disrupt."""
    watcher = watched(leaf())
    done = apply_fast(host, replace(leaf(), mtu=1380))
    assert watcher.admin_down == [("n1",), ("n2",)]
    assert {d.mtu for d in host.kernel.devices.values()} == {1380}
    assert not admin_down.request_path(host, "wg0").exists()
    assert len(done.lines) == len([line for line in done.lines if "mtu" in line or "boot" in line])


def test_new_endpoint_disrupts_only_its_link(host, watched) -> None:
    """A direct neighbour gets another endpoint; the one beside it stays up."""
    near = (peer(7, endpoint="192.0.2.7:51820"), peer(8))
    watcher = watched(leaf(direct=near))
    apply_fast(host, leaf(direct=(peer(7, endpoint="192.0.2.77:51820"), peer(8))))
    assert watcher.admin_down == [("n7",)]


def test_additions_disrupt_no_link(host, watched) -> None:
    """A third uplink, a direct neighbour and its routes are added without holding a link down."""
    watcher = watched(leaf())
    apply_fast(host, leaf(relays=(1, 2, 3), direct=(peer(7),)))
    assert watcher.admin_down == []


def test_apply_without_watcher_is_one_step(host) -> None:
    """No request to hold links down is left, since no watcher would read it."""
    apply_fast(host, leaf())
    apply_fast(host, replace(leaf(), mtu=1380))
    assert not admin_down.request_path(host, "wg0").exists()


def test_neighbour_with_new_key_is_one_step(host, watched) -> None:
    """The new peer takes the allowed-ips, and the old peer is removed in the same step."""
    old = leaf(direct=(peer(7),))
    watcher = watched(old)
    apply_fast(host, leaf(direct=(peer(7, public_key=key(77)),)))
    assert watcher.admin_down == [("n7",)]
    assert set(host.kernel.devices["wg0"].peers) == {key(77)}


@pytest.mark.parametrize(
    ("ports", "admin_down"),
    [
        # Each port is another's new one: the interface that releases a port comes first.
        ((51821, 51822, 51823), [("n3",), ("n2",), ("n7",)]),
        # In a ring none can be first: all change together.
        ((51821, 51822, 51820), [("n2", "n3", "n7")]),
    ],
)
def test_ports_move_from_releaser_to_receiver(host, watched, ports, admin_down) -> None:
    """An interface waits for the port that another releases; interfaces that form a ring change together."""
    view = with_ports(relay(leaves=(peer(7),), trunks=(2, 3)), 51820, 51821, 51822)
    watcher = watched(view)
    apply_fast(host, with_ports(view, *ports))
    assert tuple(d.port for _, d in sorted(host.kernel.devices.items())) == ports
    assert watcher.admin_down == admin_down


def test_new_interface_waits_for_released_port(host, watched) -> None:
    """A new trunk gets the port that another trunk releases in the same apply."""
    old = with_ports(relay(leaves=(peer(7),), trunks=(2,)), 51820, 51821)
    watcher = watched(old)
    new = with_ports(relay(leaves=(peer(7),), trunks=(2, 3)), 51820, 51822, 51821)
    apply_fast(host, new)
    assert [host.kernel.devices[n].port for n in ("wg0", "wg0-t2", "wg0-t3")] == [51820, 51822, 51821]
    assert watcher.admin_down == [("n2",)]


def test_reachable_relay_keeps_its_old_endpoint(host, watched) -> None:
    """It has not moved yet: when it does, its first packet carries the new endpoint. No link is held down."""
    watcher = watched(leaf())
    moved = with_endpoint(leaf(), 1, "192.0.2.10:51900")
    apply_fast(host, moved)
    assert (watcher.admin_down, sets(host)) == ([], [])
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD
    assert "192.0.2.10:51900" in (host.conf_dir / "wg0-u1.conf").read_text()


def test_unreachable_relay_gets_its_new_endpoint(host, watched) -> None:
    """A relay whose link is down is tried at the endpoint that the view names."""
    watcher = watched(leaf())
    watcher.broken = lambda _host: {"n1"}
    watcher.report()
    apply_fast(host, with_endpoint(leaf(), 1, "192.0.2.10:51900"))
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == "192.0.2.10:51900"


def test_key_is_activated_interface_by_interface(host, watched) -> None:
    """Each interface changes while its links are held down; the old key is retired when no interface runs it."""
    watcher = watched(leaf(direct=(peer(7),)))
    old, new = keys.public_key(host), keys.create_next_key(host)
    apply_fast(host, leaf(direct=(peer(7),)))
    assert {d.public_key for d in host.kernel.devices.values()} == {old}
    apply_fast(host, replace(leaf(direct=(peer(7),)), activate_key=new))
    assert watcher.admin_down == [("n1",), ("n2",), ("n7",)]
    assert {d.public_key for d in host.kernel.devices.values()} == {new}
    assert (keys.public_key(host), keys.next_key(host)) == (new, None)
    assert apply_fast(host, replace(leaf(direct=(peer(7),)), activate_key=new)).lines == []


def test_unknown_key_is_not_activated(host, watched) -> None:
    """A view that activates a key that the node does not have leaves the present key running."""
    watcher = watched(leaf())
    keys.create_next_key(host)
    apply_fast(host, replace(leaf(), activate_key=key(9)))
    assert watcher.admin_down == []
    assert {d.public_key for d in host.kernel.devices.values()} == {keys.public_key(host)}


def test_two_neighbours_moving_at_once_reconnect(host, watched) -> None:
    """Each has the other at the port that it has just left; then both use the endpoints of their views."""
    far = "192.0.2.70"

    def at(own: int, theirs: int) -> View:
        return leaf(direct=(peer(7, endpoint=f"{far}:{theirs}"),), port=own)

    def broken(found: FakeHost) -> set[str]:
        wg0 = found.kernel.devices["wg0"]
        return {"n7"} if wg0.port == 51900 and wg0.peers[key(7)].endpoint == f"{far}:51820" else set()

    watcher = watched(at(51820, 51820))
    watcher.broken = broken
    apply_fast(host, at(51900, 51900))
    assert host.kernel.devices["wg0"].peers[key(7)].endpoint == f"{far}:51900"
    assert apply_fast(host, at(51900, 51900)).lines == []


def test_link_on_new_interface_is_unused_until_up(host, watched) -> None:
    """The watcher reports the link on its old interface, where it was up."""
    watched(leaf(relays=(1, 2)))
    changed = leaf(relays=(1, 2))
    trunk = replace(changed.interfaces[1], name="wg0-t1", listen_port=51821)
    apply_fast(host, replace(changed, interfaces=(changed.interfaces[0], trunk, changed.interfaces[2])))
    assert host.kernel.routes["main", "10.100.0.0/16"]["dev"] == "wg0-u2"


def test_links_initiated_by_peers_are_not_awaited(host, watched) -> None:
    """A leaf behind a NAT learns the relay's new port only from its own view."""
    view = relay(leaves=(peer(7),))
    watcher = watched(view)
    watcher.broken = lambda found: {"n7"} if found.kernel.devices["wg0"].port == 51900 else set()
    apply_fast(host, with_ports(view, 51900, 51822), timeouts=replace(FAST, verify=3600.0, link=3600.0))
    assert watcher.admin_down == [("n7",)]
    assert host.kernel.devices["wg0"].port == 51900
