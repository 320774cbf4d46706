"""The hold-down time of a link: longer with each flap, and none after a long time of being up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness.hold_down import (
    FLAP_WINDOW,
    FORGET_AFTER,
    FREE_HOLDS,
    HOLD_CEILING,
    HoldDown,
)


def after(*lasted: float) -> HoldDown:
    """The damping after returns, each of which lasted so many seconds."""
    damping, now = HoldDown(), 0.0
    for seconds in lasted:
        damping = damping.came_up(now)
        now += seconds
        damping = damping.went_down(now)
    return damping


def test_first_return_has_no_hold_down():
    """A link that was up for long is used at once when it returns."""
    assert after(3600).hold == 0
    assert after(FORGET_AFTER).hold == 0


def test_hold_down_doubles_with_each_flap_to_ceiling():
    """Nine flaps reach the ceiling."""
    assert [after(*[1.0] * n).hold for n in range(10)] == [
        0,
        1,
        2,
        4,
        8,
        16,
        32,
        HOLD_CEILING,
        HOLD_CEILING,
        HOLD_CEILING,
    ]


def test_return_beyond_flap_window_keeps_hold_down():
    """Longer than a flap and shorter than FORGET_AFTER: the hold-down time neither grows nor ends."""
    assert after(1, 1, FLAP_WINDOW).hold == 2
    assert after(1, 1, FORGET_AFTER - 1).hold == 2
    assert after(1, 1, FORGET_AFTER).hold == 0


def test_link_that_stays_down_keeps_its_damping():
    """A second report of the same outage is no flap."""
    damping = after(1, 1)
    assert damping.went_down(1000) == damping


@given(st.lists(st.floats(0, 1000), max_size=30))
def test_hold_down_is_bounded_by_ceiling(lasted):
    """For any sequence of returns."""
    assert 0 <= after(*lasted).hold <= HOLD_CEILING


def test_neighbour_may_hold_link_down_some_times():
    """Applies of a transition do so. Once more within the window is a flap, and after the window it is none."""
    damping = HoldDown(up_at=0.0)
    for second in range(FREE_HOLDS):
        assert damping.may_be_held(float(second))
        damping = damping.was_held(float(second))
    assert not damping.may_be_held(FLAP_WINDOW - 0.1)
    assert damping.may_be_held(FLAP_WINDOW)
    assert len(damping.was_held(FLAP_WINDOW).held_at) == FREE_HOLDS
    assert damping.went_down(10.0).held_at == damping.held_at
