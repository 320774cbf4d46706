"""The routes of a node's kernel follow from the view and the links that are down."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.device import route_selection
from saltext_wgmesh.core.device.route_selection import CandidateRoute, KernelRoute, NextHop
from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.liveness.link_report import NEVER_UP, DownLink, LinkAvailability
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Bfd, Role
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, Route, View
from saltext_wgmesh.core.planning import planner
from tests.unit.harness import worlds

ADDRESSES = {"near": "10.100.0.9", "own": "10.100.0.7", "r2": "10.100.0.2", "r3": "10.100.0.3"}


def down(*neighbours):
    return dict.fromkeys(neighbours, NEVER_UP)


def failed(**since):
    """The links to these neighbours, which went down at that time."""
    return {n: DownLink(availability=LinkAvailability.FAILED, since=second) for n, second in since.items()}


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


def test_candidates_list_next_hops_detours_last():
    """Only the main table has detours: a packet from a trunk that took one could loop."""
    own, r2, r3 = (
        NextHop(neighbour="own", interface="wg0"),
        *(NextHop(neighbour=f"r{i}", interface=f"wg0-t{i}") for i in (2, 3)),
    )
    assert route_selection.candidate_routes(RELAY) == (
        CandidateRoute(prefix="10.100.0.0/16", table="main", hops=(), owner=None),
        CandidateRoute(prefix="10.100.0.0/16", table="trunk", hops=(), owner=None),
        CandidateRoute(prefix="10.100.0.7/32", table="main", hops=(own, r3, r2), owner="own"),
        CandidateRoute(prefix="10.100.0.7/32", table="trunk", hops=(own, r3), owner="own"),
    )


def test_select_all_up_takes_first_hop():
    """With all links up each route takes its first next hop."""
    assert route_selection.select_routes(LEAF) == (
        KernelRoute(prefix="10.100.0.0/16", table="main", device="wg0-u2"),
        KernelRoute(prefix="10.100.0.9/32", table="main", device="wg0"),
        KernelRoute(prefix="192.168.7.0/24", table="main", device="wg0-u2"),
    )


def test_select_link_down_takes_next_hop():
    """A route whose next hop is down takes the following one."""
    assert table(route_selection.select_routes(LEAF, down("r2"))) == {
        "10.100.0.0/16 main": "wg0-u1",
        "10.100.0.9/32 main": "wg0",
        "192.168.7.0/24 main": "wg0-u1",
    }
    assert table(route_selection.select_routes(LEAF, down("near", "r2")))["10.100.0.9/32 main"] == "wg0-u1"


def test_select_relay_detours_main_table_only():
    """A relay detours its own packets and those of its leaves, and never those from a trunk."""
    assert table(route_selection.select_routes(RELAY, down("own", "r3"))) == {
        "10.100.0.0/16 main": None,
        "10.100.0.0/16 trunk": None,
        "10.100.0.7/32 main": "wg0-t2",
        "10.100.0.7/32 trunk": "wg0",
    }


def test_select_all_down_keeps_last_up():
    """A link wrongly reported down still carries. If no time is known, the first next hop is kept."""
    assert route_selection.select_routes(LEAF, down("near", "r1", "r2")) == route_selection.select_routes(LEAF)
    second_last = table(route_selection.select_routes(LEAF, failed(near=9.0, r2=10.0, r1=11.0)))
    assert second_last["10.100.0.0/16 main"] == "wg0-u1"
    first_last = table(route_selection.select_routes(LEAF, failed(near=9.0, r2=11.0, r1=10.0)))
    assert first_last["10.100.0.0/16 main"] == "wg0-u2"


def test_select_blackholed_relay_gets_own_packets():
    """Other packets take the next hop that forwards; if none does, the first whose link is up."""
    to_r2 = Route(prefixes=("10.100.0.2/32",), via=("r2", "r1"))
    leaf = view(Role.LEAF, LEAF.interfaces, *LEAF.routes, to_r2)
    assert table(route_selection.select_routes(leaf, blackholed=frozenset({"r2"}))) == {
        "10.100.0.0/16 main": "wg0-u1",
        "10.100.0.2/32 main": "wg0-u2",
        "10.100.0.9/32 main": "wg0",
        "192.168.7.0/24 main": "wg0-u1",
    }
    assert route_selection.select_routes(leaf, blackholed=frozenset({"r1", "r2"})) == route_selection.select_routes(
        leaf
    )
    assert table(route_selection.select_routes(leaf, down("r1"), frozenset({"r2"})))["10.100.0.0/16 main"] == "wg0-u2"


def test_select_relay_without_trunks_no_trunk_table():
    """The trunk table of a relay without trunks is empty."""
    alone = view(Role.RELAY, (interface("wg0", Kind.ACCESS, "own"),), *RELAY.routes[:1])
    assert table(route_selection.select_routes(alone)) == {"10.100.0.0/16 main": None}


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.data())
def test_select_any_failures_keep_all_prefixes(world, data):
    """Failures change only devices: each prefix keeps one route in each table.

    No route leads to a link that is down while another of its next hops is up.
    """
    try:
        made = planner.plan_mesh(world.mesh, world.facts, Allocations())
    except PlanError:
        made = None
    assume(made is not None and made.views)
    one = made.views[data.draw(st.sampled_from(sorted(made.views)))]
    neighbours = sorted(p.node for i in one.interfaces for p in i.peers)
    failed = down(*data.draw(st.sets(st.sampled_from(neighbours)))) if neighbours else {}
    by_key = {(r.prefix, r.table): r.hops for r in route_selection.candidate_routes(one)}
    selected = route_selection.select_routes(one, failed)
    assert [(r.prefix, r.table) for r in selected] == sorted(by_key)
    for route in selected:
        up = [h.interface for h in by_key[route.prefix, route.table] if h.neighbour not in failed]
        if up:
            assert route.device == up[0]
