"""One packet, hop by hop: where it goes, and how it ends where something is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core import plan as planner
from saltext_wgmesh.core import policy, verify
from saltext_wgmesh.core.types import Kind, Plan, Register, Route
from saltext_wgmesh.core.verify import Outcome, walk
from tests.unit.mutants import with_interface, with_route, with_view
from tests.unit.strategies import facts_of

A, B, C, G = "10.100.0.11", "10.100.0.12", "10.100.0.13", "10.100.0.14"
LAN_HOST = "192.168.7.20"
HOMES = {"a": ("r1", "r2"), "b": ("r1", "r2"), "c": ("r3", "r2"), "g": ("r3", "r2")}
SITES = {"x": {"relays": ["r1"]}, "y": {"relays": ["r3"]}}
NODES = {
    "r1": {"role": "relay", "endpoint": "198.51.100.1", "address": "10.100.0.1"},
    "r2": {"role": "relay", "endpoint": "198.51.100.2", "address": "10.100.0.2"},
    "r3": {"role": "relay", "endpoint": "198.51.100.3", "address": "10.100.0.3"},
    "a": {"site": "x", "nat": True, "address": A},
    "b": {"site": "x", "nat": True, "address": B},
    "c": {"site": "y", "nat": True, "address": C},
    "g": {"site": "y", "nat": True, "address": G, "routes": ["192.168.7.0/24"]},
}


def make(nodes: dict[str, dict[str, object]]) -> Plan:
    """The plan of these nodes, with the homes above."""
    mesh = policy.parse({"wg0": {"network": "10.100.0.0/16", "sites": SITES, "nodes": nodes}}).meshes["wg0"]
    facts = {name: facts_of(name, f"172.16.0.{i}") for i, name in enumerate(nodes, 1)}
    made = planner.make(mesh, facts, Register(homes=HOMES))
    assert {n: m.homes for n, m in made.members.items() if m.homes} == HOMES
    return made


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Three relays; a and b use r1, then r2; c and the gateway g use r3, then r2."""
    return make(NODES)


def texts(plan: Plan) -> dict[str, list[str]]:
    """What the proof finds, by node."""
    found: dict[str, list[str]] = {}
    for problem in verify.check(plan):
        found.setdefault(problem.where, []).append(problem.what)
    return found


def link(a: str, b: str) -> frozenset[str]:
    """The link of two nodes, as it stands among what is down."""
    return frozenset((a, b))


@pytest.mark.parametrize(
    ("source", "to", "down", "hops"),
    [
        ("a", B, (), "a r1 b"),
        ("a", C, (), "a r1 r3 c"),
        ("c", A, (), "c r3 r1 a"),
        ("a", "10.100.0.3", (), "a r1 r3"),
        ("r1", C, (), "r1 r3 c"),
        ("a", LAN_HOST, (), "a r1 r3 g"),
        ("a", B, ("r1",), "a r2 b"),
        ("a", B, (link("a", "r1"),), "a r2 b"),
        ("a", B, (link("b", "r1"),), "a r1 r2 b"),
        ("a", C, ("r3",), "a r1 r2 c"),
        ("a", C, (link("r1", "r3"),), "a r1 r2 c"),
        ("a", C, (link("c", "r3"),), "a r1 r3 r2 c"),
        ("a", "10.100.0.3", (link("r1", "r3"),), "a r1 r2 r3"),
        ("a", C, ("r3", link("a", "r1")), "a r2 c"),
    ],
)
def test_first_neighbour_whose_link_is_up(
    plan: Plan, source: str, to: str, down: tuple[str | frozenset[str], ...], hops: str
) -> None:
    """A packet goes to the first next hop that the node itself sees up, and a relay never sends it back."""
    found = walk(plan, source, to, frozenset(down))
    assert (found.outcome, " ".join(found.hops)) == (Outcome.DELIVERED, hops)


def test_unreachable_where_the_last_home_has_lost_the_target(plan: Plan) -> None:
    """When both of c's links are down, its second home finds it unreachable."""
    found = walk(plan, "a", C, frozenset((link("c", "r3"), link("c", "r2"))))
    assert (found.outcome, found.hops) == (Outcome.UNREACHABLE, ("a", "r1", "r3", "r2"))


def test_dead_source(plan: Plan) -> None:
    """A dead node sends nothing."""
    assert walk(plan, "a", B, frozenset({"a"})).outcome is Outcome.DOWN


def test_unassigned_address_ends_at_the_first_relay(plan: Plan) -> None:
    """What belongs to nobody is dropped, not sent around."""
    found = walk(plan, "a", "10.100.77.77")
    assert (found.outcome, found.hops) == (Outcome.UNREACHABLE, ("a", "r1"))


