"""One mistake at one node of a mesh in which most nodes are alike: what the proof does not repeat, it must not miss."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import plan as planner
from saltext_wgmesh.core import policy, verify
from saltext_wgmesh.core.types import Kind, Plan, Register, Route
from tests.unit import mutants
from tests.unit.strategies import facts_of

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
    """Three sites with two relays each, 150 leaves behind NAT, ten linked directly, and gateways among all."""
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
    return planner.make(policy.parse(raw).meshes["wg0"], facts, Register())


def test_fleet_holds() -> None:
    """The plan that the mutants are made from is proven, and has what they look for."""
    plan = fleet()
    assert verify.check(plan) == ()
    assert {link.kind for link in plan.links} == {Kind.ACCESS, Kind.UPLINK, Kind.TRUNK}
    assert len(plan.members) == LEAVES + 2 * SITES


@pytest.mark.parametrize("mutant", mutants.CERTAIN, ids=lambda m: m.__name__)
@EACH
@given(data=st.data())
def test_one_mistake_is_caught(mutant: mutants.Mutant, data: st.DataObject) -> None:
    """Any single view that is wrong spoils the proof, however many are like it."""
    assert verify.check(mutant(fleet(), data.draw)) != ()


@pytest.mark.parametrize("name", ["n001", "n077", "n148"])
def test_each_leaf_is_looked_at(name: str) -> None:
    """Whichever leaf has a next hop less than those like it, it is named."""
    plan = fleet()
    view = plan.views[name]
    route = next(r for r in view.routes if "10.100.0.0/16" in r.prefixes)
    broken = mutants.with_route(plan, view, route, replace(route, via=route.via[:1]))
    assert {p.where for p in verify.check(broken)} == {f"node {name}"}


@pytest.mark.parametrize(("relay", "leaf"), [("r1", "n001"), ("r4", "n077"), ("r6", "n148")])
def test_each_relay_is_looked_at_for_each_leaf(relay: str, leaf: str) -> None:
    """Whichever relay makes one exception for one leaf, relay and leaf are named."""
    plan = fleet()
    address = f"{plan.members[leaf].addresses[0]}/32"
    view = plan.views[relay]
    routes = [replace(r, prefixes=tuple(p for p in r.prefixes if p != address)) for r in view.routes]
    routes.append(Route(prefixes=(address,), via=(), from_trunk=()))
    broken = mutants.with_view(plan, replace(view, routes=tuple(r for r in routes if r.prefixes)))
    assert [p for p in verify.check(broken) if p.where == f"node {relay}" and f"{address} of {leaf}" in p.what]


def test_many_of_one_kind_are_counted() -> None:
    """A mistake at every leaf is told by some examples and the number."""
    plan = fleet()
    views = {n: v if plan.members[n].is_relay else replace(v, mesh="wg9") for n, v in plan.views.items()}
    found = verify.check(replace(plan, views=views))
    assert len(found) == 6
    assert "views with a wrong mesh: 150 in all, 5 shown" in {p.what for p in found}


def test_the_proof_depends_on_nothing_but_the_plan() -> None:
    """A plan that went through its own text, so that no two views share an object, is judged the same."""
    plan = fleet()
    view_type = type(next(iter(plan.views.values())))
    copied = replace(plan, views={n: view_type.from_dict(v.as_dict()) for n, v in plan.views.items()})
    assert verify.check(copied) == ()
    broken = mutants.with_view(copied, replace(copied.views["n077"], forward=True))
    assert [p.where for p in verify.check(broken)] == ["node n077"]
