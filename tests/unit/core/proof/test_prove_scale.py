"""One mistake at one node of a mesh in which most nodes are alike: the proof must not miss it by its shortcuts."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.model.view import Kind, Route
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof.prove import prove
from tests.unit.harness import mutants
from tests.unit.harness.strategies import facts_of

SITES = 3
LEAVES = 150
EACH = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@cache
def fleet() -> Plan:
    """Return three sites with two relays each and 150 leaves behind NAT, some linked directly, some gateways."""
    relays = {
        f"r{i}": {"role": "relay", "site": f"s{i % SITES}", "endpoint": f"198.51.100.{i}"}
        for i in range(1, 2 * SITES + 1)
    }
    nodes = dict(relays)
    for i in range(LEAVES):
        nodes[f"n{i:03}"] = {"site": f"s{i % SITES}", "nat": True}
    for i in range(0, LEAVES, 10):
        nodes[f"n{i:03}"]["routes"] = [f"192.168.{i}.0/24"]
    for i in range(5, LEAVES, 15):
        nodes[f"n{i:03}"] = {"site": "s0"}
    nodes["r2"] = {**nodes["r2"], "routes": ["192.168.201.0/24", "192.168.0.0/24"]}
    sites = {f"s{i}": {"relays": [r for r, n in relays.items() if n["site"] == f"s{i}"]} for i in range(SITES)}
    sites["s1"]["network"] = ["10.100.64.0/18"]
    raw = {"wg0": {"network": ["10.100.0.0/16", "fd00:64::/64"], "sites": sites, "nodes": nodes}}
    facts = {
        name: facts_of(name, f"172.16.{i // 250}.{i % 250 + 1}", ipv6=i % 7 != 0) for i, name in enumerate(nodes, 1)
    }
    facts |= {r: replace(facts[r], ipv6=True) for r in relays}
    return planner.plan_mesh(policy.parse_policy(raw).meshes["wg0"], facts, Allocations())


def test_prove_fleet_holds() -> None:
    """The plan that the mutants are made from is proven, and has links of each kind."""
    plan = fleet()
    assert prove(plan) == ()
    assert {link.kind for link in plan.links} == {Kind.ACCESS, Kind.UPLINK, Kind.TRUNK}
    assert len(plan.members) == LEAVES + 2 * SITES


@pytest.mark.parametrize("mutant", mutants.CERTAIN, ids=lambda m: m.__name__)
@EACH
@given(data=st.data())
def test_prove_one_mistake_in_fleet_fails(mutant: mutants.Mutant, data: st.DataObject) -> None:
    """Any single wrong view fails the proof, however many views are like it."""
    assert prove(mutant(fleet(), data.draw)) != ()


@pytest.mark.parametrize("name", ["n001", "n077", "n148"])
def test_prove_leaf_without_next_hop_is_named(name: str) -> None:
    """A leaf with one next hop less than the leaves like it is named."""
    plan = fleet()
    view = plan.views[name]
    route = next(r for r in view.routes if "10.100.0.0/16" in r.prefixes)
    broken = mutants.with_route(plan, view, route, replace(route, via=route.via[:1]))
    assert {p.path for p in prove(broken)} == {f"node {name}"}


@pytest.mark.parametrize(("relay", "leaf"), [("r1", "n001"), ("r4", "n077"), ("r6", "n148")])
def test_prove_relay_exception_names_relay_and_leaf(relay: str, leaf: str) -> None:
    """A relay with an exception for one leaf is named, with the leaf."""
    plan = fleet()
    address = f"{plan.members[leaf].addresses[0]}/32"
    view = plan.views[relay]
    routes = [replace(r, prefixes=tuple(p for p in r.prefixes if p != address)) for r in view.routes]
    routes.append(Route(prefixes=(address,), via=(), from_trunk=()))
    broken = mutants.with_view(plan, replace(view, routes=tuple(r for r in routes if r.prefixes)))
    assert [p for p in prove(broken) if p.path == f"node {relay}" and f"{address} of {leaf}" in p.message]


def test_prove_repeated_mistake_is_counted() -> None:
    """A mistake at every leaf is reported by some examples and the number."""
    plan = fleet()
    views = {n: v if plan.members[n].is_relay else replace(v, mesh="wg9") for n, v in plan.views.items()}
    found = prove(replace(plan, views=views))
    assert len(found) == 6
    assert "views with a wrong mesh: 150 in all, 5 shown" in {p.message for p in found}


def test_prove_copied_views_same_result() -> None:
    """A plan whose views went through their dict form, so that no two share an object, has the same result."""
    plan = fleet()
    view_type = type(next(iter(plan.views.values())))
    copied = replace(plan, views={n: view_type.from_dict(v.as_dict()) for n, v in plan.views.items()})
    assert prove(copied) == ()
    broken = mutants.with_view(copied, replace(copied.views["n077"], forward=True))
    assert [p.path for p in prove(broken)] == ["node n077"]
