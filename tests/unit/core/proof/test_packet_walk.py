"""One packet, hop by hop: its way, and how it ends where something is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.model.view import Kind, Route
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof.packet_walk import WalkOutcome, all_paths, walk
from saltext_wgmesh.core.proof.prove import prove
from saltext_wgmesh.core.proof.what_if import cut_off, what_if
from tests.unit.harness.mutants import with_interface, with_route, with_view
from tests.unit.harness.strategies import facts_of

A, B, C, G = "10.100.0.11", "10.100.0.12", "10.100.0.13", "10.100.0.14"
LAN_HOST = "192.168.7.20"
RELAYS = {"a": ("r1", "r2"), "b": ("r1", "r2"), "c": ("r3", "r2"), "g": ("r3", "r2")}
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


def make_plan(nodes: dict[str, dict[str, object]]) -> Plan:
    """Return the plan of these nodes, with the relays above."""
    mesh = policy.parse_policy({"wg0": {"network": "10.100.0.0/16", "sites": SITES, "nodes": nodes}}).meshes["wg0"]
    facts = {name: facts_of(name, f"172.16.0.{i}") for i, name in enumerate(nodes, 1)}
    made = planner.plan_mesh(mesh, facts, Allocations(relays=RELAYS))
    assert {n: m.relays for n, m in made.members.items() if m.relays} == RELAYS
    return made


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Three relays; a and b use r1, then r2; c and the gateway g use r3, then r2."""
    return make_plan(NODES)


def messages(plan: Plan) -> dict[str, list[str]]:
    """Return the messages of the proof, by node."""
    found: dict[str, list[str]] = {}
    for problem in prove(plan):
        found.setdefault(problem.path, []).append(problem.message)
    return found


def link(a: str, b: str) -> frozenset[str]:
    """Return the link of two nodes, as it stands in a set of failures."""
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
def test_walk_takes_first_neighbour_up(
    plan: Plan, source: str, to: str, down: tuple[str | frozenset[str], ...], hops: str
) -> None:
    """A packet goes to the first next hop that the node itself sees up, and a relay never sends it back."""
    found = walk(plan, source, to, frozenset(down))
    assert (found.outcome, " ".join(found.hops)) == (WalkOutcome.DELIVERED, hops)


def test_walk_without_target_links_is_unreachable(plan: Plan) -> None:
    """When both of c's links are down, its second relay finds it unreachable."""
    found = walk(plan, "a", C, frozenset((link("c", "r3"), link("c", "r2"))))
    assert (found.outcome, found.hops) == (WalkOutcome.UNREACHABLE, ("a", "r1", "r3", "r2"))


def test_walk_from_down_source_is_down(plan: Plan) -> None:
    """A node that is down sends nothing."""
    assert walk(plan, "a", B, frozenset({"a"})).outcome is WalkOutcome.DOWN


def test_walk_unassigned_address_ends_at_relay(plan: Plan) -> None:
    """A packet for an address without an owner is dropped at the first relay, not sent around."""
    found = walk(plan, "a", "10.100.77.77")
    assert (found.outcome, found.hops) == (WalkOutcome.UNREACHABLE, ("a", "r1"))


def test_walk_foreign_address_has_no_route(plan: Plan) -> None:
    """The mesh carries no packets for addresses outside it."""
    assert walk(plan, "a", "203.0.113.9").outcome is WalkOutcome.NO_ROUTE


def test_walk_subnet_source_is_accepted(plan: Plan) -> None:
    """A packet from a host behind the gateway is accepted on the whole way; one from elsewhere is not."""
    assert walk(plan, "g", A, source_address=LAN_HOST).hops == ("g", "r3", "r1", "a")
    stranger = walk(plan, "g", A, source_address="192.168.99.1")
    assert (stranger.outcome, stranger.hops) == (WalkOutcome.SOURCE_REFUSED, ("g",))


def test_walk_foreign_source_is_refused(plan: Plan) -> None:
    """A relay drops packets that a leaf sends under another leaf's address."""
    assert walk(plan, "a", B, source_address=C).outcome is WalkOutcome.SOURCE_REFUSED


