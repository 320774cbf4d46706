"""The plan: golden scenarios to read, single cases, and properties of every world."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.plan import Allocations, Link
from saltext_wgmesh.core.model.policy import Endpoint, Site, Topology
from saltext_wgmesh.core.model.view import Kind, View
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof import prove
from tests.unit.golden import written
from tests.unit.harness import worlds
from tests.unit.harness.worlds import all_facts, leaf, mesh, relay

GOLDEN = Path(__file__).parents[2] / "golden"
SCENARIOS = sorted(p.parent.name for p in GOLDEN.glob("*/pillar.yaml"))
REWRITE = "WGMESH_REWRITE_GOLDEN" in os.environ


def make(policy_, facts, allocations=None):
    return planner.plan_mesh(policy_, facts, allocations or Allocations())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_golden_scenario_gives_expected_plan(scenario):
    """Pillar and mine of the folder give exactly the plan in it, and the plan stands its proof.

    After an intended change run with WGMESH_REWRITE_GOLDEN=1, and read the difference.
    """
    folder = GOLDEN / scenario
    meshes = policy.parse_policy(yaml.safe_load((folder / "pillar.yaml").read_text())["wgmesh"]).meshes
    mine = yaml.safe_load((folder / "mine.yaml").read_text())
    facts = {node: replace(worlds.facts(node), **_tuples(fields)) for node, fields in mine.items()}
    ((_, one),) = meshes.items()
    made = make(one, facts)
    text = written.text(made)
    if REWRITE:
        (folder / "plan.txt").write_text(text)
    assert text == (folder / "plan.txt").read_text()
    assert prove.prove(made) == ()


def _tuples(fields):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in (fields or {}).items()}


# --- members -------------------------------------------------------------------------------------------


def test_node_without_rule_is_not_mentioned():
    """The plan has the node neither as a member nor as unplaced."""
    made = make(mesh(leaf("web*")), all_facts("web1", "db1"))
    assert (list(made.members), made.unplaced) == (["web1"], {})


def test_leaves_without_any_relay_are_unplaced():
    """The reason names the relays of the leaf's site, or of the mesh; no leaf is planned without a relay."""
    policy_ = mesh(relay("r1"), relay("r2"), leaf("a", "fra"), leaf("b"), sites=(Site(name="fra", relays=("r2",)),))
    made = make(policy_, all_facts("a", "b"))
    assert made.members == {}
    assert made.unplaced == {
        "a": "none of its relays has published facts: r2; apply the formula there",
        "b": "none of its relays has published facts: r1, r2; apply the formula there",
    }


def test_leaf_without_relay_of_site_uses_another():
    """A leaf uses any relay until those of its site publish facts."""
    policy_ = mesh(relay("r1"), relay("r2"), leaf("a", "fra"), sites=(Site(name="fra", relays=("r2",)),))
    made = make(policy_, all_facts("a", "r1"))
    assert (made.members["a"].relays, made.unplaced) == (("r1",), {})


def test_node_without_ipv6_has_none_in_plan():
    """No prefix of the node's view is IPv6, and its allocated IPv6 address stays."""
    policy_ = mesh(relay("r1"), leaf("a"), network="10.100.0.0/16 fd00:64::/64")
    facts = {"r1": worlds.facts("r1"), "a": worlds.facts("a", ipv6=False)}
    made = make(policy_, facts)
    assert [":" in x for x in made.allocations.addresses["a"]] == [False, True]
    assert len(made.members["a"].addresses) == 1
    everything = [p for i in made.views["a"].interfaces for x in i.peers for p in x.allowed_ips]
    everything += [p for r in made.views["a"].routes for p in r.prefixes] + list(made.views["a"].networks)
    assert [p for p in everything if ":" in p] == []


def test_node_without_needed_ipv6_is_unplaced():
    """A node needs IPv6 in a mesh of IPv6 alone, and a relay needs it in a mesh with IPv6."""
    only6 = make(mesh(leaf("a"), leaf("b"), network="fd00::/64"), {"a": worlds.facts("a", ipv6=False)})
    assert only6.unplaced == {
        "a": "IPv6 is disabled on it and the mesh has no IPv4 network; enable IPv6 there",
    }
    both = mesh(relay("r1"), relay("r2"), network="10.0.0.0/24 fd00::/64")
    made = make(both, {"r1": worlds.facts("r1", ipv6=False), "r2": worlds.facts("r2")})
    assert made.unplaced == {"r1": "it is a relay with IPv6 disabled in a mesh with IPv6; enable IPv6 there"}


