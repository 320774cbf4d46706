"""A mesh or a node that is renumbered: no pair of nodes is cut off at any step, and nothing former is left."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import HealthCheck, Phase, assume, given, reject, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PlanError, PolicyError
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof import prove
from saltext_wgmesh.core.transition import step
from saltext_wgmesh.core.transition.state import NO_TRANSITION, Transition
from tests.unit.harness.mixtures import disconnected_pairs, ends_up, everywhere, lost_packets, mixed
from tests.unit.harness.renumbering import renumbered, unheard
from tests.unit.harness.strategies import Fleet, fleets

MAX_STEPS = 14
"""Gateways move in four steps while addresses move in three. A chain of nodes that take over addresses adds steps."""
EXCHANGE = "waits for it in turn"

Published = tuple[Plan, Transition]


@st.composite
def policies(draw: st.DrawFn) -> tuple[Fleet, list[MeshPolicy]]:
    """Draw a fleet and three policies of it, each valid by itself."""
    fleet = draw(fleets(relays=3, leaves=3))
    try:
        found = [policy.parse_policy(renumbered(draw, fleet)).meshes["wg0"] for _ in range(3)]
        for mesh in found:
            planner.plan_mesh(mesh, fleet.facts, Allocations())
    except (PolicyError, PlanError):
        reject()
    return fleet, found


def next_step(fleet: Fleet, mesh: MeshPolicy, published: Published) -> Published:
    """Return what is published next, after all nodes have applied what is published. Its proof holds."""
    plan, transition = published

    def make(some: Transition) -> Plan:
        return planner.plan_mesh(mesh, fleet.facts, plan.allocations, transition=some)

    found, after = step.next_transition(everywhere(plan, transition), make(NO_TRANSITION), make)
    assert prove.prove(after) == ()
    return after, found


def check_mixtures(old: Plan, new: Plan, first: Plan, random: Random) -> None:
    """Check that nodes which apply *new* in any order stay connected, and hear each other."""
    common = old.members.keys() & new.members.keys()
    assume(common == old.members.keys() == new.members.keys())
    if not common:
        # All nodes lack IPv6, and the mesh has no IPv4.
        return
    for _ in range(3):
        plan = mixed({node: random.choice((old, new)) for node in new.members}, first)
        known = ends_up(old)
        assert disconnected_pairs(plan, known, old, new) == []
        assert lost_packets(plan, known, old, new) == []
        assert list(unheard(plan)) == []


@given(policies(), st.randoms(use_true_random=False))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_any_policy_follows_another_in_steps(drawn, random):
    """The second policy is changed at any step to the third one, or back to the first. Each step is proved."""
    fleet, (first, second, third) = drawn
    published = planner.plan_mesh(first, fleet.facts, Allocations()), NO_TRANSITION
    seen = [published[0]]
    changes = [(second, random.randrange(4)), (random.choice([first, third]), MAX_STEPS)]
    try:
        for mesh, steps in changes:
            for _ in range(steps):
                published = next_step(fleet, mesh, published)
                seen.append(published[0])
                if not published[1]:
                    break
    except PlanError as error:
        # Explicit addresses of other nodes: the policy alone does not tell.
        if not all(EXCHANGE in p.message or "belongs to node" in p.message for p in error.problems):
            raise
        return
    plan, transition = published
    assert transition == NO_TRANSITION
    assert plan.networks == tuple(str(n) for n in changes[-1][0].networks)
    assert all(len(m.addresses) <= len(plan.networks) for m in plan.members.values())
    for old, new in pairwise(seen):
        check_mixtures(old, new, seen[0], random)