def test_walk_route_to_wrong_leaf_no_peer(plan: Plan) -> None:
    """A route for c's address to another leaf has no effect: on an access interface allowed-ips decide."""
    view = plan.views["r1"]
    route = next(r for r in view.routes if f"{C}/32" in r.prefixes)
    broken = with_route(plan, view, route, replace(route, via=("b",)))
    assert walk(broken, "a", C).outcome is WalkOutcome.NO_PEER


def test_walk_gateway_not_forwarding_drops_subnet(plan: Plan) -> None:
    """Its own address is reached, the subnet behind it is not."""
    broken = with_view(plan, replace(plan.views["g"], forward=False))
    assert walk(broken, "a", G).outcome is WalkOutcome.DELIVERED
    assert walk(broken, "a", LAN_HOST).outcome is WalkOutcome.NOT_FORWARDING


def test_walk_trunk_tables_in_cycle_loops(plan: Plan) -> None:
    """Two relays whose trunk tables point at each other are reported as a loop."""
    for relay, other in (("r3", "r2"), ("r2", "r3")):
        view = plan.views[relay]
        route = next(r for r in view.routes if f"{C}/32" in r.prefixes)
        plan = with_route(plan, view, route, replace(route, from_trunk=(other,)))
    assert walk(plan, "a", C).outcome is WalkOutcome.LOOP
    assert any("can go r3 > r2 > r3" in p.message for p in prove(plan))


def test_walk_without_matching_endpoint_no_session(plan: Plan) -> None:
    """If a trunk listens on another port at both its ends, no packet crosses it."""
    for relay, other in (("r1", "r3"), ("r3", "r1")):
        view = plan.views[relay]
        trunk = next(i for i in view.interfaces if i.kind is Kind.TRUNK and i.peers[0].node == other)
        plan = with_interface(plan, view, trunk, replace(trunk, listen_port=9))
    found = walk(plan, "a", C)
    assert (found.outcome, found.hops) == (WalkOutcome.NO_SESSION, ("a", "r1"))


def test_all_paths_lists_each_pair(plan: Plan) -> None:
    """Each member has a row with each other member, both ends of each path included."""
    found = all_paths(plan)
    assert {source: len(row) for source, row in found.items()} == dict.fromkeys(plan.members, 6)
    assert found["a"]["c"] == ("a", "r1", "r3", "c")


def test_outage_names_cut_off_and_rerouted(plan: Plan) -> None:
    """With c's second link down, a failure of r3 cuts off c alone; paths through r3 move to r2."""
    down = frozenset({"r3", link("c", "r2")})
    cut = cut_off(plan, down)
    assert {(a, b) for a, b, _ in cut} == {(n, "c") for n in "abg"} | {("c", n) for n in "abg"} | {
        (r, "c") for r in ("r1", "r2")
    } | {("c", r) for r in ("r1", "r2")}
    found = what_if(plan, down).as_dict()
    assert found["down"] == ["c--r2", "r3"]
    assert found["cut_off"] == {f"{a} → {b}": why for a, b, why in cut}
    assert found["rerouted"]["a → g"] == {"before": "a → r1 → r3 → g", "after": "a → r1 → r2 → g"}


# --- messages of the proof for single mistakes ---------------------------------------------------------


def test_prove_harmful_relay_failure_names_relay(plan: Plan) -> None:
    """Where each single link may fail but not the relay at its end, the message names the relay as down."""
    plan = make_plan({**NODES, "r4": {"role": "relay", "endpoint": "198.51.100.4", "address": "10.100.0.4"}})
    assert prove(plan) == ()
    for relay, change in (("r1", {"via": ("r3", "r4"), "detour": False}), ("r4", {"from_trunk": ("r3",)})):
        view = plan.views[relay]
        route = next(r for r in view.routes if f"{C}/32" in r.prefixes)
        plan = with_route(plan, view, route, replace(route, **change))
    found = messages(plan)
    assert list(found) == ["node r1"]
    assert any("r1 > r4: r4 has no link left" in text and text.endswith("with r3 down") for text in found["node r1"])


def test_prove_equal_routes_differ_by_leaf(plan: Plan) -> None:
    """Routes that lead everywhere but to a are right at a, and wrong at b, which has the same ones."""
    targets = tuple(p for n, m in plan.members.items() for p in m.prefixes if n not in ("a", "r1", "r2"))
    routes = tuple(r for r in plan.views["a"].routes if "10.100.0.0/16" not in r.prefixes)
    routes = (Route(prefixes=tuple(p for p in targets), via=("r1", "r2")), *routes)
    for name in ("a", "b"):
        plan = with_view(plan, replace(plan.views[name], routes=routes))
    assert messages(plan) == {"node b": [f"it has no way to {A}/32 of a"]}


