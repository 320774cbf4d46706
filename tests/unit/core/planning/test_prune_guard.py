"""The loss of a change is measured on policy and facts alone, and compared with the guard."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.view import Kind
from saltext_wgmesh.core.planning import planner, prune_guard
from saltext_wgmesh.core.planning.prune_guard import Loss, Membership
from tests.unit.harness.strategies import fleets

NAMES = st.sampled_from([f"n{i}" for i in range(8)])


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    """Draw some of eight nodes, and any of the links between the leaves."""
    relays = draw(st.frozensets(NAMES, max_size=2))
    leaves = draw(st.frozensets(NAMES)) - relays
    pairs = draw(st.frozensets(st.sampled_from(list(combinations(sorted(leaves), 2)) or [("", "")])))
    return Membership(leaves=leaves, relays=relays, pairs=frozenset(p for p in pairs if all(p)))


def membership(*nodes: str, links: str = "") -> Membership:
    """Return a membership of leaves, with links written as ``ab cd``."""
    return Membership(leaves=frozenset(nodes), pairs=frozenset((a, b) for a, b in links.split()))


@settings(max_examples=60, deadline=None)
@given(memberships(), memberships(), st.integers(0, 100))
def test_loss_has_nothing_that_stays(before, after, percent):
    """No node or link of *after* is lost, a mesh has lost nothing of itself, and no loss is never too much."""
    lost = prune_guard.loss(before, after)
    assert lost.nodes == before.members - after.members
    assert not lost.pairs & after.pairs
    assert not prune_guard.loss(before, before)
    assert not prune_guard.exceeds_guard(prune_guard.NO_LOSS, before, percent)


@settings(max_examples=60, deadline=None)
@given(memberships(), memberships(), st.integers(0, 100))
def test_guard_allows_one_node_or_all(before, after, percent):
    """One node may always leave, and 100 percent allow every loss."""
    lost = prune_guard.loss(before, after)
    assert not prune_guard.exceeds_guard(lost, before, 100)
    for node in lost.nodes:
        assert not prune_guard.exceeds_guard(Loss(nodes=frozenset({node})), before, percent)


@settings(max_examples=60, deadline=None)
@given(memberships(), memberships(), st.integers(0, 99))
def test_lower_percentage_allows_less(before, after, percent):
    """A loss that exceeds a percentage exceeds every lower one."""
    lost = prune_guard.loss(before, after)
    if prune_guard.exceeds_guard(lost, before, percent + 1):
        assert prune_guard.exceeds_guard(lost, before, percent)


@settings(max_examples=60, deadline=None)
@given(memberships(), memberships())
def test_digest_identifies_loss_and_mesh(before, after):
    """Two losses, or one loss of two meshes, have different digests, which consist of letters."""
    one, other = prune_guard.loss(before, after), prune_guard.loss(after, before)
    assert (one.digest("wg0") == other.digest("wg0")) == (one == other)
    assert one.digest("wg0") != one.digest("wg1")
    assert one.digest("wg0").isalpha()
    assert prune_guard.loss_from_dict(one.as_dict()) == one


@pytest.mark.parametrize(
    ("lost", "percent", "exceeds"),
    [
        pytest.param("a", 0, False, id="one node may always leave"),
        pytest.param("ab", 20, False, id="two of ten are 20 %"),
        pytest.param("ab", 19, True, id="two of ten are more than 19 %"),
        pytest.param("abc", 20, True, id="three of ten are more than 20 %"),
        pytest.param("abc", 30, False, id="three of ten are 30 %"),
        pytest.param("abcd", 30, True, id="four of ten are more than 30 %"),
    ],
)
def test_node_loss_exceeds_guard(lost, percent, exceeds):
    """A loss of exactly the percentage is allowed."""
    before = membership(*"abcdefghij")
    assert prune_guard.exceeds_guard(Loss(nodes=frozenset(lost)), before, percent) is exceeds


@pytest.mark.parametrize(
    ("before", "after", "exceeds"),
    [
        pytest.param("ab cd", "", True, id="all links"),
        pytest.param("ab cd", "ab", False, id="one link"),
        pytest.param("ab ac ad", "", False, id="all links of one node"),
        pytest.param("ab cd ef ac ad bc bd be bf ce", "ab cd ef ac ad bc bd be", False, id="two of ten links"),
        pytest.param("ab cd ef ac ad bc bd be bf ce", "ab cd ef ac ad bc bd", True, id="three of ten links"),
    ],
)
def test_direct_link_loss_exceeds_guard(before, after, exceeds):
    """The loss of direct links counts like that of nodes, except links of one node."""
    first, second = membership(*"abcdef", links=before), membership(*"abcdef", links=after)
    assert prune_guard.exceeds_guard(prune_guard.loss(first, second), first, 20) is exceeds


def test_links_of_leaving_node_are_no_loss():
    """The links of a node that leaves or becomes a relay are not counted besides."""
    before = membership(*"abc", links="ab ac bc")
    assert prune_guard.loss(before, membership(*"bc", links="bc")) == Loss(nodes=frozenset("a"))
    assert not prune_guard.loss(
        before, Membership(leaves=frozenset("bc"), relays=frozenset("a"), pairs=frozenset([("b", "c")]))
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fleets(relays=3), st.data())
def test_membership_agrees_with_every_plan(fleet, data):
    """A plan has the members and direct links of the membership, in any health and drain."""
    down = (
        frozenset(data.draw(st.lists(st.sampled_from(sorted(fleet.facts)), max_size=3))) if fleet.facts else frozenset()
    )
    expected = planner.membership(fleet.mesh, fleet.facts)
    try:
        plan = planner.plan_mesh(fleet.mesh, fleet.facts, Allocations(), Health(down_nodes=down), drained=down)
    except PlanError:
        reject()
    assert expected.members == plan.members.keys()
    assert expected.relays == {n for n, m in plan.members.items() if m.is_relay}
    assert expected.pairs == {(link.a, link.b) for link in plan.links if link.kind is Kind.ACCESS}
