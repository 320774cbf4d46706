"""The relay that a leaf takes first for each destination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.model.policy import NodeRule, Site, Topology
from saltext_wgmesh.core.planning.planner import NO_TROUBLE, plan_mesh
from saltext_wgmesh.core.planning.relay_choice import RelayChoice, _divide
from saltext_wgmesh.core.proof import packet_walk
from saltext_wgmesh.core.proof.symmetry import count_asymmetric
from tests.unit.harness.worlds import World, all_facts, leaf, mesh, relay, worlds


def planned(relays: int, leaves: int, health: Health = NO_TROUBLE, **more: object) -> Plan:
    """Return the plan of a mesh of so many nodes, all leaves behind NAT."""
    names = [f"r{i}" for i in range(relays)]
    rules = [relay(name, f"203.0.113.{i}") for i, name in enumerate(names, 1)]
    policy = mesh(*rules, leaf("*", nat=True), **more)
    return plan_mesh(policy, all_facts(*names, *(f"n{i:03}" for i in range(leaves))), Allocations(), health)


def first_relays(plan: Plan) -> Counter[str]:
    """Return relay → the number of pairs of leaves, counted in both directions, that use it first."""
    paths = packet_walk.all_paths(plan)
    leaves = [n for n, m in plan.members.items() if m.relays]
    return Counter(paths[a][b][1] for a in leaves for b in leaves if a != b)


@settings(max_examples=80, deadline=None)
@given(worlds())
def test_pair_of_one_pool_uses_one_relay(world: World):
    """If all leaves choose from the same two relays, each pair uses one relay, by both families."""
    policy = replace(world.mesh, sites={}, nodes=tuple(_at_no_site(rule) for rule in world.mesh.nodes))
    policy = replace(policy, nodes=tuple(r for r in policy.nodes if r.pattern not in ("r2", "r3", "r4", "r5")))
    try:
        plan = plan_mesh(policy, world.facts, Allocations())
    except PlanError:
        return
    for a, b in combinations([n for n, m in plan.members.items() if len(m.relays) == 2], 2):
        for there, back in zip(_relayed(plan, a, b), _relayed(plan, b, a), strict=True):
            assert there == back[::-1]
            assert len(there) <= 3


def _at_no_site(rule: NodeRule) -> NodeRule:
    return replace(rule, site=None)


def _relayed(plan: Plan, a: str, b: str) -> list[tuple[str, ...]]:
    """Return the paths from *a* to *b*, one for each family that both have."""
    families = {address_family(x) for x in plan.members[a].addresses}
    to = [x for x in plan.members[b].addresses if address_family(x) in families]
    return [packet_walk.walk(plan, a, x).hops for x in to]


def test_neighbours_without_link_use_one_relay():
    """Two neighbours share an area by IPv6 alone: while their link is down, both take the same relay for it."""
    site = Site(name="s", relays=("r0", "r1"), networks=(ip_network("fd00:64::1:0/112"),))
    rules = [relay(f"r{i}", f"203.0.113.{i + 1}") for i in range(3)]
    # A leaf elsewhere chooses from other relays, so the networks are no areas.
    policy = mesh(*rules, leaf("a*", "s"), leaf("b"), sites=(site,), network="10.100.0.0/16 fd00:64::/64")
    names = [f"a{i}" for i in range(10)]
    plan = plan_mesh(policy, all_facts("r0", "r1", "r2", "b", *names), Allocations())
    detour = {(a, r.via[0]): r.via[1] for a in names for r in plan.views[a].routes if r.via[0] in names}
    assert len(detour) == 10 * 9
    assert all(detour[a, b] == detour[b, a] for a, b in combinations(names, 2))
    assert {detour[pair] for pair in detour} == {"r0", "r1"}


def test_many_subnets_need_few_choices(monkeypatch):
    """Each leaf is a gateway: the relays are chosen for the groups of subnets, and not for each leaf and subnet."""
    calls = []
    order = RelayChoice.order
    monkeypatch.setattr(RelayChoice, "order", lambda *arguments: calls.append(1) or order(*arguments))
    gateways = [leaf(f"n{i:02}", nat=True, routes=(f"172.20.{i}.0/24",)) for i in range(60)]
    policy = mesh(relay("r0"), relay("r1", "203.0.113.2"), *gateways)
    plan = plan_mesh(policy, all_facts("r0", "r1", *(f"n{i:02}" for i in range(60))), Allocations())
    assert sum(len(route.prefixes) for route in plan.views["n07"].routes) == 4 + 59
    assert len(calls) < 20


def test_pair_within_a_block_uses_one_relay():
    """Two sites with blocks and two relays each: within a site one relay, between sites the first relays of both."""
    sites = tuple(
        Site(name=name, relays=pool, direct=False, networks=(ip_network(block),))
        for name, pool, block in (("s0", ("r0", "r1"), "10.100.8.0/24"), ("s1", ("r2", "r3"), "10.100.9.0/24"))
    )
    rules = [relay(f"r{i}", f"203.0.113.{i + 1}") for i in range(4)]
    policy = mesh(*rules, leaf("a*", "s0"), leaf("b*", "s1"), sites=sites)
    names = [*(f"a{i}" for i in range(12)), *(f"b{i}" for i in range(12))]
    plan = plan_mesh(policy, all_facts("r0", "r1", "r2", "r3", *names), Allocations())
    assert walked_relays(plan, names[:12]).keys() == {("r0",), ("r1",)}
    assert count_asymmetric(plan).asymmetric == 0
    assert count_asymmetric(plan).relayed == 24 * 23 / 2


def walked_relays(plan: Plan, names: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Return the relays on the way → the number of ordered pairs of *names* that use them."""
    paths = packet_walk.all_paths(plan)
    return Counter(paths[a][b][1:-1] for a in names for b in names if a != b)


