"""What counts as down: most of those who should hear it, at once; what returns, slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core import health
from saltext_wgmesh.core.health import HOLD, HOLD_CEILING, QUIET, Health, judge
from saltext_wgmesh.core.linkstate import LinkState

UP, DOWN, MUTE, NEW = LinkState.UP, LinkState.DOWN, LinkState.MUTE, LinkState.NEW
NEIGHBOURS = {
    "r1": frozenset({"r2", "a", "b", "c"}),
    "r2": frozenset({"r1", "a", "b", "c"}),
    **{leaf: frozenset({"r1", "r2"}) for leaf in "abc"},
}


CALM = Health()


def at(now, words, before=CALM, asked=None):
    return judge(before, NEIGHBOURS, words, words if asked is None else asked, now)


def about_r1(**states):
    """Each of these says that of r1, and that r2 is up."""
    return {node: {"r1": state} | ({} if node == "r2" else {"r2": UP}) for node, state in states.items()}


def test_a_relay_is_down_when_most_who_should_hear_it_do_not():
    found = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN, c=UP))
    assert found.down == {"r1"}
    assert found.nodes["r1"].by == ("a", "b", "r2")
    assert found.nodes["r1"].since == 100.0
    assert found.cut == frozenset()


def test_one_leaf_moves_itself_alone():
    found = at(100.0, about_r1(r2=UP, a=DOWN, b=UP, c=UP))
    assert found.down == frozenset()
    assert found.cut == {("a", "r1")}


def test_a_single_word_about_a_relay_with_many_neighbours_is_no_quorum():
    found = at(100.0, about_r1(a=DOWN))
    assert found.down == frozenset()
    assert found.cut == {("a", "r1")}


def test_a_relay_that_forwards_nothing_is_down_too():
    assert at(100.0, about_r1(r2=MUTE, a=MUTE, b=MUTE, c=UP)).down == {"r1"}


def test_links_that_are_not_known_yet_say_nothing():
    assert at(100.0, about_r1(r2=NEW, a=NEW, b=NEW)) == Health()


def test_what_nobody_speaks_of_stays_as_it_was():
    before = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN))
    after = at(500.0, {}, before, asked=())
    assert after == before


def test_what_returns_counts_as_up_only_after_the_hold_and_then_rests():
    found = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN))
    good = about_r1(r2=UP, a=UP, b=UP)
    found = at(110.0, good, found)
    assert found.down == {"r1"}
    found = at(110.0 + HOLD - 1, good, found)
    assert found.down == {"r1"}
    found = at(110.0 + HOLD, good, found)
    assert (found.down, found.resting) == (frozenset(), {"r1"})
    found = at(110.0 + HOLD + QUIET, good, found)
    assert (found.down, found.resting, dict(found.nodes)) == (frozenset(), frozenset(), {})


def test_the_hold_doubles_with_each_failure_up_to_a_ceiling():
    found, now = Health(), 0.0
    holds = []
    for _ in range(8):
        found = at(now, about_r1(r2=DOWN, a=DOWN, b=DOWN), found)
        found = at(now + 1, about_r1(r2=UP, a=UP, b=UP), found)
        holds.append(found.nodes["r1"].hold)
        now += 10
    assert holds == [30, 60, 120, 240, 480, HOLD_CEILING, HOLD_CEILING, HOLD_CEILING]


def test_who_was_asked_and_did_not_answer_is_silent_until_it_does():
    found = at(100.0, about_r1(r2=DOWN, a=DOWN), asked=("r2", "a", "b"))
    assert found.silent == {"b"}
    found = at(101.0, {}, found, asked=())
    assert found.silent == {"b"}
    assert at(102.0, about_r1(b=UP), found).silent == frozenset()


def test_a_rebalance_forgets_what_is_heard_again_and_nothing_else():
    """The operator need not wait for a hold to end, nor for the quiet period."""
    found = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN))
    assert health.rested(found) == found
    held = at(101.0, about_r1(r2=UP, a=UP, b=UP), found)
    assert held.down == {"r1"}
    assert health.rested(held) == Health()
    resting = at(101.0 + HOLD, about_r1(r2=UP, a=UP, b=UP), held)
    assert resting.resting == {"r1"}
    assert health.rested(resting) == Health()


def test_a_link_that_the_plan_gave_up_is_tried_again_only_after_its_hold():
    """Else the next plan would have it back at once, and the one after give it up again."""
    around = {"r1": frozenset({"a", "r2"}), "r2": frozenset({"a", "r1"}), "a": frozenset({"r1", "r2"})}
    said = {"a": {"r1": DOWN, "r2": UP}, "r1": {"a": DOWN, "r2": UP}}
    found = judge(Health(), around, said, ("a", "r1"), 100.0)
    assert found.cut == {("a", "r1")}
    without = {"r1": frozenset({"r2"}), "r2": frozenset({"a", "r1"}), "a": frozenset({"r2"})}
    for second in (0.0, HOLD - 1):
        found = judge(found, without, {}, (), 101.0 + second)
        assert found.cut == {("a", "r1")}
    found = judge(found, without, {}, (), 101.0 + HOLD)
    assert (found.cut, set(found.links)) == (frozenset(), {("a", "r1")})
    assert judge(found, {"r1": frozenset()}, {}, (), 140.0).links == {}


def test_a_node_that_left_is_forgotten():
    found = at(100.0, about_r1(r2=DOWN, a=DOWN, b=DOWN))
    assert judge(found, {"r2": frozenset()}, {}, (), 101.0) == Health()


states = st.sampled_from(LinkState)
words = st.dictionaries(
    st.sampled_from(sorted(NEIGHBOURS)), st.dictionaries(st.sampled_from(sorted(NEIGHBOURS)), states), max_size=5
)


@given(st.lists(st.tuples(st.floats(0, 2000), words), max_size=6))
def test_any_history_survives_the_ledger_and_is_calm_once_all_is_good(history):
    """Whatever was said, in whatever order: it can be stored, and an hour of good words ends every trouble."""
    found, now = Health(), 0.0
    for pause, said in history:
        now += pause
        found = at(now, said, found)
        assert health.from_dict(health.as_dict(found)) == found
        assert not found.down & found.resting
    all_good = {node: dict.fromkeys(others, UP) for node, others in NEIGHBOURS.items()}
    for _ in range(3):
        found = at(now, all_good, found)
        now += HOLD_CEILING + QUIET
    assert found == Health()
