"""What a node's kernel holds: from the view and the links that are down, nothing else."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import plan, routes
from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.routes import KernelRoute, NextHop, PreparedRoute
from saltext_wgmesh.core.types import Bfd, Interface, Kind, Peer, Register, Role, Route, View
from tests.unit import worlds

ADDRESSES = {"near": "10.100.0.9", "own": "10.100.0.7", "r2": "10.100.0.2", "r3": "10.100.0.3"}


def down(*neighbours):
    return dict.fromkeys(neighbours, 0.0)


def interface(name, kind, *nodes):
    peers = tuple(
        Peer(node=n, address=ADDRESSES.get(n, "10.100.9.9"), public_key=n, endpoint=None, keepalive=0, allowed_ips=())
        for n in nodes
    )
    return Interface(name=name, kind=kind, listen_port=0, peers=peers)


def view(role, interfaces, *entries):
    return View(
        mesh="wg0",
        node="me",
        role=role,
        addresses=("10.100.0.1",),
        networks=("10.100.0.0/16",),
        forward=role is Role.RELAY,
        mtu=1420,
        bfd=Bfd(),
        interfaces=interfaces,
        routes=entries,
    )


LEAF = view(
    Role.LEAF,
    (
        interface("wg0", Kind.ACCESS, "near"),
        interface("wg0-u1", Kind.UPLINK, "r1"),
        interface("wg0-u2", Kind.UPLINK, "r2"),
    ),
    Route(prefixes=("10.100.0.0/16", "192.168.7.0/24"), via=("r2", "r1")),
    Route(prefixes=("10.100.0.9/32",), via=("near", "r2", "r1")),
)

RELAY = view(
    Role.RELAY,
    (
        interface("wg0", Kind.ACCESS, "own"),
        interface("wg0-t2", Kind.TRUNK, "r2"),
        interface("wg0-t3", Kind.TRUNK, "r3"),
    ),
    Route(prefixes=("10.100.0.0/16",), via=(), from_trunk=()),
    Route(prefixes=("10.100.0.7/32",), via=("own", "r3"), detour=True, from_trunk=("own", "r3")),
)


def table(kernel):
    """``prefix table → device`` of each."""
    return {f"{r.prefix} {r.table}": r.device for r in kernel}


def test_expand_lists_every_next_hop_with_its_interface_and_detours_last():
    """Detours hold for the main table alone: a packet from a trunk that took one could loop."""
    own, r2, r3 = (
        NextHop(neighbour="own", interface="wg0"),
        *(NextHop(neighbour=f"r{i}", interface=f"wg0-t{i}") for i in (2, 3)),
    )
    assert routes.expand(RELAY) == (
        PreparedRoute(prefix="10.100.0.0/16", table="main", hops=(), owner=None),
        PreparedRoute(prefix="10.100.0.0/16", table="trunk", hops=(), owner=None),
        PreparedRoute(prefix="10.100.0.7/32", table="main", hops=(own, r3, r2), owner="own"),
        PreparedRoute(prefix="10.100.0.7/32", table="trunk", hops=(own, r3), owner="own"),
    )


def test_choose_takes_the_first_of_each():
    assert routes.choose(LEAF) == (
        KernelRoute(prefix="10.100.0.0/16", table="main", device="wg0-u2"),
        KernelRoute(prefix="10.100.0.9/32", table="main", device="wg0"),
        KernelRoute(prefix="192.168.7.0/24", table="main", device="wg0-u2"),
    )


def test_a_dead_link_gives_way_to_the_next():
    assert table(routes.choose(LEAF, down("r2"))) == {
        "10.100.0.0/16 main": "wg0-u1",
        "10.100.0.9/32 main": "wg0",
        "192.168.7.0/24 main": "wg0-u1",
    }
    assert table(routes.choose(LEAF, down("near", "r2")))["10.100.0.9/32 main"] == "wg0-u1"


def test_a_relay_detours_its_own_packets_and_never_those_from_a_trunk():
    assert table(routes.choose(RELAY, down("own", "r3"))) == {
        "10.100.0.0/16 main": None,
        "10.100.0.0/16 trunk": None,
        "10.100.0.7/32 main": "wg0-t2",
        "10.100.0.7/32 trunk": "wg0",
    }


def test_with_all_links_down_the_last_that_was_up_stays():
    """A link wrongly believed dead still carries. Without a word of when, it is the first choice."""
    assert routes.choose(LEAF, down("near", "r1", "r2")) == routes.choose(LEAF)
    second_last = table(routes.choose(LEAF, {"near": 9.0, "r2": 10.0, "r1": 11.0}))
    assert second_last["10.100.0.0/16 main"] == "wg0-u1"
    first_last = table(routes.choose(LEAF, {"near": 9.0, "r2": 11.0, "r1": 10.0}))
    assert first_last["10.100.0.0/16 main"] == "wg0-u2"


def test_a_relay_that_forwards_nothing_gets_only_what_is_for_itself():
    """What is not for it goes by the next hop that forwards; if none does, by the first whose link is up."""
    to_r2 = Route(prefixes=("10.100.0.2/32",), via=("r2", "r1"))
    leaf = view(Role.LEAF, LEAF.interfaces, *LEAF.routes, to_r2)
    assert table(routes.choose(leaf, mute=frozenset({"r2"}))) == {
        "10.100.0.0/16 main": "wg0-u1",
        "10.100.0.2/32 main": "wg0-u2",
        "10.100.0.9/32 main": "wg0",
        "192.168.7.0/24 main": "wg0-u1",
    }
    assert routes.choose(leaf, mute=frozenset({"r1", "r2"})) == routes.choose(leaf)
    assert table(routes.choose(leaf, down("r1"), frozenset({"r2"})))["10.100.0.0/16 main"] == "wg0-u2"


def test_a_relay_without_trunks_has_no_trunk_table():
    alone = view(Role.RELAY, (interface("wg0", Kind.ACCESS, "own"),), *RELAY.routes[:1])
    assert table(routes.choose(alone)) == {"10.100.0.0/16 main": None}


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.data())
def test_every_view_has_one_route_for_each_prefix_whatever_is_down(world, data):
    """Only devices change when links do; each is an interface of the view, and none leads to a link that is down
    while another of its next hops is up."""
    try:
        made = plan.make(world.mesh, world.facts, Register())
    except PlanError:
        made = None
    assume(made is not None and made.views)
    one = made.views[data.draw(st.sampled_from(sorted(made.views)))]
    neighbours = sorted(p.node for i in one.interfaces for p in i.peers)
    dead = down(*data.draw(st.sets(st.sampled_from(neighbours)))) if neighbours else {}
    prepared = {(r.prefix, r.table): r.hops for r in routes.expand(one)}
    chosen = routes.choose(one, dead)
    assert [(r.prefix, r.table) for r in chosen] == sorted(prepared)
    for route in chosen:
        alive = [h.interface for h in prepared[route.prefix, route.table] if h.neighbour not in dead]
        if alive:
            assert route.device == alive[0]
