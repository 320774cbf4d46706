"""Wait for a condition, with a deadline: the only way in which the lab waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 3.0
"""How many times longer a wait may take than on an idle machine. The scenarios measure gaps in traffic themselves."""


class TimedOut(AssertionError):
    """The condition did not become true in time."""


def wait_until(
    predicate: Callable[[], T],
    deadline: float,
    what: str,
    *,
    every: float = 0.1,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """Return the first truthy value of *predicate*; TimedOut after *deadline* seconds times *patience*.

    The predicate is always called once more after the deadline has passed, so that a slow machine is not
    taken for a broken one. Its exceptions are passed on. *every* is the pause between two calls, in seconds.
    """
    allowed = deadline * patience
    end = clock() + allowed
    while True:
        last_chance = clock() >= end
        seen = predicate()
        if seen:
            return seen
        if last_chance:
            raise TimedOut(f"{what}: not within {allowed:g} s, last seen {seen!r}")
        pause(min(every, max(0.0, end - clock())))
