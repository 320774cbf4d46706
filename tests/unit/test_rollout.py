"""From one plan to the next: whatever nodes have of it already, no packet that both plans deliver is lost."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise, product
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import plan as planner
from saltext_wgmesh.core import policy, rollout, verify
from saltext_wgmesh.core.errors import PlanError, PolicyError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.rollout import NOTHING, Crossing, Kept, Witness
from saltext_wgmesh.core.types import Facts, MeshPolicy, Place, Plan, Register, View
from tests.unit import oracle, worlds
from tests.unit.strategies import SITES, Fleet, fleets

CALM = Health()
PLACE = Place(listen_port=51820, endpoint=None, interface="wg0")
MOST_ACROSS = 14
"""The same for a node that goes from relay to leaf, or back: three links, each left idle, made anew and used again."""
ALL_IS_WELL = Witness(runs=lambda _: True, hears=lambda _: True, alive=lambda _: True)
MOST = 6
"""Plans from the old one to the new one, both counted: a subnet that moves has four between; one more would be one too
many."""


@dataclass(frozen=True, slots=True)
class Change:
    """A policy, with the relays that are drained, and the nodes' facts."""

    mesh: MeshPolicy
    drained: frozenset[str]
    facts: dict[str, Facts]

    def plan(self, register: Register, kept: Kept = NOTHING, silent: Iterable[str] = ()) -> Plan:
        """The next plan while nodes are *silent*."""
        health = Health(silent=frozenset(silent))
        return planner.make(self.mesh, self.facts, register, health, drained=self.drained, kept=kept)


def altered(draw: st.DrawFn, fleet: Fleet) -> Change:
    """Another policy of *fleet*, which may lack links of its own; another may be drained."""
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
    return Change(policy.parse(raw).meshes["wg0"], drained, fleet.facts)


@st.composite
def changes(draw):
    """A plan, and what makes the one of another policy, which lacks links of it."""
    fleet = draw(fleets(relays=4))
    try:
        change = altered(draw, fleet)
        before = planner.make(fleet.mesh, fleet.facts, Register())

        def make(kept: Kept) -> Plan:
            return change.plan(before.register, kept)

        after = make(NOTHING)
    except (PolicyError, PlanError):
        reject()
    if not rollout.keep(before, NOTHING, after, CALM, ALL_IS_WELL):
        reject()
    return before, make


@st.composite
def histories(draw):
    """A plan, and the changes that come after it."""
    fleet = draw(fleets(relays=4))
    try:
        before = planner.make(fleet.mesh, fleet.facts, Register())
        found = [altered(draw, fleet) for _ in range(draw(st.integers(2, 3)))]
        for change in found:
            change.plan(before.register)
    except (PolicyError, PlanError):
        reject()
    return before, found


@st.composite
def crossings(draw):
    """A plan with a relay on whom nobody depends, and what makes one in which it is a leaf; or the other way round. Two
    relays are left, at least."""
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
        other = Change(policy.parse(raw).meshes["wg0"], frozenset(), fleet.facts)
        first, second = draw(st.permutations([one, other]))
        before = first.plan(Register())

        def make(kept: Kept) -> Plan:
            return second.plan(before.register, kept)

        make(NOTHING)
    except (PolicyError, PlanError):
        reject()
    if any(name in (*m.homes, *m.idle) for m in before.members.values()):
        # Where leaves have all relays, they have this one too.
        reject()
    return before, make


def steps_of(before: Plan, make: Callable[[Kept], Plan], most: int = MOST) -> list[Plan]:
    """The plans from *before* to the new one, if every node takes up each."""
    steps, kept = [before], NOTHING
    while len(steps) <= most:
        kept, plan = rollout.step(steps[-1], kept, make(NOTHING), make, CALM, ALL_IS_WELL)
        steps.append(plan)
        if not kept:
            break
    return steps