def test_all_problems_are_reported_at_once():
    """Each node without a link is reported with the first node that it can't reach, and the full network too."""
    policy_ = mesh(leaf("*", nat=True), leaf("z"), network="10.7.0.0/30", topology=Topology.HUB)
    with pytest.raises(PlanError) as caught:
        make(policy_, all_facts("a", "b", "c"))
    lines = [str(p) for p in caught.value.problems]
    do = "add a relay, or give one side an endpoint and add the pair to links"
    why = "topology hub links leaves to relays alone"
    assert lines == [
        f"node a: it has no link to b ({why}), nor to 1 more, and the mesh has no relay; {do}",
        f"node b: it has no link to a ({why}), nor to 1 more, and the mesh has no relay; {do}",
        f"node c: it has no link to a ({why}), nor to 1 more, and the mesh has no relay; {do}",
        "node c: the network 10.7.0.0/30 has no free address left; choose a wider one",
    ]


# --- numbers -------------------------------------------------------------------------------------------


def test_relay_numbers_are_never_reused():
    """New relays are numbered in the operator's order, after every number that was ever used."""
    policy_ = mesh(relay("r9"), relay("r1"), relay("r5"))
    first = make(policy_, all_facts("r1", "r9")).allocations
    assert first.relay_numbers == {"r1": 2, "r9": 1}
    later = make(policy_, all_facts("r5"), first).allocations
    assert later.relay_numbers == {"r1": 2, "r5": 3, "r9": 1}


def test_number_too_high_for_name_is_a_problem():
    """A number must leave the interface name short enough and the port valid."""
    policy_ = replace(mesh(relay("r1"), listen_port=65_530), interface="wg-datacenter")
    with pytest.raises(PlanError) as caught:
        make(policy_, all_facts("r1"), Allocations(relay_numbers={"r1": 7}))
    assert [str(p) for p in caught.value.problems] == [
        "node r1: interfaces towards it would be named wg-datacenter-t7, longer than 15 characters; "
        "give the mesh a shorter interface",
        "node r1: trunks towards it would listen on port 65537; give the mesh a lower listen_port",
    ]


# --- links ---------------------------------------------------------------------------------------------


def test_trunk_uses_port_of_relay_number():
    """r1 (1) listens for r2 at 51822, r2 (2) for r1 at 51821; at a forwarded port the number is added to that."""
    far = replace(relay("r2"), endpoint=Endpoint(host="198.51.100.7", port=4000))
    made = make(mesh(relay("r1"), far), all_facts("r1", "r2"))
    trunks = {node: view.interfaces[1] for node, view in made.views.items()}
    assert (trunks["r1"].name, trunks["r1"].listen_port, trunks["r1"].peers[0].endpoint) == (
        "wg0-t2",
        51822,
        "198.51.100.7:4001",
    )
    assert (trunks["r2"].name, trunks["r2"].listen_port, trunks["r2"].peers[0].endpoint) == (
        "wg0-t1",
        51821,
        "203.0.113.1:51822",
    )


def test_uplink_is_kept_open_by_its_leaf():
    """The socket of an uplink has a port of its own that no other node knows, also on a leaf with an endpoint."""
    public = leaf("a", endpoint=Endpoint(host="198.51.100.1", port=51820))
    made = make(mesh(relay("r1"), public), all_facts("r1", "a"))
    (uplink,) = made.views["a"].interfaces[1].peers
    (back,) = made.views["r1"].interfaces[0].peers
    assert (made.views["a"].interfaces[1].listen_port, uplink.endpoint, uplink.keepalive) == (
        0,
        "203.0.113.1:51820",
        25,
    )
    assert (back.endpoint, back.keepalive) == (None, 0)


