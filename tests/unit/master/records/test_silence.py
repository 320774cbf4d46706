"""The silence of a node costs its vote after some time and some runs, whatever clocks say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.master.records.silence import VOTE_LOST_AFTER, VOTE_LOST_RUNS, Silence

TIMES = st.floats(-1e10, 1e10)


@given(since=TIMES, times=st.lists(TIMES, max_size=VOTE_LOST_RUNS - 2))
def test_few_runs_cost_no_vote(since: float, times: list[float]) -> None:
    """Whatever the clock says at each of them."""
    silence = Silence(since=since)
    for now in times:
        silence = silence.went_on("job", now)
        assert not silence.costs_vote(now)


@given(since=TIMES, now=st.floats(1e9, 2e9), pauses=st.lists(st.floats(0, 1e4), min_size=4, max_size=20))
def test_silence_costs_vote_in_usual_time(since: float, now: float, pauses: list[float]) -> None:
    """It begins at any time, and each run sets a time right that no right clock wrote."""
    silence = Silence(since=since).went_on("job", now)
    began = now if not 0 <= now - since <= 3e8 else since
    for number, pause in enumerate(pauses):
        now += pause
        silence = silence.went_on("job", now)
        assert silence.costs_vote(now) == (number + 3 >= VOTE_LOST_RUNS and now - began >= VOTE_LOST_AFTER)


def test_first_question_stays_open_until_vote_is_lost() -> None:
    """A node that is slower than runs follow each other answers it all the same."""
    silence = Silence(since=0.0, job="1").went_on("2", 30.0).went_on("3", 60.0)
    assert silence.job == "1"
    assert silence.went_on("4", 90.0).went_on("5", 91.0).job == "5"


@given(since=TIMES, runs=st.integers(1, VOTE_LOST_RUNS), job=st.text(max_size=5))
def test_silence_round_trips(since: float, runs: int, job: str) -> None:
    """The ledger keeps all of it."""
    silence = Silence(since=since, runs=runs, job=job)
    assert Silence.from_dict(silence.as_dict()) == silence
