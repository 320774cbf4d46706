"""A peer that stopped to answer, as its counters show."""

from __future__ import annotations

from saltext_wgmesh.core.liveness.traffic_staleness import (
    ANSWER_WITHIN,
    INITIATION_BYTES,
    KEEPALIVE_BYTES,
    TrafficWatch,
)

IDLE = TrafficWatch(received=0, sent=0)


def test_data_without_answer_is_stale_after_timeout() -> None:
    """The timeout runs from the first data that stays unanswered."""
    watch = IDLE.sample(0, 1000, 5.0).sample(0, 2000, 9.0)
    assert not watch.is_stale(5.0 + ANSWER_WITHIN)
    assert watch.is_stale(5.1 + ANSWER_WITHIN)


def test_any_answer_ends_the_timeout() -> None:
    """Whatever arrives, the link carries."""
    watch = IDLE.sample(0, 1000, 5.0).sample(KEEPALIVE_BYTES, 1000, 9.0)
    assert watch.unanswered_since is None


def test_keepalives_and_handshakes_are_never_stale() -> None:
    """Neither has a reliable answer."""
    watch = IDLE.sample(0, 2 * KEEPALIVE_BYTES + INITIATION_BYTES, 5.0)
    assert not watch.is_stale(1000.0)
