"""The steps from one plan to the next: no packet that both plans deliver is lost, whichever nodes have applied them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PlanError, PolicyError
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof import prove
from saltext_wgmesh.core.transition import step
from saltext_wgmesh.core.transition.evidence import Evidence
from saltext_wgmesh.core.transition.published_step import PublishedStep
from saltext_wgmesh.core.transition.state import NO_TRANSITION, Transition
from tests.unit.harness.mixtures import disconnected_pairs, ends, ends_up, everywhere, links_up, lost_packets, mixed
from tests.unit.harness.strategies import SITES, Fleet, fleets

NO_TROUBLE = Health()
MAX_ROLE_CHANGE_PLANS = 14
"""The same for a node that changes its role: three links, each of them drained, created again and used again."""
MAX_PLANS = 6
"""The number of plans from the old one to the new one, both counted: a subnet that moves has four in between."""


@dataclass(frozen=True, slots=True)
class Change:
    """A policy, with the relays that are drained, and the nodes' facts."""

    mesh: MeshPolicy
    drained: frozenset[str]
    facts: dict[str, Facts]

    def plan(
        self, allocations: Allocations, transition: Transition = NO_TRANSITION, unresponsive: Iterable[str] = ()
    ) -> Plan:
        """The next plan while the nodes *unresponsive* do not answer."""
        health = Health(unresponsive=frozenset(unresponsive))
        return planner.plan_mesh(
            self.mesh, self.facts, allocations, health, drained=self.drained, transition=transition
        )


def altered(draw: st.DrawFn, fleet: Fleet) -> Change:
    """Another policy of *fleet*, perhaps with fewer links and with drained relays."""
    raw = copy.deepcopy(fleet.raw)
    mesh = raw["wg0"]
    relays = [n for n, rule in mesh["nodes"].items() if rule.get("role") == "relay"]
    drained = frozenset(draw(st.lists(st.sampled_from(relays), max_size=2))) if relays else frozenset()
    for site in SITES:
        if relays and draw(st.booleans()):
            mesh["sites"][site]["relays"] = draw(st.lists(st.sampled_from(relays), unique=True))
        mesh["sites"][site]["direct"] = draw(st.booleans())
    for number, (name, rule) in enumerate(mesh["nodes"].items(), 1):
        if name not in relays and draw(st.booleans()):
            rule["site"] = draw(st.sampled_from(SITES))
        if mesh["network"][0].startswith("10.") and draw(st.integers(0, 3)) == 3:
            rule["address"] = f"10.100.{draw(st.sampled_from([200, 220]))}.{number}"
    mesh["topology"] = draw(st.sampled_from([mesh["topology"], "partial", "hub"]))
    if draw(st.booleans()):
        mesh["links"] = []
    return Change(policy.parse_policy(raw).meshes["wg0"], drained, fleet.facts)


@st.composite
def changes(draw):
    """A plan, and a function that makes the plan of another policy, which lacks some links of the first plan."""
    fleet = draw(fleets(relays=4))
    try:
        change = altered(draw, fleet)
        before = planner.plan_mesh(fleet.mesh, fleet.facts, Allocations())

        def make(transition: Transition) -> Plan:
            return change.plan(before.allocations, transition)

        after = make(NO_TRANSITION)
    except (PolicyError, PlanError):
        reject()
    if not step.links_to_keep(everywhere(before), after):
        reject()
    return before, make


@st.composite
def histories(draw):
    """A plan, and the changes that follow."""
    fleet = draw(fleets(relays=4))
    try:
        before = planner.plan_mesh(fleet.mesh, fleet.facts, Allocations())
        found = [altered(draw, fleet) for _ in range(draw(st.integers(2, 3)))]
        for change in found:
            change.plan(before.allocations)
    except (PolicyError, PlanError):
        reject()
    return before, found


@st.composite
def role_change_plans(draw):
    """A plan with a relay that no leaf uses, and a function that makes a plan in which it is a leaf; or the reverse.

    At least two other relays remain.
    """
    fleet = draw(fleets(relays=4))
    nodes = fleet.raw["wg0"]["nodes"]
    relays = [name for name, rule in nodes.items() if rule.get("role") == "relay"]
    if len(relays) < 3:
        reject()
    name = draw(st.sampled_from(relays))
    raw = copy.deepcopy(fleet.raw)
    mesh = raw["wg0"]
    rule = mesh["nodes"][name]
    del rule["role"]
    if draw(st.booleans()):
        del rule["endpoint"]
        if draw(st.booleans()):
            rule["nat"] = True
    for site in mesh["sites"].values():
        site["relays"] = [r for r in site["relays"] if r != name]
    mesh["links"] = [pair for pair in mesh["links"] if name not in pair]
    try:
        one = Change(fleet.mesh, frozenset({name}), fleet.facts)
        other = Change(policy.parse_policy(raw).meshes["wg0"], frozenset(), fleet.facts)
        first, second = draw(st.permutations([one, other]))
        before = first.plan(Allocations())

        def make(transition: Transition) -> Plan:
            return second.plan(before.allocations, transition)

        make(NO_TRANSITION)
    except (PolicyError, PlanError):
        reject()
    if any(name in (*m.relays, *m.unrouted_relays) for m in before.members.values()):
        # Where leaves have all relays, they have this one too.
        reject()
    return before, make


