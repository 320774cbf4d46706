"""The proof counts the pairs of leaves that use other relays in each direction, and the planner makes few of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings

from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.core.planning import relay_choice
from saltext_wgmesh.core.planning.planner import plan_mesh
from saltext_wgmesh.core.proof import packet_walk
from saltext_wgmesh.core.proof.symmetry import Symmetry, count_asymmetric
from tests.unit.harness.worlds import World, all_facts, leaf, mesh, relay, worlds


def relays_named(number: int) -> list[str]:
    """Return the names of so many relays."""
    return [f"r{i}" for i in range(number)]


def small_mesh(relays: int, leaves: int, **more: object) -> tuple[MeshPolicy, dict]:
    """Return the README's small policy with other numbers, and the facts of its nodes."""
    names = relays_named(relays)
    rules = [relay(name, f"203.0.113.{i}") for i, name in enumerate(names, 1)]
    return mesh(*rules, leaf("*"), **more), all_facts(*names, *(f"n{i:02}" for i in range(leaves)))


def walked(plan: Plan) -> tuple[int, int]:
    """Return the relayed and the asymmetric pairs of leaves, by a walk of each pair in both directions."""
    paths = packet_walk.all_paths(plan)
    pairs = [
        (paths[a][b], paths[b][a])
        for a, b in combinations([n for n, m in plan.members.items() if m.relays], 2)
        if b in paths[a] and len(paths[a][b]) > 2 and len(paths[b][a]) > 2
    ]
    return len(pairs), sum(there != back[::-1] for there, back in pairs)


def test_leaves_of_two_relays_are_symmetric():
    """The README's small policy: of 45 pairs 25 used another relay for their answers."""
    plan = plan_mesh(*small_mesh(2, 10), Allocations())
    assert count_asymmetric(plan) == Symmetry(relayed=45, asymmetric=0, example=None)
    assert walked(plan) == (45, 0)


def test_relays_in_order_are_counted_with_example(monkeypatch):
    """Half of the leaves send by one relay and half by the other: such pairs are counted right."""
    monkeypatch.setattr(relay_choice, "spread_relays", lambda *_args: {})
    plan = plan_mesh(*small_mesh(2, 10), Allocations())
    found = count_asymmetric(plan)
    assert (found.relayed, found.asymmetric) == walked(plan) == (45, 25)
    assert found.describe().startswith("25 of 45 relayed pairs use other relays in each direction: n")


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_count_agrees_with_walks(world: World):
    """Any mesh: the count by classes equals the count by a walk of each pair."""
    plan = plan_mesh_or_none(world)
    if plan is not None:
        found = count_asymmetric(plan)
        assert (found.relayed, found.asymmetric) == walked(plan)
        assert bool(found.describe()) == bool(found.asymmetric)


def plan_mesh_or_none(world: World) -> Plan | None:
    """Return the plan of *world*, with one family; None if it has none."""
    try:
        return plan_mesh(replace(world.mesh, networks=world.mesh.networks[:1]), world.facts, Allocations())
    except PlanError:
        return None
