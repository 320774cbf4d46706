"""Nodes and links that count as down: a majority decides at once, and recovery is slow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness import mesh_health
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.liveness.mesh_health import HOLD_DOWN, HOLD_DOWN_CEILING, WAIT_TO_RESTORE, Health, update

UP, DOWN, BLACKHOLE, NEW = LinkState.UP, LinkState.DOWN, LinkState.BLACKHOLE, LinkState.NEW
NEIGHBOURS = {
    "r1": frozenset({"r2", "a", "b", "c"}),
    "r2": frozenset({"r1", "a", "b", "c"}),
    **{leaf: frozenset({"r1", "r2"}) for leaf in "abc"},
}


NO_OUTAGE = Health()


def at(now, reports, before=NO_OUTAGE, asked=None):
    """The health at *now*, if all nodes with *reports* were asked."""
    return update(before, NEIGHBOURS, reports, reports if asked is None else asked, now)


def about_r1(**states):
    """Reports of these nodes: r1 has that state, and r2 is up."""
    return {node: {"r1": state} | ({} if node == "r2" else {"r2": UP}) for node, state in states.items()}


def test_relay_with_most_reports_against_is_down():
    """A majority of the neighbours that report decides, and the outage names the reporters."""
    found = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN, c=UP))
    assert found.down_nodes == {"r1"}
    assert found.nodes["r1"].reporters == ("a", "b", "r2")
    assert found.nodes["r1"].since == 100.0
    assert found.down_links == frozenset()


def test_one_report_of_many_cuts_one_link():
    """A single leaf without its relay is evidence about their common link only."""
    found = at(100.0, about_r1(r2=UP, a=DOWN, b=UP, c=UP))
    assert found.down_nodes == frozenset()
    assert found.down_links == {("a", "r1")}


def test_single_report_about_relay_is_no_quorum():
    """One report about a relay with many neighbours brings down the link and not the relay."""
    found = at(100.0, about_r1(a=DOWN))
    assert found.down_nodes == frozenset()
    assert found.down_links == {("a", "r1")}


def test_blackhole_relay_counts_as_down():
    """A relay that answers and forwards nothing is down as if it did not answer."""
    assert at(100.0, about_r1(r2=BLACKHOLE, a=BLACKHOLE, b=BLACKHOLE, c=UP)).down_nodes == {"r1"}


def test_new_links_are_no_evidence():
    """A link that was created just now says nothing about the node behind it."""
    assert at(100.0, about_r1(r2=NEW, a=NEW, b=NEW)) == Health()


def test_half_new_link_is_no_outage():
    """A node that returns has found its link down before the relay knew it again. Then either end decides."""
    assert at(100.0, {"r1": {"a": NEW}, "a": {"r1": DOWN}}) == Health()
    assert at(100.0, {"r1": {"a": UP}, "a": {"r1": DOWN}}).down_links == {("a", "r1")}


def test_health_without_reports_stays_unchanged():
    """Time alone, without any report, changes nothing."""
    before = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN))
    after = at(500.0, {}, before, asked=())
    assert after == before


def test_recovered_node_is_held_down_then_recovering():
    """A node that is up again stays down for the hold-down time, then recovering, and then is forgotten."""
    found = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN))
    good = about_r1(r2=UP, a=UP, b=UP)
    found = at(110.0, good, found)
    assert found.down_nodes == {"r1"}
    found = at(110.0 + HOLD_DOWN - 1, good, found)
    assert found.down_nodes == {"r1"}
    found = at(110.0 + HOLD_DOWN, good, found)
    assert (found.down_nodes, found.recovering) == (frozenset(), {"r1"})
    found = at(110.0 + HOLD_DOWN + WAIT_TO_RESTORE, good, found)
    assert (found.down_nodes, found.recovering, dict(found.nodes)) == (frozenset(), frozenset(), {})


def test_hold_down_doubles_with_flaps_to_ceiling():
    """Each flap doubles the hold-down time until the ceiling."""
    found, now = Health(), 0.0
    holds = []
    for _ in range(8):
        found = at(now, about_r1(r2=DOWN, a=DOWN, b=DOWN), found)
        found = at(now + 1, about_r1(r2=UP, a=UP, b=UP), found)
        holds.append(found.nodes["r1"].hold_down)
        now += 10
    assert holds == [30, 60, 120, 240, 480, HOLD_DOWN_CEILING, HOLD_DOWN_CEILING, HOLD_DOWN_CEILING]


def test_node_without_answer_is_unresponsive_until_answer():
    """A node that was asked and did not answer stays unresponsive, also while it is not asked again."""
    found = at(100.0, about_r1(r2=DOWN, a=DOWN), asked=("r2", "a", "b"))
    assert found.unresponsive == {"b"}
    found = at(101.0, {}, found, asked=())
    assert found.unresponsive == {"b"}
    assert at(102.0, about_r1(b=UP), found).unresponsive == frozenset()


def test_clear_recovered_forgets_only_recovered_outages():
    """The operator need not wait for the hold-down time, nor for WAIT_TO_RESTORE."""
    found = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN))
    assert mesh_health.clear_recovered(found) == found
    held = at(101.0, about_r1(r2=UP, a=UP, b=UP), found)
    assert held.down_nodes == {"r1"}
    assert mesh_health.clear_recovered(held) == Health()
    resting = at(101.0 + HOLD_DOWN, about_r1(r2=UP, a=UP, b=UP), held)
    assert resting.recovering == {"r1"}
    assert mesh_health.clear_recovered(resting) == Health()


def test_given_up_link_stays_down_for_hold():
    """Otherwise the next plan would have the link again at once, and the plan after it would give the link up again."""
    around = {"r1": frozenset({"a", "r2"}), "r2": frozenset({"a", "r1"}), "a": frozenset({"r1", "r2"})}
    reports = {"a": {"r1": DOWN, "r2": UP}, "r1": {"a": DOWN, "r2": UP}}
    found = update(Health(), around, reports, ("a", "r1"), 100.0)
    assert found.down_links == {("a", "r1")}
    without = {"r1": frozenset({"r2"}), "r2": frozenset({"a", "r1"}), "a": frozenset({"r2"})}
    for second in (0.0, HOLD_DOWN - 1):
        found = update(found, without, {}, (), 101.0 + second)
        assert found.down_links == {("a", "r1")}
    found = update(found, without, {}, (), 101.0 + HOLD_DOWN)
    assert (found.down_links, set(found.links)) == (frozenset(), {("a", "r1")})
    assert update(found, {"r1": frozenset()}, {}, (), 140.0).links == {}


def test_node_that_left_is_forgotten():
    """A node without neighbours in the published plan has no outage."""
    found = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN))
    assert update(found, {"r2": frozenset()}, {}, (), 101.0) == Health()


states = st.sampled_from(LinkState)
link_reports = st.dictionaries(
    st.sampled_from(sorted(NEIGHBOURS)), st.dictionaries(st.sampled_from(sorted(NEIGHBOURS)), states), max_size=5
)


@given(st.lists(st.tuples(st.floats(0, 2000), link_reports), max_size=6))
def test_any_history_of_reports_ends_without_outage(history):
    """Any history can be stored in the ledger, and an hour of good reports ends every outage."""
    found, now = Health(), 0.0
    for pause, reports in history:
        now += pause
        found = at(now, reports, found)
        assert mesh_health.health_from_dict(mesh_health.health_as_dict(found)) == found
        assert not found.down_nodes & found.recovering
    all_good = {node: dict.fromkeys(others, UP) for node, others in NEIGHBOURS.items()}
    for _ in range(3):
        found = at(now, all_good, found)
        now += HOLD_DOWN_CEILING + WAIT_TO_RESTORE
    assert found == Health()