def steps_of(before: Plan, make: Callable[[Transition], Plan], most: int = MAX_PLANS) -> list[Plan]:
    """The plans from *before* to the new one, if every node applies each."""
    steps, transition = [before], NO_TRANSITION
    while len(steps) <= most:
        transition, plan = step.next_transition(everywhere(steps[-1], transition), make(NO_TRANSITION), make)
        steps.append(plan)
        if not transition:
            break
    return steps


@given(changes(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_mixture_of_two_steps_loses_no_packet(change, random):
    """Nodes apply each step in any order; the last step is the new plan, without a trace of the old plan."""
    check_mixtures(change, random, MAX_PLANS)


@given(role_change_plans(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_mixture_while_role_changes_loses_no_packet(change, random):
    """A relay becomes a leaf, or a leaf a relay. Each step holds its proof: otherwise it would not be published."""
    for mixture in check_mixtures(change, random, MAX_ROLE_CHANGE_PLANS):
        assert prove.prove(mixture) == ()


def check_mixtures(change: tuple[Plan, Callable[[Transition], Plan]], random: Random, most: int) -> list[Plan]:
    """Check mixtures of each two steps in a row, and return the steps."""
    before, make = change
    steps = steps_of(before, make, most)
    assert 2 < len(steps) <= most
    assert steps[-1].views == make(NO_TRANSITION).views
    for old, new in pairwise(steps):
        for _ in range(4):
            plan = mixed({node: random.choice((old, new)) for node in new.members}, before)
            assert lost_packets(plan, ends_up(old), before, steps[-1]) == []
            assert disconnected_pairs(plan, ends_up(old), before, steps[-1]) == []
    return steps


@given(changes(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_interleaving_loses_no_packet_and_ends(change, random):
    """The master converges, and nodes apply what is published, skip it, or are away for long, in any order."""
    check_interleavings(change, random, MAX_PLANS)


@given(role_change_plans(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_interleaving_while_role_changes_loses_no_packet(change, random):
    """The same while a relay becomes a leaf, or a leaf a relay."""
    check_interleavings(change, random, MAX_ROLE_CHANGE_PLANS)


def check_interleavings(change: tuple[Plan, Callable[[Transition], Plan]], random: Random, most: int) -> None:
    before, make = change
    after = make(NO_TRANSITION)
    applied = dict.fromkeys(before.members, before)
    published, transition = before, NO_TRANSITION
    known = ends_up(before)
    away = set(random.sample(sorted(applied), random.randrange(len(applied))))
    for moment in range(60):
        if moment == 40:
            away = set()
        if random.random() < 0.3:
            live = links_up(mixed(applied, before))
            evidence = Evidence(has_applied=lambda n, now=published: applied[n] is now, link_up=live, link_carries=live)
            now = PublishedStep(plan=published, transition=transition, health=NO_TROUBLE, evidence=evidence)
            transition, plan = step.next_transition(now, after, make)
            published = plan if plan.views != published.views else published
        elif here := sorted(applied.keys() - away):
            applied[random.choice(here)] = published
        plan = mixed(applied, before)
        # A node forgets a link that it no longer has, and treats it as new when it returns.
        known = (known | ends_up(plan)) & ends(plan).keys()
        assert lost_packets(plan, known, before, after) == []
        assert disconnected_pairs(plan, known, before, after) == []
    for _ in range(most):
        transition, published = step.next_transition(everywhere(published, transition), after, make)
    assert published.views == after.views


@given(histories(), st.randoms(use_true_random=False))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    # To shrink one takes longer than to read it.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_changes_in_a_row_lose_no_packet(history, random):
    """At each change other nodes are away, and forward by the views that they hold; the master converges at any time.
    At the end all nodes are back."""
    before, found = history
    applied = dict.fromkeys(before.members, before)
    published, transition, whole, shown = before, NO_TRANSITION, [before], before

    def look(change: Change, away: set[str]) -> None:
        nonlocal published, transition
        live = links_up(mixed(applied, before))
        evidence = Evidence(has_applied=lambda n: applied[n] is published, link_up=live, link_carries=live)
        allocations, health = published.allocations, Health(unresponsive=frozenset(away))

        def make(step: Transition) -> Plan:
            return change.plan(allocations, step, away)

        goal = make(NO_TRANSITION)
        whole.append(goal)
        now = PublishedStep(plan=published, transition=transition, health=health, evidence=evidence)
        transition, plan = step.next_transition(now, goal, make)
        published = plan if plan.views != published.views else published

    for change in found:
        away = set(random.sample(sorted(applied), random.randrange(len(applied))))
        for _ in range(MAX_PLANS):
            look(change, away)
            here = sorted(applied.keys() - away)
            random.shuffle(here)
            for node in here:
                applied[node] = published
                # A node has noticed which links are down before the next node applies another plan.
                known, shown = ends_up(shown), mixed(applied, before)
                assert lost_packets(shown, known, *whole) == []
                assert disconnected_pairs(shown, known, *whole) == []
                if random.random() < 0.1:
                    look(change, away)
    for _ in range(MAX_PLANS):
        look(found[-1], set())
        applied = dict.fromkeys(applied, published)
    assert published.views == found[-1].plan(published.allocations).views