def mixed(plans: dict[str, Plan], before: Plan) -> Plan:
    """Each node as its own plan has it; WireGuard keeps the endpoint that it had where a view names none."""
    some = next(iter(plans.values()))
    had = {
        (n, i.name, p.node): p.endpoint for n, view in before.views.items() for i in view.interfaces for p in i.peers
    }

    def view(node: str, plan: Plan) -> View:
        return replace(
            plan.views[node],
            interfaces=tuple(
                replace(
                    i, peers=tuple(replace(p, endpoint=p.endpoint or had.get((node, i.name, p.node))) for p in i.peers)
                )
                for i in plan.views[node].interfaces
            ),
        )

    return replace(
        some,
        members={node: plan.members[node] for node, plan in plans.items()},
        views={node: view(node, plan) for node, plan in plans.items()},
    )


End = tuple[str, str, str]
"""Node, neighbour, interface."""


def ends(plan: Plan) -> dict[End, bool]:
    """Those of all links that nodes have → whether it is a trunk's: that hears none of another sort."""
    listed = ((n, i, p) for n, view in plan.views.items() for i in view.interfaces for p in i.peers)
    return {(n, p.node, i.name): oracle.is_trunk(i) for n, i, p in listed}


def up(plan: Plan) -> set[End]:
    """The links that both ends have, each end by itself."""
    here = ends(plan)
    pairs = {(a, b, trunk) for (a, b, _), trunk in here.items()}
    return {(a, b, name) for (a, b, name), trunk in here.items() if (b, a, trunk) in pairs}


def unheard(plan: Plan, known: set[End]) -> frozenset[tuple[str, str]]:
    """The links, each as one end has it, that have no other end, and were not up before."""
    return frozenset((a, b) for a, b, _ in ends(plan).keys() - up(plan) - known)


def lost(plan: Plan, known: set[End], *whole: Plan) -> list[str]:
    """The packets that arrive in each of the *whole* plans, and not in *plan*, in which nodes run different ones.

    A new link of which one end knows nothing yet is not used by the other. Of one that was up, and so is *known*,
    nobody notices at once that its other end is gone.
    """
    down = unheard(plan, known)
    wanted = set(oracle.trips(whole[0])).intersection(*(oracle.trips(one) for one in whole[1:]))
    found = []
    for a, source, b, to in sorted(wanted):
        how, hops = oracle.walk(plan, a, source, to, down)
        if how != "delivered":
            found.append(f"{source} of {a} to {to} of {b}: {how} {hops}")
    return found


def cut_off(plan: Plan, known: set[End], *whole: Plan) -> list[str]:
    """The pairs of nodes that reach each other in each of the *whole* plans, and in *plan* at no address at all."""
    down = unheard(plan, known)
    wanted = set.intersection(*({(a, b) for a, _, b, _ in oracle.trips(one)} for one in whole))
    return [
        f"{a} to {b}"
        for a, b in sorted(wanted)
        if not any(
            oracle.walk(plan, a, source, to, down)[0] == "delivered"
            for source, to in product(plan.views[a].addresses, plan.views[b].addresses)
            if (":" in source) == (":" in to)
        )
    ]


def hearing(plan: Plan) -> Callable[[tuple[str, str]], bool]:
    """Whether the two of a pair have a link that both ends have."""
    pairs = {(a, b) for a, b, _ in up(plan)}
    return lambda pair: pair in pairs


