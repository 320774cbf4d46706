"""The plan: golden scenarios to read, then what holds for every world."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import plan, policy, verify
from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.types import Endpoint, Facts, Kind, Link, Register, Site, Topology, View, host_prefixes
from tests.unit import worlds
from tests.unit.golden import written
from tests.unit.worlds import all_facts, leaf, mesh, relay

GOLDEN = Path(__file__).parent / "golden"
SCENARIOS = sorted(p.parent.name for p in GOLDEN.glob("*/pillar.yaml"))
REWRITE = "WGMESH_REWRITE_GOLDEN" in os.environ


def make(policy_, facts, register=None):
    return plan.make(policy_, facts, register or Register())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_golden(scenario):
    """Pillar and mine of the folder give exactly the plan in it, and the plan stands its proof.

    After an intended change run with WGMESH_REWRITE_GOLDEN=1, and read the difference.
    """
    folder = GOLDEN / scenario
    meshes = policy.parse(yaml.safe_load((folder / "pillar.yaml").read_text())["wgmesh"]).meshes
    mine = yaml.safe_load((folder / "mine.yaml").read_text())
    facts = {node: replace(worlds.facts(node), **_tuples(fields)) for node, fields in mine.items()}
    ((_, one),) = meshes.items()
    made = make(one, facts)
    text = written.text(made)
    if REWRITE:
        (folder / "plan.txt").write_text(text)
    assert text == (folder / "plan.txt").read_text()
    assert verify.check(made) == ()


def _tuples(fields):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in (fields or {}).items()}


# --- who is in it --------------------------------------------------------------------------------------


def test_a_node_without_rule_is_no_member_and_not_mentioned():
    made = make(mesh(leaf("web*")), all_facts("web1", "db1"))
    assert (list(made.members), made.left_out) == (["web1"], {})


def test_leaves_wait_for_a_relay_to_publish_facts():
    """They are left out with the relays of their own site, or of the mesh; nobody is planned without one."""
    policy_ = mesh(relay("r1"), relay("r2"), leaf("a", "fra"), leaf("b"), sites=(Site(name="fra", relays=("r2",)),))
    made = make(policy_, all_facts("a", "b"))
    assert made.members == {}
    assert made.left_out == {
        "a": "none of its relays has published facts: r2; apply the formula there",
        "b": "none of its relays has published facts: r1, r2; apply the formula there",
    }


def test_any_relay_will_do_until_the_sites_own_come():
    policy_ = mesh(relay("r1"), relay("r2"), leaf("a", "fra"), sites=(Site(name="fra", relays=("r2",)),))
    made = make(policy_, all_facts("a", "r1"))
    assert (made.members["a"].homes, made.left_out) == (("r1",), {})


def test_a_node_without_ipv6_has_none_in_the_plan_while_the_register_keeps_its_address():
    policy_ = mesh(relay("r1"), leaf("a"), network="10.100.0.0/16 fd00:64::/64")
    facts = {"r1": worlds.facts("r1"), "a": worlds.facts("a", ipv6=False)}
    made = make(policy_, facts)
    assert [":" in x for x in made.register.addresses["a"]] == [False, True]
    assert len(made.members["a"].addresses) == 1
    everything = [p for i in made.views["a"].interfaces for x in i.peers for p in x.allowed_ips]
    everything += [p for r in made.views["a"].routes for p in r.prefixes] + list(made.views["a"].networks)
    assert [p for p in everything if ":" in p] == []


def test_nodes_that_a_mesh_of_ipv6_can_not_serve_are_left_out():
    only6 = make(mesh(leaf("a"), leaf("b"), network="fd00::/64"), {"a": worlds.facts("a", ipv6=False)})
    assert only6.left_out == {
        "a": "IPv6 is disabled on it and the mesh has no IPv4 network; enable IPv6 there",
    }
    both = mesh(relay("r1"), relay("r2"), network="10.0.0.0/24 fd00::/64")
    made = make(both, {"r1": worlds.facts("r1", ipv6=False), "r2": worlds.facts("r2")})
    assert made.left_out == {"r1": "it is a relay with IPv6 disabled in a mesh with IPv6; enable IPv6 there"}


def test_all_problems_come_at_once_with_the_pairs_that_have_no_link():
    """No relay, and three nodes of which two could meet: each node says whom it lacks, and the full range comes too."""
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


def test_relays_are_numbered_in_the_operators_order_and_numbers_are_never_used_again():
    policy_ = mesh(relay("r9"), relay("r1"), relay("r5"))
    first = make(policy_, all_facts("r1", "r9")).register
    assert first.numbers == {"r1": 2, "r9": 1}
    later = make(policy_, all_facts("r5"), first).register
    assert later.numbers == {"r1": 2, "r5": 3, "r9": 1}


def test_a_number_that_makes_a_name_or_port_impossible_is_a_problem():
    policy_ = replace(mesh(relay("r1"), listen_port=65_530), interface="wg-datacenter")
    with pytest.raises(PlanError) as caught:
        make(policy_, all_facts("r1"), Register(numbers={"r1": 7}))
    assert [str(p) for p in caught.value.problems] == [
        "node r1: interfaces towards it would be named wg-datacenter-t7, longer than 15 characters; "
        "give the mesh a shorter interface",
        "node r1: trunks towards it would listen on port 65537; give the mesh a lower listen_port",
    ]


# --- links ---------------------------------------------------------------------------------------------


def test_trunks_meet_at_the_port_of_the_other_relays_number():
    """r1 (1) hears r2 at 51822, r2 (2) hears r1 at 51821; behind a forwarded port the number is added to that."""
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


def test_an_uplink_is_opened_and_kept_open_by_the_leaf_alone():
    """Its socket has a port of its own that nobody else knows, also on a leaf with an endpoint."""
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


def test_a_direct_link_is_kept_open_by_the_side_that_can_not_be_opened():
    policy_ = mesh(leaf("a", "fra", nat=True), leaf("b", "fra"), sites=(Site(name="fra"),))
    made = make(policy_, {"a": worlds.facts("a"), "b": worlds.facts("b", "172.16.0.9")})
    (at_a,) = made.views["a"].interfaces[0].peers
    (at_b,) = made.views["b"].interfaces[0].peers
    assert (at_a.endpoint, at_a.keepalive) == ("172.16.0.9:51820", 25)
    assert (at_b.endpoint, at_b.keepalive) == (None, 0)


def test_a_side_that_reports_no_underlay_address_keeps_the_link_open_too():
    """NAT is not the only reason why the other side can't open."""
    policy_ = mesh(leaf("a", "fra"), leaf("b", "fra"), sites=(Site(name="fra"),))
    made = make(policy_, {"a": replace(worlds.facts("a"), underlay=()), "b": worlds.facts("b", "172.16.0.9")})
    (at_a,) = made.views["a"].interfaces[0].peers
    (at_b,) = made.views["b"].interfaces[0].peers
    assert (at_a.keepalive, at_b.keepalive) == (25, 0)


