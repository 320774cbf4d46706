"""A link that flaps is believed ever later; one that was good for long at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.holddown import CEILING, FLAP, FORGET, HoldDown


def after(*lasted: float) -> HoldDown:
    """The damping after returns that lasted so long each."""
    damping, now = HoldDown(), 0.0
    for seconds in lasted:
        damping = damping.came_up(now)
        now += seconds
        damping = damping.went_down(now)
    return damping


def test_the_first_return_after_a_long_good_time_is_believed_at_once():
    assert after(3600).hold == 0
    assert after(FORGET).hold == 0


def test_each_flap_doubles_the_hold_up_to_a_ceiling():
    assert [after(*[1.0] * n).hold for n in range(10)] == [0, 1, 2, 4, 8, 16, 32, CEILING, CEILING, CEILING]


def test_a_fairly_good_time_neither_adds_nor_forgets():
    assert after(1, 1, FLAP).hold == 2
    assert after(1, 1, FORGET - 1).hold == 2
    assert after(1, 1, FORGET).hold == 0


def test_a_link_that_stays_down_is_damped_no_further():
    damping = after(1, 1)
    assert damping.went_down(1000) == damping


@given(st.lists(st.floats(0, 1000), max_size=30))
def test_the_hold_is_bounded_whatever_happens(lasted):
    assert 0 <= after(*lasted).hold <= CEILING