def test_relays_that_do_not_deliver_yet_keep_the_order_that_nodes_know() -> None:
    """The leaf was about to get r2 when the goal changed to r2 and r4: if r2, not linked to it yet, sent by r4, then
    that, which knows the list of before, would send back to r2."""
    relays = [worlds.relay(f"r{n}", f"203.0.113.{n}") for n in range(1, 5)]
    world = worlds.mesh(*relays, worlds.leaf("a"))
    made = planner.make(world, worlds.all_facts("r1", "r2", "r3", "r4", "a"), Register())

    def with_homes(*homes: str) -> Plan:
        return replace(made, members={**made.members, "a": replace(made.members["a"], homes=homes)})

    before, kept, goal = with_homes("r2", "r3", "r1"), Kept(homes={"a": ("r3", "r1")}), with_homes("r2", "r4")

    def next_list(*, runs: bool = True, hears: bool = True) -> tuple[str, ...]:
        witness = Witness(runs=lambda _: runs, hears=lambda _: hears, alive=lambda _: True)
        return rollout.in_order(goal.members["a"].homes, rollout.keep(before, kept, goal, CALM, witness).homes["a"])

    assert next_list(runs=False, hears=False) == ("r4", "r2", "r3", "r1")
    assert next_list(hears=False) == ("r4", "r2", "r3", "r1")
    assert next_list(runs=False) == ("r2", "r4", "r3", "r1")


@pytest.mark.parametrize(
    ("now", "gone", "expected"),
    [
        # The relay that was left is used again as it is; the others that the goal has, too.
        (Crossing(place=PLACE, homes=("r2",), idle=("r3",), trunks=("r2", "r3")), "r2", ("r3", "r4")),
        (Crossing(place=PLACE, homes=("r2", "r3"), trunks=("r2",)), "r2", ("r3", "r4")),
        # Without two there is no other way: it is a leaf at once.
        (Crossing(place=PLACE, homes=("r2",), idle=("r3",), trunks=("r2", "r3")), "r4", None),
    ],
)
def test_a_node_that_crosses_and_loses_a_relay_uses_the_others(now, gone, expected) -> None:
    """Though some did not take up the last step."""
    relays = [worlds.relay(f"r{n}", f"203.0.113.{n}") for n in range(2, 5)]
    names = ("r2", "r3", "r4", "a")
    made = planner.make(worlds.mesh(*relays, worlds.leaf("a")), worlds.all_facts(*names), Register())
    homes = ("r3", "r4") if expected else ("r3",)
    goal = replace(made, members={**made.members, "a": replace(made.members["a"], homes=homes)})
    witness = Witness(runs=lambda _: False, hears=lambda _: True, alive=lambda _: False)
    found = rollout.crossing(made, Kept(crossing={"a": now}), goal, dead(gone), witness).get("a")
    assert (found and found.homes) == expected
    assert not found or not {gone} & {*found.homes, *found.idle, *found.trunks}


def dead(node: str) -> Health:
    return Health(down=frozenset({node}))


@pytest.mark.parametrize(
    ("before", "goal", "health", "expected"),
    [
        # Who has nobody behind it can't send back: a drain does not wait for a relay whose minion hangs.
        (("r1", "r2"), ("r2", "r1"), CALM, ("r2", "r1")),
        # A dead relay stays last, whatever is amid.
        (
            ("r2", "r3", "r1"),
            ("r3", "r2", "r1"),
            dead("r1"),
            ("r2", "r3", "r1"),
        ),
        # To a leaf that is down nobody sends.
        (("r2", "r3"), ("r3", "r2", "r4"), dead("a"), ("r3", "r2", "r4")),
    ],
)
def test_relays_that_nobody_depends_on_are_not_waited_for(before, goal, health, expected) -> None:
    relays = [worlds.relay(f"r{n}", f"203.0.113.{n}") for n in range(1, 5)]
    world = worlds.mesh(*relays, worlds.leaf("a"))
    made = planner.make(world, worlds.all_facts("r1", "r2", "r3", "r4", "a"), Register())
    silent = {"r1"} if health == CALM else set(made.members)
    witness = Witness(runs=lambda n: n not in silent, hears=lambda _: False, alive=lambda _: False)

    def with_homes(homes: tuple[str, ...]) -> Plan:
        return replace(made, members={**made.members, "a": replace(made.members["a"], homes=homes)})

    found = rollout.keep(with_homes(before), NOTHING, with_homes(goal), health, witness)
    assert rollout.in_order(goal, found.homes.get("a", ())) == expected