def test_prove_missing_or_extra_link_is_named(plan: Plan) -> None:
    """The plan's list of links is that of the views."""
    first, second, *_ = plan.links
    assert messages(replace(plan, links=plan.links[1:])) == {
        f"node {first.a}": [f"the plan lists no link to {first.b}"],
        f"node {first.b}": [f"the plan lists no link to {first.a}"],
    }
    extra = replace(second, a="a", b="r3")
    assert messages(replace(plan, links=(*plan.links, extra))) == {"node a": ["its link to r3 is not at both ends"]}


def test_prove_relays_without_uplink_are_named(plan: Plan) -> None:
    """A leaf whose uplinks do not lead to its relays is named."""
    members = {**plan.members, "a": replace(plan.members["a"], relays=("r1", "r3"))}
    assert "it has uplinks to r1, r2, and the relays r1, r3" in messages(replace(plan, members=members))["node a"]


def test_prove_shared_key_or_address_names_both(plan: Plan) -> None:
    """A key or an address of two members is reported with both."""
    key = plan.members["a"].public_key
    members = {**plan.members, "b": replace(plan.members["b"], public_key=key)}
    assert f"it has the public key {key} of a" in messages(replace(plan, members=members))["node b"]
    members = {**plan.members, "b": replace(plan.members["b"], addresses=(A,))}
    assert f"it has the address {A} of a" in messages(replace(plan, members=members))["node b"]


def test_prove_two_relays_accepts_trunk_loss() -> None:
    """Two relays cannot reach each other without their trunk: the design accepts this loss, so the plan is proven."""
    mesh = {"network": "10.100.0.0/16", "nodes": {n: NODES[n] for n in ("r1", "r2")} | {"a": {"nat": True}}}
    facts = {n: facts_of(n, "172.16.0.9") for n in ("r1", "r2", "a")}
    plan = planner.plan_mesh(policy.parse_policy({"wg0": mesh}).meshes["wg0"], facts, Allocations())
    found = walk(plan, "r1", "10.100.0.2", frozenset({link("r1", "r2")}))
    assert (found.outcome, found.hops) == (WalkOutcome.UNREACHABLE, ("r1",))
    assert prove(plan) == ()


def test_prove_leaf_with_one_relay_is_named(plan: Plan) -> None:
    """A mesh that offers two relays offers them to each leaf."""
    members = {**plan.members, "a": replace(plan.members["a"], relays=("r1",))}
    assert "it has 1 relays, where others have two" in messages(replace(plan, members=members))["node a"]


def test_prove_reversed_trunk_is_named(plan: Plan) -> None:
    """A trunk whose ends are listed in the wrong order is not a valid link of the plan."""
    links = tuple(replace(x, a=x.b, b=x.a) if x.kind is Kind.TRUNK and x.a == "r1" else x for x in plan.links)
    assert list(messages(replace(plan, links=links))) == ["node r2", "node r3"]


def test_prove_missing_ipv6_counts_with_ipv6_only() -> None:
    """An uplink without the IPv6 network is right at a leaf without IPv6, and wrong at a leaf with it."""
    relay = {"role": "relay", "endpoint": "198.51.100.1"}
    mesh = {"network": ["10.100.0.0/16", "fd00:64::/64"], "nodes": {"r": relay, "a": {"nat": True}, "b": {"nat": True}}}
    facts = {n: facts_of(n, "172.16.0.9", ipv6=n != "a") for n in ("r", "a", "b")}
    plan = planner.plan_mesh(policy.parse_policy({"wg0": mesh}).meshes["wg0"], facts, Allocations())
    assert prove(plan) == ()
    only = ("10.100.0.0/16",)
    for name in ("a", "b"):
        view = plan.views[name]
        uplink = next(i for i in view.interfaces if i.kind is Kind.UPLINK)
        peers = (replace(uplink.peers[0], allowed_ips=only),)
        plan = with_interface(plan, view, uplink, replace(uplink, peers=peers))
    assert messages(plan)["node b"] == ["the allowed-ips towards r lack fd00:64::/64"]
    assert "node a" not in messages(plan)