def test_each_pair_has_one_link_of_the_kind_that_its_roles_make():
    policy_ = mesh(relay("r1"), relay("r2"), leaf("a"), leaf("b"), links=(("a", "b"),))
    made = make(policy_, all_facts("r1", "r2", "a", "b"))
    uplinks = [Link(a=x, b=r, kind=Kind.UPLINK) for x in "ab" for r in ("r1", "r2")]
    direct, trunk = Link(a="a", b="b", kind=Kind.ACCESS), Link(a="r1", b="r2", kind=Kind.TRUNK)
    assert made.links == (direct, *uplinks, trunk)


# --- subnets -------------------------------------------------------------------------------------------


def test_the_first_rule_with_a_member_is_the_active_gateway():
    """Rules in order, and by name within a glob; gateways of a subnet get no route for it."""
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


def test_a_relay_that_is_the_next_gateway_has_no_route_for_the_subnet():
    lan = "192.168.7.0/24"
    made = make(mesh(leaf("a", routes=[lan]), relay("r1", routes=[lan]), relay("r2")), all_facts("a", "r1", "r2"))
    assert made.members["r1"].standby_subnets == (lan,)
    assert {n for n, v in made.views.items() if any(lan in r.prefixes for r in v.routes)} == {"r2"}


def test_a_gateway_without_ipv6_is_none_for_ipv6_subnets():
    policy_ = mesh(
        relay("r1"), leaf("a", routes=["fd99::/64"]), leaf("b", routes=["fd99::/64"]), network="10.0.0.0/24 fd00::/64"
    )
    made = make(policy_, all_facts("r1", "b") | {"a": worlds.facts("a", ipv6=False)})
    assert {n: m.subnets for n, m in made.members.items() if m.subnets} == {"b": ("fd99::/64",)}


def test_a_subnet_of_a_family_that_the_mesh_lacks_is_a_problem():
    with pytest.raises(PlanError) as caught:
        make(mesh(leaf("a", routes=["fd99::/64"])), all_facts("a"))
    assert [str(p) for p in caught.value.problems] == [
        "wgmesh:wg0:nodes:a:routes: fd99::/64 is IPv6, and the mesh has no IPv6 network; "
        "add one to network, or take the subnet away"
    ]


# --- merged routes -------------------------------------------------------------------------------------


def _routed(view: View, address: str) -> tuple[str, ...]:
    """The neighbours that the view names for an address: longest prefix, by hand."""
    pairs = [(ip_network(p), r.via) for r in view.routes for p in r.prefixes]
    return max((p.prefixlen, via) for p, via in pairs if ip_address(address) in p)[1]