def test_side_behind_nat_keeps_direct_link_open():
    """The other side can't open a connection, so it needs no keepalive."""
    policy_ = mesh(leaf("a", "fra", nat=True), leaf("b", "fra"), sites=(Site(name="fra"),))
    made = make(policy_, {"a": worlds.facts("a"), "b": worlds.facts("b", "172.16.0.9")})
    (at_a,) = made.views["a"].interfaces[0].peers
    (at_b,) = made.views["b"].interfaces[0].peers
    assert (at_a.endpoint, at_a.keepalive) == ("172.16.0.9:51820", 25)
    assert (at_b.endpoint, at_b.keepalive) == (None, 0)


def test_side_without_underlay_keeps_direct_link_open():
    """NAT is not the only reason why the other side can't open a connection."""
    policy_ = mesh(leaf("a", "fra"), leaf("b", "fra"), sites=(Site(name="fra"),))
    made = make(policy_, {"a": replace(worlds.facts("a"), underlay=()), "b": worlds.facts("b", "172.16.0.9")})
    (at_a,) = made.views["a"].interfaces[0].peers
    (at_b,) = made.views["b"].interfaces[0].peers
    assert (at_a.keepalive, at_b.keepalive) == (25, 0)


def test_pair_has_one_link_by_its_roles():
    """Two leaves have an access link, two relays a trunk, and a leaf and its relay an uplink."""
    policy_ = mesh(relay("r1"), relay("r2"), leaf("a"), leaf("b"), links=(("a", "b"),))
    made = make(policy_, all_facts("r1", "r2", "a", "b"))
    uplinks = [Link(a=x, b=r, kind=Kind.UPLINK) for x in "ab" for r in ("r1", "r2")]
    direct, trunk = Link(a="a", b="b", kind=Kind.ACCESS), Link(a="r1", b="r2", kind=Kind.TRUNK)
    assert made.links == (direct, *uplinks, trunk)


# --- subnets -------------------------------------------------------------------------------------------


def test_first_rule_with_member_is_active_gateway():
    """Gateways are in the order of the rules, and by name within a glob; a gateway has no route for its subnet."""
    lan = "192.168.7.0/24"
    policy_ = mesh(relay("r1"), leaf("absent", routes=[lan]), leaf("g*", routes=[lan]), leaf("a", routes=[lan]))
    made = make(policy_, all_facts("r1", "a", "g2", "g1"))
    roles = {n: (m.subnets, m.standby_subnets, made.views[n].forward) for n, m in made.members.items()}
    assert roles == {
        "a": ((), (lan,), True),
        "g1": ((lan,), (), True),
        "g2": ((), (lan,), True),
        "r1": ((), (), True),
    }
    assert {n for n, v in made.views.items() if any(lan in r.prefixes for r in v.routes)} == {"r1"}


@settings(deadline=None, max_examples=40)
@given(
    networks=st.sets(st.sampled_from(["192.168.7.0/24", "192.168.0.0/16", "192.168.8.0/24", "0.0.0.0/0"])),
    underlay=st.sets(st.sampled_from(["192.168.8.1", "10.100.0.2", "203.0.113.9"])),
    topology=st.sampled_from(Topology),
)
def test_facts_of_gateway_take_no_subnet(networks, underlay, topology):
    """Whatever a gateway publishes: the other's subnet goes to that one alone, and no node accepts it from the first.

    An uplink or a trunk accepts all sources, since its relay forwards for all.
    """
    own, other = "192.168.7.0/24", "192.168.8.0/24"
    policy_ = replace(mesh(relay("r1"), leaf("g1", routes=[own]), leaf("g2", routes=[other])), topology=topology)
    honest = all_facts("r1", "g1", "g2")
    claims = replace(honest["g1"], networks=tuple(sorted(networks)), underlay=tuple(sorted(underlay)))
    made = make(policy_, {**honest, "g1": claims})
    assert (made.members["g1"].subnets, made.members["g2"].subnets) == ((own,), (other,))
    accepted = [
        (peer.node, prefix)
        for view in made.views.values()
        for interface in view.interfaces
        if interface.kind is Kind.ACCESS
        for peer in interface.peers
        for prefix in peer.allowed_ips
        if prefix in (own, other)
    ]
    assert set(accepted) == {("g1", own), ("g2", other)}


