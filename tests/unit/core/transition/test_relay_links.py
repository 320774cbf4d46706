"""The relays that a leaf keeps while it gets other relays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.transition import state, step
from saltext_wgmesh.core.transition.evidence import Evidence
from saltext_wgmesh.core.transition.published_step import PublishedStep
from saltext_wgmesh.core.transition.state import NO_TRANSITION, Transition
from tests.unit.harness import worlds

NO_TROUBLE = Health()


def dead(node: str) -> Health:
    return Health(down_nodes=frozenset({node}))


def test_relay_that_may_loop_keeps_known_order() -> None:
    """The leaf was about to get r2 when the goal changed to r2 and r4. If r2, without a link to the leaf, sent by r4,
    then r4, which knows the earlier list, would send back to r2."""
    rules = [worlds.relay(f"r{n}", f"203.0.113.{n}") for n in range(1, 5)]
    world = worlds.mesh(*rules, worlds.leaf("a"))
    made = planner.plan_mesh(world, worlds.all_facts("r1", "r2", "r3", "r4", "a"), Allocations())

    def with_relays(*relays: str) -> Plan:
        return replace(made, members={**made.members, "a": replace(made.members["a"], relays=relays)})

    before, transition, goal = (
        with_relays("r2", "r3", "r1"),
        Transition(previous_relays={"a": ("r3", "r1")}),
        with_relays("r2", "r4"),
    )

    def next_list(*, runs: bool = True, hears: bool = True) -> tuple[str, ...]:
        evidence = Evidence(has_applied=lambda _: runs, link_up=lambda _: hears, link_carries=lambda _: True)
        published = PublishedStep(plan=before, transition=transition, health=NO_TROUBLE, evidence=evidence)
        kept = step.links_to_keep(published, goal).previous_relays["a"]
        return state.relays_in_order(goal.members["a"].relays, kept)

    assert next_list(runs=False, hears=False) == ("r4", "r2", "r3", "r1")
    assert next_list(hears=False) == ("r4", "r2", "r3", "r1")
    assert next_list(runs=False) == ("r2", "r4", "r3", "r1")


@pytest.mark.parametrize(
    ("before", "goal", "health", "expected"),
    [
        # The last relay of a list can't send back: a drain does not wait for a relay whose minion hangs.
        (("r1", "r2"), ("r2", "r1"), NO_TROUBLE, ("r2", "r1")),
        # A dead relay stays last, whichever step is in progress.
        (
            ("r2", "r3", "r1"),
            ("r3", "r2", "r1"),
            dead("r1"),
            ("r2", "r3", "r1"),
        ),
        # No node sends to a leaf that is down.
        (("r2", "r3"), ("r3", "r2", "r4"), dead("a"), ("r3", "r2", "r4")),
    ],
)
def test_relay_without_dependents_is_not_waited_for(before, goal, health, expected) -> None:
    """A step waits only for relays that could send a packet back."""
    rules = [worlds.relay(f"r{n}", f"203.0.113.{n}") for n in range(1, 5)]
    world = worlds.mesh(*rules, worlds.leaf("a"))
    made = planner.plan_mesh(world, worlds.all_facts("r1", "r2", "r3", "r4", "a"), Allocations())
    silent = {"r1"} if health == NO_TROUBLE else set(made.members)
    evidence = Evidence(has_applied=lambda n: n not in silent, link_up=lambda _: False, link_carries=lambda _: False)

    def with_relays(relays: tuple[str, ...]) -> Plan:
        return replace(made, members={**made.members, "a": replace(made.members["a"], relays=relays)})

    published = PublishedStep(plan=with_relays(before), transition=NO_TRANSITION, health=health, evidence=evidence)
    found = step.links_to_keep(published, with_relays(goal))
    assert state.relays_in_order(goal, found.previous_relays.get("a", ())) == expected
