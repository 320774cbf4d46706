"""What one node costs all others in an hour is bounded, and a clock that was wrong pauses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.master.records import conduct
from saltext_wgmesh.master.records.acknowledgement import Ack
from saltext_wgmesh.master.records.conduct import CONDUCT_FORGOTTEN_AFTER, Conduct, Limit, Repeats, Waited

LIMITS = [conduct.FACTS, conduct.DRIFT, conduct.ENROLMENT]


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


ALLOWANCES = [conduct.AWAITED_SECONDS, conduct.ASKED_SECONDS]


@pytest.mark.parametrize("allowance", ALLOWANCES)
@given(steps=st.lists(st.tuples(st.floats(0, 120), st.floats(0, 60)), min_size=1, max_size=400))
def test_any_hour_has_limited_wait(allowance: float, steps: list[tuple[float, float]]) -> None:
    """Whenever the node is waited for, it takes up to a minute, and as little as it likes."""
    waited, now, waits = Waited(), 1000.0, []
    for pause, wait in steps:
        now += pause
        if not waited.is_spent(allowance, now):
            waited = waited.longer(wait, allowance, now)
            waits.append((now, wait))
    assert all(
        sum(wait for at, wait in waits if begin <= at < begin + 3600) <= 2 * allowance + 60 for begin, _ in waits
    )


@pytest.mark.parametrize("allowance", ALLOWANCES)
def test_wait_is_forgiven(allowance: float) -> None:
    """However long it was: a node is waited for again after an hour."""
    waited = Waited().longer(10 * allowance, allowance, 10.0)
    assert waited.is_spent(allowance, 10.0 + 3599)
    assert not waited.is_spent(allowance, 10.0 + 3601)
    assert Waited(seconds=allowance, at=1e9).is_spent(allowance, 5.0) is False


def test_ledger_keeps_conduct() -> None:
    """Records of former versions have none."""
    ack = Ack(
        conduct=Conduct(
            asked=Waited(seconds=2.5, at=4.0), drift=Repeats(count=2, at=5.0), facts=Repeats(count=1, at=6.0)
        )
    )
    assert Ack.from_dict(ack.as_dict()) == ack
    assert "conduct" not in Ack().as_dict()