def test_standby_gateway_relay_has_no_subnet_route():
    """A relay that is a standby gateway has no route for the subnet either."""
    lan = "192.168.7.0/24"
    made = make(mesh(leaf("a", routes=[lan]), relay("r1", routes=[lan]), relay("r2")), all_facts("a", "r1", "r2"))
    assert made.members["r1"].standby_subnets == (lan,)
    assert {n for n, v in made.views.items() if any(lan in r.prefixes for r in v.routes)} == {"r2"}


def test_node_without_ipv6_is_no_ipv6_gateway():
    """The next gateway of the rules is active in its place."""
    policy_ = mesh(
        relay("r1"), leaf("a", routes=["fd99::/64"]), leaf("b", routes=["fd99::/64"]), network="10.0.0.0/24 fd00::/64"
    )
    made = make(policy_, all_facts("r1", "b") | {"a": worlds.facts("a", ipv6=False)})
    assert {n: m.subnets for n, m in made.members.items() if m.subnets} == {"b": ("fd99::/64",)}


def test_subnet_of_missing_family_is_a_problem():
    """Nodes would have no address to send from."""
    with pytest.raises(PlanError) as caught:
        make(mesh(leaf("a", routes=["fd99::/64"])), all_facts("a"))
    assert [str(p) for p in caught.value.problems] == [
        "wgmesh:wg0:nodes:a:routes: fd99::/64 is IPv6, and the mesh has no IPv6 network; "
        "add one to network, or take the subnet away"
    ]


def test_rest_of_mesh_without_relays_is_unreachable():
    """No packet for the mesh takes the default route, not even for an unassigned address."""
    policy_ = mesh(leaf("a"), leaf("b"), topology=Topology.FULL)
    view = make(policy_, all_facts("a", "b")).views["a"]
    assert [(r.prefixes, r.via) for r in view.routes if r.via == ()] == [(("10.100.0.0/16",), ())]


# --- properties of every world --------------------------------------------------------------------------


def _made(world: worlds.World, facts: dict[str, Facts] | None = None, allocations: Allocations | None = None):
    try:
        return make(world.mesh, world.facts if facts is None else facts, allocations)
    except PlanError:
        return None


@settings(max_examples=120, deadline=None)
@given(worlds.worlds())
def test_every_plan_passes_its_proof(world):
    """The proof shares no code with the planner: every pair is connected, no packet loops, and none is refused."""
    made = _made(world)
    assume(made is not None)
    assert prove.prove(made) == ()


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.data())
def test_order_of_facts_does_not_matter(world, data):
    """The same inputs in another order give the same plan."""
    made = _made(world)
    assume(made is not None)
    shuffled = {n: world.facts[n] for n in data.draw(st.permutations(sorted(world.facts)))}
    again = _made(world, shuffled)
    assert repr(again) == repr(made)


@settings(max_examples=60, deadline=None)
@given(worlds.worlds())
def test_planning_with_new_allocations_changes_nothing(world):
    """A second plan from the allocations of the first is the same."""
    made = _made(world)
    assume(made is not None)
    again = _made(world, allocations=made.allocations)
    assert repr(again) == repr(made)


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.data())
def test_view_from_json_equals_the_view(world, data):
    """``from_dict`` reverses ``as_dict``, also after a detour through JSON."""
    made = _made(world)
    assume(made is not None and made.views)
    view = made.views[data.draw(st.sampled_from(sorted(made.views)))]
    assert View.from_dict(json.loads(json.dumps(view.as_dict()))) == view


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.data())
def test_joins_and_leaves_keep_addresses_and_numbers(world, data):
    """A member keeps its addresses and number, and a node that returns has the same ones again."""
    allocations, seen = Allocations(), {}
    for _ in range(3):
        present = data.draw(st.sets(st.sampled_from(sorted(world.facts))))
        made = _made(world, {n: f for n, f in world.facts.items() if n in present}, allocations)
        if made is None:
            continue
        allocations = made.allocations
        for node, member in made.members.items():
            assert seen.setdefault(node, (member.addresses, allocations.relay_numbers.get(node))) == (
                member.addresses,
                allocations.relay_numbers.get(node),
            )