def test_no_route_to_foreign_addresses(plan: Plan) -> None:
    """The mesh carries nothing that is not its own."""
    assert walk(plan, "a", "203.0.113.9").outcome is Outcome.NO_ROUTE


def test_subnet_hosts_may_be_the_source(plan: Plan) -> None:
    """A packet from a host behind the gateway is admitted on the whole way; one from elsewhere is not."""
    assert walk(plan, "g", A, source_address=LAN_HOST).hops == ("g", "r3", "r1", "a")
    stranger = walk(plan, "g", A, source_address="192.168.99.1")
    assert (stranger.outcome, stranger.hops) == (Outcome.SOURCE_REFUSED, ("g",))


def test_another_peers_source_is_refused(plan: Plan) -> None:
    """A relay drops what a leaf sends under another leaf's address."""
    assert walk(plan, "a", B, source_address=C).outcome is Outcome.SOURCE_REFUSED


def test_no_peer_takes_a_packet_that_is_sent_to_the_wrong_leaf(plan: Plan) -> None:
    """Routing c's address to a neighbour on the access interface helps nothing: allowed-ips decide there."""
    view = plan.views["r1"]
    route = next(r for r in view.routes if f"{C}/32" in r.prefixes)
    broken = with_route(plan, view, route, replace(route, via=("b",)))
    assert walk(broken, "a", C).outcome is Outcome.NO_PEER


def test_gateway_that_does_not_forward(plan: Plan) -> None:
    """Its own address is reached, the subnet behind it is not."""
    broken = with_view(plan, replace(plan.views["g"], forward=False))
    assert walk(broken, "a", G).outcome is Outcome.DELIVERED
    assert walk(broken, "a", LAN_HOST).outcome is Outcome.NOT_FORWARDING


def test_relays_that_send_each_other_a_packet_forever(plan: Plan) -> None:
    """Two relays whose trunk tables point at each other are found to be a loop."""
    for relay, other in (("r3", "r2"), ("r2", "r3")):
        view = plan.views[relay]
        route = next(r for r in view.routes if f"{C}/32" in r.prefixes)
        plan = with_route(plan, view, route, replace(route, from_trunk=(other,)))
    assert walk(plan, "a", C).outcome is Outcome.LOOP
    assert any("can go r3 > r2 > r3" in p.what for p in verify.check(plan))


def test_session_needs_an_endpoint_that_fits(plan: Plan) -> None:
    """If a trunk listens on another port at both its ends, no packet takes it."""
    for relay, other in (("r1", "r3"), ("r3", "r1")):
        view = plan.views[relay]
        trunk = next(i for i in view.interfaces if i.kind is Kind.TRUNK and i.peers[0].node == other)
        plan = with_interface(plan, view, trunk, replace(trunk, listen_port=9))
    found = walk(plan, "a", C)
    assert (found.outcome, found.hops) == (Outcome.NO_SESSION, ("a", "r1"))


def test_paths_of_all_pairs(plan: Plan) -> None:
    """Each member has a row with each other one, both ends of each path included."""
    found = verify.paths(plan)
    assert {source: len(row) for source, row in found.items()} == dict.fromkeys(plan.members, 6)
    assert found["a"]["c"] == ("a", "r1", "r3", "c")


def test_outage_names_who_is_cut_off_and_what_moves(plan: Plan) -> None:
    """With c's second link cut, r3's death cuts off c alone; what went by r3 goes by r2."""
    down = frozenset({"r3", link("c", "r2")})
    cut = verify.cut_off(plan, down)
    assert {(a, b) for a, b, _ in cut} == {(n, "c") for n in "abg"} | {("c", n) for n in "abg"} | {
        (r, "c") for r in ("r1", "r2")
    } | {("c", r) for r in ("r1", "r2")}
    found = verify.outage(plan, down)
    assert found["down"] == ["c--r2", "r3"]
    assert found["cut_off"] == {f"{a} → {b}": why for a, b, why in cut}
    assert found["rerouted"]["a → g"] == {"before": "a → r1 → r3 → g", "after": "a → r1 → r2 → g"}


# --- what the proof says of single mistakes ------------------------------------------------------------


def test_a_relay_whose_death_alone_does_harm(plan: Plan) -> None:
    """Where each single link may fail but not the relay they lead to, the relay is named as what is down."""
    plan = make({**NODES, "r4": {"role": "relay", "endpoint": "198.51.100.4", "address": "10.100.0.4"}})
    assert verify.check(plan) == ()
    for relay, change in (("r1", {"via": ("r3", "r4"), "detour": False}), ("r4", {"from_trunk": ("r3",)})):
        view = plan.views[relay]
        route = next(r for r in view.routes if f"{C}/32" in r.prefixes)
        plan = with_route(plan, view, route, replace(route, **change))
    found = texts(plan)
    assert list(found) == ["node r1"]
    assert any("r1 > r4: r4 has no link left" in what and what.endswith("with r3 down") for what in found["node r1"])