@given(changes(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_no_mixture_of_two_steps_in_a_row_loses_a_packet(change, random):
    """Nodes take up each step in any order; the last one is the new plan, with nothing of the old."""
    check_mixtures(change, random, MOST)


@given(crossings(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_neither_does_one_amid_which_a_relay_becomes_a_leaf_or_a_leaf_a_relay(change, random):
    """And each step holds its proof: else it would not be published."""
    for step in check_mixtures(change, random, MOST_ACROSS):
        assert verify.check(step) == ()


def check_mixtures(change: tuple[Plan, Callable[[Kept], Plan]], random: Random, most: int) -> list[Plan]:
    """The steps, after nodes took them up in any order."""
    before, make = change
    steps = steps_of(before, make, most)
    assert 2 < len(steps) <= most
    assert steps[-1].views == make(NOTHING).views
    for old, new in pairwise(steps):
        for _ in range(4):
            plan = mixed({node: random.choice((old, new)) for node in new.members}, before)
            assert lost(plan, up(old), before, steps[-1]) == []
            assert cut_off(plan, up(old), before, steps[-1]) == []
    return steps


@given(changes(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_no_interleaving_loses_a_packet_and_all_end_in_the_new_plan(change, random):
    """Whether the master looks, or nodes take up what is published, or skip it, or are away for long: in any order."""
    check_interleavings(change, random, MOST)


@given(crossings(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_neither_does_any_while_a_node_goes_from_relay_to_leaf_or_back(change, random):
    check_interleavings(change, random, MOST_ACROSS)


def check_interleavings(change: tuple[Plan, Callable[[Kept], Plan]], random: Random, most: int) -> None:
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
            live = hearing(mixed(applied, before))
            witness = Witness(runs=lambda n, now=published: applied[n] is now, hears=live, alive=live)
            kept, plan = rollout.step(published, kept, after, make, CALM, witness)
            published = plan if plan.views != published.views else published
        elif here := sorted(applied.keys() - away):
            applied[random.choice(here)] = published
        plan = mixed(applied, before)
        # Who has a link no more knows nothing of it when it comes again.
        known = (known | up(plan)) & ends(plan).keys()
        assert lost(plan, known, before, after) == []
        assert cut_off(plan, known, before, after) == []
    for _ in range(most):
        kept, published = rollout.step(published, kept, after, make, CALM, ALL_IS_WELL)
    assert published.views == after.views


@given(histories(), st.randoms(use_true_random=False))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    # To shrink one takes longer than to read it.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_changes_one_after_the_other_lose_nothing_though_nodes_miss_some_of_them(history, random):
    """At each, other nodes are away, and go on by what they hold; the master looks when it likes. At the end all are
    back."""
    before, found = history
    applied = dict.fromkeys(before.members, before)
    published, kept, whole, shown = before, NOTHING, [before], before

    def look(change: Change, away: set[str]) -> None:
        nonlocal published, kept
        live = hearing(mixed(applied, before))
        witness = Witness(runs=lambda n: applied[n] is published, hears=live, alive=live)
        register, health = published.register, Health(silent=frozenset(away))

        def make(step: Kept) -> Plan:
            return change.plan(register, step, away)

        goal = make(NOTHING)
        whole.append(goal)
        kept, plan = rollout.step(published, kept, goal, make, health, witness)
        published = plan if plan.views != published.views else published

    for change in found:
        away = set(random.sample(sorted(applied), random.randrange(len(applied))))
        for _ in range(MOST):
            look(change, away)
            here = sorted(applied.keys() - away)
            random.shuffle(here)
            for node in here:
                applied[node] = published
                # Who runs a plan has noticed what became of its links before the next one runs another.
                known, shown = up(shown), mixed(applied, before)
                assert lost(shown, known, *whole) == []
                assert cut_off(shown, known, *whole) == []
                if random.random() < 0.1:
                    look(change, away)
    for _ in range(MOST):
        look(found[-1], set())
        applied = dict.fromkeys(applied, published)
    assert published.views == found[-1].plan(published.register).views
