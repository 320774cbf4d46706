"""What one node costs all others in an hour is bounded, and a clock that was wrong pauses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.master.records import conduct
from saltext_wgmesh.master.records.acknowledgement import Ack
from saltext_wgmesh.master.records.conduct import CONDUCT_FORGOTTEN_AFTER, Conduct, Limit, Repeats

LIMITS = [conduct.AWAITED, conduct.ASKED, conduct.FACTS, conduct.DRIFT, conduct.ENROLMENT]


@pytest.mark.parametrize("limit", LIMITS)
@given(steps=st.lists(st.floats(0, 60), min_size=1, max_size=400))
def test_any_hour_has_limited_number(limit: Limit, steps: list[float]) -> None:
    """Whenever the node is given a chance, it takes it."""
    seen, now, times = Repeats(), 1000.0, []
    for step in steps:
        now += step
        if not seen.is_paused(limit, now):
            seen = seen.once_more(now)
            times.append(now)
    assert all(sum(at <= t < at + 3600 for t in times) <= limit.free + 14 for at in times)


@pytest.mark.parametrize("limit", LIMITS)
def test_pause_grows_and_is_forgotten(limit: Limit) -> None:
    """A node that was quiet for long begins anew."""
    seen = Repeats()
    for _ in range(limit.free + 1):
        assert not seen.is_paused(limit, 10.0)
        seen = seen.once_more(10.0)
    assert seen.is_paused(limit, 10.0 + limit.first - 1)
    assert not seen.is_paused(limit, 10.0 + limit.first)
    assert seen.once_more(10.0 + limit.first).is_paused(limit, 10.0 + 2 * limit.first)
    assert seen.once_more(10.0 + CONDUCT_FORGOTTEN_AFTER).count == 1


@pytest.mark.parametrize("shift", [-1e9, 1e9])
def test_shifted_times_pause_nothing(shift: float) -> None:
    """Neither those of a clock that was ahead nor those of one that was behind."""
    seen = Repeats(count=16, at=2e9 + shift)
    assert not any(seen.is_paused(limit, 2e9) for limit in LIMITS)
    assert seen.once_more(2e9).count == 1


def test_ledger_keeps_conduct() -> None:
    """Records of former versions have none."""
    ack = Ack(conduct=Conduct(drift=Repeats(count=2, at=5.0), facts=Repeats(count=1, at=6.0)))
    assert Ack.from_dict(ack.as_dict()) == ack
    assert "conduct" not in Ack().as_dict()