def test_leaves_alike_but_for_one_that_is_not_itself_the_target(plan: Plan) -> None:
    """Routes that lead everywhere but to a are right at a, and wrong at b, which has the same."""
    targets = tuple(p for n, m in plan.members.items() for p in m.prefixes if n not in ("a", "r1", "r2"))
    routes = tuple(r for r in plan.views["a"].routes if "10.100.0.0/16" not in r.prefixes)
    routes = (Route(prefixes=tuple(p for p in targets), via=("r1", "r2")), *routes)
    for name in ("a", "b"):
        plan = with_view(plan, replace(plan.views[name], routes=routes))
    assert texts(plan) == {"node b": [f"it has no way to {A}/32 of a"]}


def test_links_that_the_plan_forgets_or_makes_up(plan: Plan) -> None:
    """The plan's list of links is that of the views."""
    first, second, *_ = plan.links
    assert texts(replace(plan, links=plan.links[1:])) == {
        f"node {first.a}": [f"the plan lists no link to {first.b}"],
        f"node {first.b}": [f"the plan lists no link to {first.a}"],
    }
    extra = replace(second, a="a", b="r3")
    assert texts(replace(plan, links=(*plan.links, extra))) == {"node a": ["its link to r3 is not at both ends"]}


def test_homes_are_the_uplinks(plan: Plan) -> None:
    """A leaf whose homes are not where its uplinks lead is named."""
    members = {**plan.members, "a": replace(plan.members["a"], homes=("r1", "r3"))}
    assert "it has uplinks to r1, r2, and the homes r1, r3" in texts(replace(plan, members=members))["node a"]


def test_what_two_members_share_is_named(plan: Plan) -> None:
    """A key or an address that is there twice is told with both its owners."""
    key = plan.members["a"].public_key
    members = {**plan.members, "b": replace(plan.members["b"], public_key=key)}
    assert f"it has the public key {key} of a" in texts(replace(plan, members=members))["node b"]
    members = {**plan.members, "b": replace(plan.members["b"], addresses=(A,))}
    assert f"it has the address {A} of a" in texts(replace(plan, members=members))["node b"]


def test_the_loss_that_the_design_accepts() -> None:
    """Two relays, their trunk cut, and a leaf on one alone: no problem of the plan, since relays have no other way."""
    mesh = {"network": "10.100.0.0/16", "nodes": {n: NODES[n] for n in ("r1", "r2")} | {"a": {"nat": True}}}
    facts = {n: facts_of(n, "172.16.0.9") for n in ("r1", "r2", "a")}
    plan = planner.make(policy.parse({"wg0": mesh}).meshes["wg0"], facts, Register())
    found = walk(plan, "r1", "10.100.0.2", frozenset({link("r1", "r2")}))
    assert (found.outcome, found.hops) == (Outcome.UNREACHABLE, ("r1",))
    assert verify.check(plan) == ()


def test_a_leaf_with_one_relay_where_others_have_two(plan: Plan) -> None:
    """A mesh that offers two relays offers them to each leaf."""
    members = {**plan.members, "a": replace(plan.members["a"], homes=("r1",))}
    assert "it has 1 relays, where others have two" in texts(replace(plan, members=members))["node a"]


def test_links_are_of_the_kind_of_their_ends(plan: Plan) -> None:
    """A trunk whose ends are listed in the wrong order is no link of the plan."""
    links = tuple(replace(x, a=x.b, b=x.a) if x.kind is Kind.TRUNK and x.a == "r1" else x for x in plan.links)
    assert list(texts(replace(plan, links=links))) == ["node r2", "node r3"]


def test_one_familys_networks_are_enough_for_nodes_of_that_family_alone() -> None:
    """What an uplink lacks is no fault at a leaf without IPv6, and is one at the relay's next leaf with it."""
    relay = {"role": "relay", "endpoint": "198.51.100.1"}
    mesh = {"network": ["10.100.0.0/16", "fd00:64::/64"], "nodes": {"r": relay, "a": {"nat": True}, "b": {"nat": True}}}
    facts = {n: facts_of(n, "172.16.0.9", ipv6=n != "a") for n in ("r", "a", "b")}
    plan = planner.make(policy.parse({"wg0": mesh}).meshes["wg0"], facts, Register())
    assert verify.check(plan) == ()
    only = ("10.100.0.0/16",)
    for name in ("a", "b"):
        view = plan.views[name]
        uplink = next(i for i in view.interfaces if i.kind is Kind.UPLINK)
        peers = (replace(uplink.peers[0], allowed_ips=only),)
        plan = with_interface(plan, view, uplink, replace(uplink, peers=peers))
    assert texts(plan)["node b"] == ["the allowed-ips towards r lack fd00:64::/64"]
    assert "node a" not in texts(plan)
