"""Times that were stored, in seconds since the epoch: they may be wrong, as the clock that wrote them may have been."""

from __future__ import annotations

MAX_PLAUSIBLE_AGE = 10 * 365 * 86_400.0
"""Seconds, ten years: a time before that was written by a wrong clock, or is damaged."""


def is_plausible(at: float, now: float) -> bool:
    """Return whether a clock that was right can have written *at* before *now*; False for NaN."""
    return 0 <= now - at <= MAX_PLAUSIBLE_AGE


def plausible(at: float, now: float) -> float:
    """Return *at*, or *now* in place of a time that no right clock can have written.

    A duration that began at such a time begins once more: it ends within its usual time from now on, neither at once
    nor never.
    """
    return at if is_plausible(at, now) else now
