"""Records of decisions and of the last run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.master.records.decisions import FailedRun, LastRun

FAILURES = st.builds(FailedRun, number=st.integers(1), error=st.text(), reason=st.text())
RUNS = st.builds(LastRun, idle_fingerprint=st.text()) | st.builds(LastRun, failed=FAILURES)


@given(RUNS)
def test_last_run_is_read_back(run):
    """With its failure, or with what it planned from."""
    assert LastRun.from_dict(run.as_dict()) == run


def test_missing_last_run_says_nothing():
    """So the next run plans, and its failure is logged."""
    assert LastRun.from_dict({}) == LastRun(idle_fingerprint="", failed=None)
