"""The rate limit: what the lock file keeps of it."""

import pytest

from saltext_wgmesh.master.requests.rate_limit import BURST, RateLimit


def test_rate_limit_written_is_read_back():
    """Every process sees the runs of the others."""
    limit = RateLimit(begun=(1.0, 2.5), not_before=7.25)
    assert RateLimit.decode(limit.encode()) == limit


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"begun": 5, "not_before": 1}', '{"begun": ["x"]}', b"\xff"])
def test_rate_limit_unreadable_allows_a_run(text):
    """A lock file that a power failure left half written delays no run."""
    assert RateLimit.decode(text) == RateLimit()


def test_rate_limit_keeps_only_the_last_burst():
    """Older runs have no effect, so the file does not grow."""
    limit = RateLimit()
    for second in range(20):
        limit = limit.run_began(float(second))
    assert limit.begun == tuple(float(second) for second in range(20 - BURST, 20))
