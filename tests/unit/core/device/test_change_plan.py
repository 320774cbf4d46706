"""The order of an apply's changes: harmless ones, disruptive steps, cleanup."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.device import route_selection
from saltext_wgmesh.core.device.change_plan import (
    ChangePlan,
    cleanup_of,
    endpoint_moves,
    plan_changes,
    self_initiated_links,
)
from saltext_wgmesh.core.device.desired import LocalNode, desired_state
from saltext_wgmesh.core.device.diff import (
    Change,
    DeviceChange,
    PeerChange,
    RouteChange,
    SettingChange,
    SysctlChange,
    diff,
)
from saltext_wgmesh.core.device.state import KernelState
from saltext_wgmesh.core.model.view import View
from tests.nodeviews import key, leaf, named, peer, relay

OWN = LocalNode(public_key=key(5), families=frozenset({4, 6}))


def state(view: View) -> KernelState:
    """Return the state of a kernel that has *view*."""
    return desired_state(view, route_selection.select_routes(view), OWN)


def changes(before: View, after: View) -> tuple[Change, ...]:
    """Return the changes from a kernel that has *before* to one that has *after*."""
    return diff(state(before), state(after))


def plan(before: View, after: View, *down: str) -> ChangePlan:
    """Return the plan of an apply of *after*, with all neighbours up but those *down*."""
    neighbours = {p.node for i in before.interfaces for p in i.peers}
    return plan_changes(changes(before, after), before, after, neighbours - set(down))


def with_ports(view: View, *ports: int) -> View:
    """Return *view* with these listen ports, in the order of its interfaces."""
    listed = zip(view.interfaces, ports, strict=True)
    return replace(view, interfaces=tuple(replace(i, listen_port=port) for i, port in listed))


def test_plan_same_view_is_empty() -> None:
    """No changes make an empty plan, which disturbs no link."""
    made = plan(leaf(), leaf())
    assert made == ChangePlan()
    assert not made.is_disruptive


def test_plan_additions_are_harmless() -> None:
    """A third uplink and a direct neighbour disturb no link; their routes come after them."""
    made = plan(leaf(), leaf(relays=(1, 2, 3), direct=(peer(7),)))
    assert made.disruptive == ()
    assert DeviceChange(device="wg0-u3", new=True) in made.harmless
    assert {type(change) for change in made.cleanup} == {RouteChange, SysctlChange}
    assert all(change.old is None for change in made.cleanup if isinstance(change, RouteChange))


def test_plan_removed_peer_is_disruptive_cleanup() -> None:
    """A peer that leaves is removed last; its link stops carrying."""
    made = plan(leaf(direct=(peer(7),)), leaf())
    assert made.disruptive == ()
    assert made.is_disruptive
    assert [c.public_key for c in made.cleanup if isinstance(c, PeerChange)] == [key(7)]


def test_plan_mtu_one_interface_a_step() -> None:
    """A new MTU disturbs both uplinks, so each has a step; the access interface without peers needs none."""
    made = plan(leaf(), replace(leaf(), mtu=1380))
    assert [(step.interfaces, set(step.neighbours)) for step in made.disruptive] == [
        (("wg0-u1",), {"n1"}),
        (("wg0-u2",), {"n2"}),
    ]
    assert made.must_return == {"n1", "n2"}
    assert [c.device for c in made.harmless if isinstance(c, SettingChange)] == ["wg0"]


def test_plan_down_link_comes_first() -> None:
    """An interface without a link that is up has its step before the others."""
    made = plan(leaf(), replace(leaf(), mtu=1380), "n2")
    assert [step.interfaces for step in made.disruptive] == [("wg0-u2",), ("wg0-u1",)]


@pytest.mark.parametrize(
    ("ports", "steps"),
    [
        ((51821, 51822, 51823), [("wg0-t3",), ("wg0-t2",), ("wg0",)]),
        ((51821, 51822, 51820), [("wg0-t2", "wg0-t3", "wg0")]),
    ],
    ids=["chain", "ring"],
)
def test_plan_port_is_released_before_reuse(ports: tuple[int, ...], steps: list[tuple[str, ...]]) -> None:
    """An interface waits for the one that has its new port; interfaces in a ring change together."""
    before = with_ports(relay(leaves=(peer(7),), trunks=(2, 3)), 51820, 51821, 51822)
    made = plan(before, with_ports(before, *ports))
    assert [step.interfaces for step in made.disruptive] == steps
    for step in made.disruptive:
        released = [c.new == "0" for c in step.changes if isinstance(c, SettingChange)]
        assert released == sorted(released, reverse=True)
        assert any(released) == (len(step.interfaces) > 1)


def test_plan_replaced_key_in_one_step() -> None:
    """A neighbour with another key: the new peer is added and the old one removed in the same step."""
    made = plan(leaf(direct=(peer(7),)), leaf(direct=(peer(7, public_key=key(77)),)))
    assert [set(step.neighbours) for step in made.disruptive] == [{"n7"}]
    step_changes = [c for c in made.disruptive[0].changes if isinstance(c, PeerChange)]
    assert {(c.public_key, c.new is None) for c in step_changes} == {(key(77), False), (key(7), True)}
    assert made.must_return == frozenset()


def test_plan_renamed_interface_recreates_device() -> None:
    """The old device loses its peers before the new one is created; it is removed after the routes switch."""
    before = leaf(relays=(1,))
    made = plan(before, named(before, "x"))
    step = next(s for s in made.disruptive if s.interfaces == ("x-u1",))
    assert step.recreates_device
    assert step.must_return == {"n1"}
    removals = [i for i, c in enumerate(step.changes) if isinstance(c, PeerChange) and c.new is None]
    assert removals
    assert max(removals) < step.changes.index(DeviceChange(device="x-u1", new=True))
    assert DeviceChange(device="wg0-u1", new=False) in made.cleanup


def test_cleanup_of_keeps_routes_and_removals() -> None:
    """Cleanup has routes, rules and removals, and no addition."""
    listed = changes(leaf(direct=(peer(7),)), leaf(direct=(peer(8),)))
    kept = cleanup_of(listed)
    assert {type(c) for c in kept} == {RouteChange, PeerChange}
    assert all(c.new is None for c in kept if isinstance(c, PeerChange))
    assert [c for c in listed if c not in kept] == [
        c for c in listed if isinstance(c, PeerChange) and c.new and c.public_key == key(8)
    ]


def test_endpoint_moves_keep_pure_moves_only() -> None:
    """A peer whose keepalive changes too, or whose key is not asked for, is left out."""
    before = leaf(direct=tuple(peer(n, endpoint=f"192.0.2.{n}:1") for n in (7, 8, 9)))
    moved = peer(7, endpoint="192.0.2.77:1"), peer(8, endpoint="192.0.2.88:1", keepalive=25)
    listed = changes(before, leaf(direct=(*moved, peer(9, endpoint="192.0.2.99:1"))))
    moves = endpoint_moves(listed, [key(7), key(8)])
    assert [c.public_key for c in moves if isinstance(c, PeerChange)] == [key(7)]


def test_self_initiated_links_need_endpoint_and_ends() -> None:
    """Links without an endpoint here, or of a node with other addresses, are not initiated by this node."""
    view = leaf(direct=(peer(7), peer(8, endpoint="192.0.2.8:1")))
    assert self_initiated_links(view, view) == {"n1", "n2", "n8"}
    assert self_initiated_links(None, view) == frozenset()
    assert self_initiated_links(replace(view, addresses=("10.100.0.9",)), view) == frozenset()
