"""Who is told first of views that change what runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.types import Route, View
from saltext_wgmesh.core.waves import disturbs, waves
from tests.nodeviews import leaf, named, peer, relay

LEAF = leaf(direct=(peer(6, "10.100.0.6/32", endpoint="192.0.2.6:51820"),), relays=(1, 2), via=1)
CALLED = leaf(direct=(peer(6, "10.100.0.6/32"),), relays=(1, 2), via=1)
RELAY = relay(leaves=(peer(6, "10.100.0.6/32"),), trunks=(2,))


def in_order(views: dict[str, tuple[View | None, View | None]]) -> list[list[str]]:
    """Who is told at once, in the order in which they are."""
    found = waves(views)
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
def test_links_that_come_or_go_and_other_routes_disturb_nothing(new):
    assert not disturbs(LEAF, new)
    assert not disturbs(new, LEAF) or new.addresses != LEAF.addresses or new.interfaces[0].peers[0].endpoint is None


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
def test_a_link_that_is_altered_and_an_address_that_goes_do(new):
    assert disturbs(LEAF, new)


def test_the_first_relay_goes_alone_then_the_others_then_who_is_called_then_who_calls():
    """Those whom nothing is altered for, and new ones, are told at once."""

    def moved(view: View) -> tuple[View, View]:
        return view, replace(view, mtu=1380)

    views = {
        "caller": moved(LEAF),
        "called": moved(CALLED),
        "r1": moved(RELAY),
        "r2": moved(RELAY),
        "r3": moved(RELAY),
        "same": (LEAF, LEAF),
        "new": (None, LEAF),
        "gone": (LEAF, None),
    }
    assert in_order(views) == [["new", "same"], ["r1"], ["r2", "r3"], ["called"], ["caller"], ["gone"]]


def test_a_subnet_is_given_up_by_leaves_then_by_relays_then_by_who_leaves():
    lan = Route(prefixes=("192.168.7.0/24",), via=("r2",), from_trunk=("r2",))

    def without(view: View) -> tuple[View, View]:
        return replace(view, routes=(*view.routes, lan)), view

    views = {"leaf": without(LEAF), "r1": without(RELAY), "gw": (LEAF, None), "r2": (RELAY, without(RELAY)[0])}
    assert in_order(views) == [["leaf", "r2"], ["r1"], ["gw"]]


def test_other_names_of_interfaces_are_told_in_waves():
    assert disturbs(LEAF, named(LEAF, "office0"))
