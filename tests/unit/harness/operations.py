"""Counts the calls of functions, Python's and built-in ones, as a measure of work that no load of the machine changes.

A built-in function is one operation, however long its argument is. So sizes are compared by the growth of counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

LINEAR = 5.0
"""How often the operations of a step may be repeated when its input is four times as large. Quadratic would be 16."""


def calls(action: Callable[[], object]) -> int:
    """Return how many functions *action* calls, itself included."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


def growth(step: Callable[[int], Callable[[], object]], size: int = 100) -> float:
    """Return how many times as many operations a step takes when its input grows from *size* to four times that.

    *step* prepares the input of a size and returns the action that is counted.
    """
    small, large = step(size), step(4 * size)
    return calls(large) / calls(small)


def longest_slice(steps: Iterable[object]) -> int:
    """Return the most operations that *steps* take between two of their items."""
    iterator = iter(steps)
    longest, is_done = 0, False

    def advance() -> None:
        nonlocal is_done
        is_done = next(iterator, iterator) is iterator

    while not is_done:
        longest = max(longest, calls(advance))
    return longest
