"""What is too much to be dropped without a word: measured on policy and facts alone."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import plan as planner
from saltext_wgmesh.core import prune
from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.prune import Loss, Outline
from saltext_wgmesh.core.types import Kind, Register
from tests.unit.strategies import fleets

NAMES = st.sampled_from([f"n{i}" for i in range(8)])


@st.composite
def outlines(draw: st.DrawFn) -> Outline:
    """Some of eight nodes, and any of the links between the leaves."""
    relays = draw(st.frozensets(NAMES, max_size=2))
    leaves = draw(st.frozensets(NAMES)) - relays
    pairs = draw(st.frozensets(st.sampled_from(list(combinations(sorted(leaves), 2)) or [("", "")])))
    return Outline(leaves=leaves, relays=relays, pairs=frozenset(p for p in pairs if all(p)))


def mesh(*nodes: str, links: str = "") -> Outline:
    """Leaves, and links as ``ab cd``."""
    return Outline(leaves=frozenset(nodes), pairs=frozenset((a, b) for a, b in links.split()))


@settings(max_examples=60, deadline=None)
@given(outlines(), outlines(), st.integers(0, 100))
def test_what_is_added_or_stays_is_no_loss(before, after, percent):
    """Nothing of *after* is in the loss; nothing lost is nothing too much; a mesh has lost nothing of itself."""
    lost = prune.loss(before, after)
    assert lost.nodes == before.members - after.members
    assert not lost.pairs & after.pairs
    assert not prune.loss(before, before)
    assert not prune.is_too_much(prune.NOTHING, before, percent)


@settings(max_examples=60, deadline=None)
@given(outlines(), outlines(), st.integers(0, 100))
def test_one_node_may_always_go_and_a_hundred_percent_allow_all(before, after, percent):
    lost = prune.loss(before, after)
    assert not prune.is_too_much(lost, before, 100)
    for node in lost.nodes:
        assert not prune.is_too_much(Loss(nodes=frozenset({node})), before, percent)


@settings(max_examples=60, deadline=None)
@given(outlines(), outlines(), st.integers(0, 99))
def test_who_allows_less_holds_more(before, after, percent):
    """What is too much for a larger share is too much for a smaller one."""
    lost = prune.loss(before, after)
    if prune.is_too_much(lost, before, percent + 1):
        assert prune.is_too_much(lost, before, percent)


@settings(max_examples=60, deadline=None)
@given(outlines(), outlines())
def test_a_digest_stands_for_exactly_one_loss_of_one_mesh(before, after):
    one, other = prune.loss(before, after), prune.loss(after, before)
    assert (one.digest("wg0") == other.digest("wg0")) == (one == other)
    assert one.digest("wg0") != one.digest("wg1")
    assert one.digest("wg0").isalpha()
    assert prune.loss_from_dict(one.as_dict()) == one


@pytest.mark.parametrize(
    ("gone", "percent", "too_much"),
    [("a", 0, False), ("ab", 20, False), ("abc", 20, True), ("abc", 30, False), ("abcd", 30, True), ("ab", 19, True)],
)
def test_more_than_the_share_of_the_nodes(gone, percent, too_much):
    """Of ten nodes, two are 20 %, which is not more than 20 %."""
    before = mesh(*"abcdefghij")
    assert prune.is_too_much(Loss(nodes=frozenset(gone)), before, percent) is too_much


@pytest.mark.parametrize(
    ("before", "after", "too_much"),
    [
        ("ab cd", "", True),  # all
        ("ab cd", "ab", False),  # one
        ("ab ac ad", "", False),  # what one node's links lose is that node's
        ("ab cd ef ac ad bc bd be bf ce", "ab cd ef ac ad bc bd be", False),  # two of ten
        ("ab cd ef ac ad bc bd be bf ce", "ab cd ef ac ad bc bd", True),  # three of ten
    ],
)
def test_more_than_the_share_of_the_direct_links(before, after, too_much):
    first, second = mesh(*"abcdef", links=before), mesh(*"abcdef", links=after)
    assert prune.is_too_much(prune.loss(first, second), first, 20) is too_much


def test_links_of_a_node_that_leaves_or_becomes_a_relay_are_no_loss_of_their_own():
    before = mesh(*"abc", links="ab ac bc")
    assert prune.loss(before, mesh(*"bc", links="bc")) == Loss(nodes=frozenset("a"))
    assert not prune.loss(before, Outline(leaves=frozenset("bc"), relays=frozenset("a"), pairs=frozenset([("b", "c")])))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fleets(relays=3), st.data())
def test_an_outline_is_that_of_every_plan_whatever_is_down(fleet, data):
    """Members and direct links of a plan are those of the outline, and neither health nor a drain changes that."""
    down = (
        frozenset(data.draw(st.lists(st.sampled_from(sorted(fleet.facts)), max_size=3))) if fleet.facts else frozenset()
    )
    told = planner.outline(fleet.mesh, fleet.facts)
    try:
        plan = planner.make(fleet.mesh, fleet.facts, Register(), Health(down=down), drained=down)
    except PlanError:
        reject()
    assert told.members == plan.members.keys()
    assert told.relays == {n for n, m in plan.members.items() if m.is_relay}
    assert told.pairs == {(link.a, link.b) for link in plan.links if link.kind is Kind.ACCESS}
