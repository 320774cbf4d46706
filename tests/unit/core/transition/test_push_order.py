"""The order in which nodes get their views."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.model.view import Route, View
from saltext_wgmesh.core.transition.push_order import is_disruptive, push_order
from tests.nodeviews import leaf, named, peer, relay

LEAF = leaf(direct=(peer(6, "10.100.0.6/32", endpoint="192.0.2.6:51820"),), relays=(1, 2), via=1)
RESPONDER = leaf(direct=(peer(6, "10.100.0.6/32"),), relays=(1, 2), via=1)
RELAY = relay(leaves=(peer(6, "10.100.0.6/32"),), trunks=(2,))


def waves_of(views: dict[str, tuple[View | None, View | None]]) -> list[list[str]]:
    """Return the nodes of each wave, in the order of the waves."""
    found = push_order(views)
    return [sorted(n for n in found if found[n] is wave) for wave in sorted(set(found.values()))]


def with_peer(view: View, **changes: object) -> View:
    """*view* with its first peer altered."""
    first, *others = view.interfaces
    return replace(view, interfaces=(replace(first, peers=(replace(first.peers[0], **changes),)), *others))


@pytest.mark.parametrize(
    "new",
    [
        replace(LEAF, interfaces=LEAF.interfaces[:-1]),
        replace(LEAF, interfaces=(replace(LEAF.interfaces[0], peers=()), *LEAF.interfaces[1:])),
        replace(LEAF, routes=()),
        replace(LEAF, addresses=(*LEAF.addresses, "fd00::1")),
        with_peer(LEAF, keepalive=7),
        with_peer(LEAF, endpoint=None),
        LEAF,
    ],
)
def test_new_links_and_routes_are_not_disruptive(new):
    """Links that are added or removed, and other routes, alter no link in use."""
    assert not is_disruptive(LEAF, new)
    assert (
        not is_disruptive(new, LEAF) or new.addresses != LEAF.addresses or new.interfaces[0].peers[0].endpoint is None
    )


@pytest.mark.parametrize(
    "new",
    [
        replace(LEAF, mtu=1380),
        replace(LEAF, addresses=("10.100.9.9",)),
        replace(LEAF, interfaces=(replace(LEAF.interfaces[0], listen_port=7), *LEAF.interfaces[1:])),
        with_peer(LEAF, public_key="another"),
        with_peer(LEAF, endpoint="192.0.2.7:51820"),
        with_peer(LEAF, address="10.100.0.7"),
        named(LEAF, "office0"),
        replace(LEAF, interfaces=(*LEAF.interfaces[:2], replace(LEAF.interfaces[2], name="office0-u2"))),
    ],
)
def test_altered_link_or_lost_address_is_disruptive(new):
    """So is another MTU, and another name of an interface."""
    assert is_disruptive(LEAF, new)


def test_push_order_canary_relay_then_relays_then_leaves():
    """Leaves that open their connections themselves come after those that wait for them. Harmless views are first."""

    def moved(view: View) -> tuple[View, View]:
        return view, replace(view, mtu=1380)

    views = {
        "initiator": moved(LEAF),
        "responder": moved(RESPONDER),
        "r1": moved(RELAY),
        "r2": moved(RELAY),
        "r3": moved(RELAY),
        "same": (LEAF, LEAF),
        "new": (None, LEAF),
        "gone": (LEAF, None),
    }
    assert waves_of(views) == [["new", "same"], ["r1"], ["r2", "r3"], ["responder"], ["initiator"], ["gone"]]


def test_subnet_is_withdrawn_by_leaves_then_relays():
    """The gateway that leaves the mesh comes last."""
    lan = Route(prefixes=("192.168.7.0/24",), via=("r2",), from_trunk=("r2",))

    def without(view: View) -> tuple[View, View]:
        return replace(view, routes=(*view.routes, lan)), view

    views = {"leaf": without(LEAF), "r1": without(RELAY), "gw": (LEAF, None), "r2": (RELAY, without(RELAY)[0])}
    assert waves_of(views) == [["leaf", "r2"], ["r1"], ["gw"]]


def test_interface_rename_is_disruptive():
    """A node recreates the links of an interface that gets another name."""
    assert is_disruptive(LEAF, named(LEAF, "office0"))