def test_a_site_with_a_block_is_one_prefix_for_relays_elsewhere():
    """Two leaves of each order of homes: one order takes the block, the other stays as host prefixes."""
    block = Site(name="fra", relays=("r1", "r2"), networks=(ip_network("10.100.7.0/24"),))
    policy_ = mesh(relay("r1"), relay("r2"), relay("r3"), leaf("n*", "fra"), sites=(block,))
    made = make(policy_, all_facts("r1", "r2", "r3", "n1", "n2", "n3", "n4", "n5"))
    leaves = {n: m for n, m in made.members.items() if not m.is_relay}
    orders = [m.homes for m in leaves.values()]
    most = max(set(orders), key=lambda h: (orders.count(h), h))
    few = sorted(p for m in leaves.values() if m.homes != most for p in host_prefixes(m.addresses))
    routes = {r.via: r.prefixes for r in made.views["r3"].routes}
    assert routes[most] == ("10.100.7.0/24",)
    assert sorted(p for via, prefixes in routes.items() if via == most[::-1] for p in prefixes) == few
    for m in leaves.values():
        assert _routed(made.views["r3"], m.addresses[0]) == m.homes
    assert not any("10.100.7.0/24" in r.prefixes for n in ("r1", "r2") for r in made.views[n].routes)


def test_relays_that_are_homes_in_a_block_do_not_merge_it_so_nothing_circles():
    """Three relays share a site: were each to give the block to the other two, an address of nobody would loop."""
    block = Site(name="fra", relays=("r1", "r2", "r3"), networks=(ip_network("10.100.7.0/24"),))
    policy_ = mesh(*(relay(f"r{i}") for i in range(1, 5)), leaf("n*", "fra"), sites=(block,))
    made = make(policy_, all_facts("r1", "r2", "r3", "r4", *(f"n{i}" for i in range(12))))
    merging = {n for n, v in made.views.items() if any("10.100.7.0/24" in r.prefixes for r in v.routes)}
    assert merging == {"r4"}
    taken = {a for m in made.members.values() for a in m.addresses}
    nobody = next(str(a) for a in ip_network("10.100.7.0/24").hosts() if str(a) not in taken)
    for source in ("r1", "r4", "n0"):
        assert verify.walk(made, source, nobody).outcome is verify.Outcome.UNREACHABLE


def test_one_address_alone_takes_no_block():
    block = Site(name="fra", relays=("r1",), networks=(ip_network("10.100.7.0/24"),))
    made = make(
        mesh(relay("r1"), relay("r2"), relay("r3"), leaf("a", "fra"), sites=(block,)), all_facts("r1", "r2", "r3", "a")
    )
    assert not any("10.100.7.0/24" in r.prefixes for v in made.views.values() for r in v.routes)


def test_without_homes_the_rest_of_the_mesh_is_unreachable_and_does_not_leak():
    """Not even an address that no member has leaves by the default route."""
    policy_ = mesh(leaf("a"), leaf("b"), topology=Topology.FULL)
    view = make(policy_, all_facts("a", "b")).views["a"]
    assert [(r.prefixes, r.via) for r in view.routes if r.via == ()] == [(("10.100.0.0/16",), ())]


# --- what holds for every world ------------------------------------------------------------------------


def _made(world: worlds.World, facts: dict[str, Facts] | None = None, register: Register | None = None):
    try:
        return make(world.mesh, world.facts if facts is None else facts, register)
    except PlanError:
        return None


@settings(max_examples=120, deadline=None)
@given(worlds.worlds())
def test_every_plan_stands_its_proof(world):
    """The proof shares no code with the planner: every pair connected, no loop, no packet refused."""
    made = _made(world)
    assume(made is not None)
    assert verify.check(made) == ()


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.data())
def test_the_order_of_the_facts_does_not_matter(world, data):
    """The same inputs give the same bytes."""
    made = _made(world)
    assume(made is not None)
    shuffled = {n: world.facts[n] for n in data.draw(st.permutations(sorted(world.facts)))}
    again = _made(world, shuffled)
    assert repr(again) == repr(made)


@settings(max_examples=60, deadline=None)
@given(worlds.worlds())
def test_planning_again_with_the_new_register_changes_nothing(world):
    made = _made(world)
    assume(made is not None)
    again = _made(world, register=made.register)
    assert repr(again) == repr(made)


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.data())
def test_views_survive_their_way_through_json(world, data):
    made = _made(world)
    assume(made is not None and made.views)
    view = made.views[data.draw(st.sampled_from(sorted(made.views)))]
    assert View.from_dict(json.loads(json.dumps(view.as_dict()))) == view


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.data())
def test_addresses_and_numbers_outlive_every_join_and_leave(world, data):
    """Whoever is there keeps what it has, whoever returns gets what it had."""
    register, seen = Register(), {}
    for _ in range(3):
        present = data.draw(st.sets(st.sampled_from(sorted(world.facts))))
        made = _made(world, {n: f for n, f in world.facts.items() if n in present}, register)
        if made is None:
            continue
        register = made.register
        for node, member in made.members.items():
            assert seen.setdefault(node, (member.addresses, register.numbers.get(node))) == (
                member.addresses,
                register.numbers.get(node),
            )