@pytest.mark.parametrize(
    ("topology", "relays"), [(Topology.FULL, 2), (Topology.FULL, 4), (Topology.PARTIAL, 2), (Topology.PARTIAL, 4)]
)
def test_relays_carry_similar_numbers_of_pairs(relays, topology):
    """No relay carries more than twice its share."""
    found = first_relays(planned(relays, 60, topology=topology))
    assert len(found) == relays
    assert max(found.values()) < 2 * sum(found.values()) / relays


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(1, 65534), min_size=2, max_size=300), st.integers(2, 5))
def test_parts_hold_similar_numbers_of_addresses(offsets: set[int], number: int):
    """Each part but the first has between half and one and a half of its share, and is no host prefix."""
    network = ip_network("10.100.0.0/16")
    values = sorted(int(network[offset]) for offset in offsets)
    held = set[int]()
    for part in _divide(str(network), values, number):
        prefix = ip_network(part.prefix)
        assert prefix.subnet_of(network)
        assert prefix.prefixlen in range(17, 32)
        assert (part.first, part.last) == (int(prefix[0]), int(prefix[-1]))
        own = {v for v in values if ip_address(v) in prefix} - held
        held |= own
        assert len(values) / number / 2 <= len(own) <= len(values) / number * 3 / 2


def test_leaf_has_one_more_route_a_family():
    """Two relays need two parts: one is the network, and the other is the only prefix that is added."""
    plan = planned(2, 20)
    view = plan.views["n003"]
    prefixes = [p for route in view.routes for p in route.prefixes]
    hosts = [p for p in prefixes if p.endswith(("/32", "/128"))]
    assert len(prefixes) - len(hosts) == 2 * len(plan.networks)


def test_new_leaves_change_few_views():
    """The parts stay while the number of leaves grows by half: the leaves that were there keep their routes."""
    before, after = planned(2, 40), planned(2, 60)
    leaves = [n for n, m in before.members.items() if m.relays]
    assert all(before.views[n].routes == after.views[n].routes for n in leaves)


def test_trouble_of_one_link_concerns_one_leaf():
    """A leaf whose link to a relay is down sends by the other; no other leaf changes."""
    good = planned(2, 20)
    down = planned(2, 20, Health(down_links=frozenset({("n003", "r1")})))
    assert down.members["n003"].spread_relays == ()
    assert [n for n in good.members if n[0] == "n" and good.views[n] != down.views[n]] == ["n003"]


@pytest.mark.parametrize("trouble", ["down_nodes", "recovering"])
def test_relay_in_trouble_is_a_backup(trouble):
    """No leaf takes it first."""
    plan = planned(2, 20, replace(Health(), **{trouble: frozenset({"r1"})}))
    leaves = [n for n, m in plan.members.items() if m.relays]
    general = [route.via for n in leaves for route in plan.views[n].routes if "10.100.0.0/16" in route.prefixes]
    assert {via[0] for via in general} == {"r0"}


def test_mesh_of_more_relays_takes_them_in_order():
    """Leaves have two of three relays, each other two: no destination says which of them both ends have."""
    plan = planned(3, 20)
    leaves = [m for m in plan.members.values() if m.relays]
    assert all(m.spread_relays == () for m in leaves)
    assert count_asymmetric(plan).asymmetric > 0
