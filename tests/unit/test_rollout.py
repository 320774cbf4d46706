"""From one plan to the next: whatever nodes have of it already, no packet that both plans deliver is lost."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import plan as planner
from saltext_wgmesh.core import policy, rollout
from saltext_wgmesh.core.errors import PlanError, PolicyError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.rollout import NOTHING, Kept, Witness
from saltext_wgmesh.core.types import Plan, Register, View
from tests.unit import oracle
from tests.unit.strategies import SITES, fleets

CALM = Health()
ALL_IS_WELL = Witness(runs=lambda _: True, hears=lambda _: True, alive=lambda _: True)
MOST = 6
"""Plans from the old one to the new one, both counted: a subnet that moves has four between; one more would be one too
many."""


@st.composite
def changes(draw):
    """A plan, and what makes the one of another policy, which lacks links of it."""
    fleet = draw(fleets(relays=4))
    raw = copy.deepcopy(fleet.raw)
    mesh = raw["wg0"]
    relays = [n for n, rule in mesh["nodes"].items() if rule.get("role") == "relay"]
    drained = frozenset(draw(st.lists(st.sampled_from(relays), max_size=2))) if relays else frozenset()
    for site in SITES:
        if relays and draw(st.booleans()):
            mesh["sites"][site]["relays"] = draw(st.lists(st.sampled_from(relays), unique=True))
        mesh["sites"][site]["direct"] = draw(st.booleans())
    for name, rule in mesh["nodes"].items():
        if name not in relays and draw(st.booleans()):
            rule["site"] = draw(st.sampled_from(SITES))
    mesh["topology"] = draw(st.sampled_from([mesh["topology"], "partial", "hub"]))
    if draw(st.booleans()):
        mesh["links"] = []
    try:
        second = policy.parse(raw).meshes["wg0"]
        before = planner.make(fleet.mesh, fleet.facts, Register())

        def make(kept: Kept) -> Plan:
            return planner.make(second, fleet.facts, before.register, drained=drained, kept=kept)

        after = make(NOTHING)
    except (PolicyError, PlanError):
        reject()
    if not rollout.keep(before, NOTHING, after, CALM, ALL_IS_WELL):
        reject()
    return before, make


def steps_of(before: Plan, make: Callable[[Kept], Plan]) -> list[Plan]:
    """The plans from *before* to the new one, if every node takes up each."""
    steps, kept = [before], NOTHING
    while len(steps) <= MOST:
        kept = rollout.keep(steps[-1], kept, make(NOTHING), CALM, ALL_IS_WELL)
        steps.append(make(kept))
        if not kept:
            break
    return steps


def mixed(plans: dict[str, Plan], before: Plan) -> Plan:
    """Each node as its own plan has it; WireGuard keeps the endpoint that it had where a view names none."""
    some = next(iter(plans.values()))
    had = {(n, p.node): p.endpoint for n, view in before.views.items() for i in view.interfaces for p in i.peers}

    def view(node: str, plan: Plan) -> View:
        return replace(
            plan.views[node],
            interfaces=tuple(
                replace(i, peers=tuple(replace(p, endpoint=p.endpoint or had.get((node, p.node))) for p in i.peers))
                for i in plan.views[node].interfaces
            ),
        )

    return replace(
        some,
        members={node: plan.members[node] for node, plan in plans.items()},
        views={node: view(node, plan) for node, plan in plans.items()},
    )


def ends(plan: Plan) -> set[tuple[str, str]]:
    """(Node, neighbour) of all links that nodes have."""
    return {(n, p.node) for n, view in plan.views.items() for i in view.interfaces for p in i.peers}


def lost(plan: Plan, known: set[frozenset[str]], *whole: Plan) -> list[str]:
    """The packets that arrive in each of the *whole* plans, and not in *plan*, in which nodes run different ones.

    A new link of which one end knows nothing yet is not used by the other. Of one that was up, and so is *known*,
    nobody notices at once that its other end is gone.
    """
    here = ends(plan)
    down = frozenset({frozenset(pair) for pair in here if pair[::-1] not in here} - known)
    wanted = set(oracle.trips(whole[0])).intersection(*(oracle.trips(one) for one in whole[1:]))
    found = []
    for a, source, b, to in sorted(wanted):
        how, hops = oracle.walk(plan, a, source, to, down)
        if how != "delivered":
            found.append(f"{source} of {a} to {to} of {b}: {how} {hops}")
    return found


def up(plan: Plan) -> set[frozenset[str]]:
    """The links that both ends have."""
    here = ends(plan)
    return {frozenset(pair) for pair in here if pair[::-1] in here}


@given(changes(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_no_mixture_of_two_steps_in_a_row_loses_a_packet(change, random):
    """Nodes take up each step in any order; the last one is the new plan, with nothing of the old."""
    before, make = change
    steps = steps_of(before, make)
    assert 2 < len(steps) <= MOST
    assert steps[-1].views == make(NOTHING).views
    for old, new in pairwise(steps):
        for _ in range(4):
            plan = mixed({node: random.choice((old, new)) for node in new.members}, before)
            assert lost(plan, up(old), before, steps[-1]) == []


@given(changes(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_no_interleaving_loses_a_packet_and_all_end_in_the_new_plan(change, random):
    """Whether the master looks, or nodes take up what is published, or skip it, or are away for long: in any order."""
    before, make = change
    after = make(NOTHING)
    applied = dict.fromkeys(before.members, before)
    published, kept = before, NOTHING
    known = up(before)
    away = set(random.sample(sorted(applied), random.randrange(len(applied))))
    for moment in range(60):
        if moment == 40:
            away = set()
        if random.random() < 0.3:
            witness = Witness(
                runs=lambda n, now=published: applied[n] is now,
                hears=lambda p: set(p) in up(mixed(applied, before)),
                alive=lambda p: set(p) in up(mixed(applied, before)),
            )
            kept = rollout.keep(published, kept, after, CALM, witness)
            plan = make(kept)
            published = plan if plan.views != published.views else published
        elif here := sorted(applied.keys() - away):
            applied[random.choice(here)] = published
        plan = mixed(applied, before)
        known |= up(plan)
        assert lost(plan, known, before, after) == []
    for _ in range(MOST):
        kept = rollout.keep(published, kept, after, CALM, ALL_IS_WELL)
        published = make(kept)
    assert published.views == after.views
