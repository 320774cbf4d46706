"""The lab's only way to wait, on a clock that the test moves."""

from __future__ import annotations

import pytest

from .wait import TimedOut, wait_until


class Clock:
    """A clock on which time passes by pauses only."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_true_predicate_returns_at_once():
    """The value of a true predicate is returned without a pause."""
    clock = Clock()
    assert wait_until(lambda: "found", 5, "it", patience=1, clock=clock, pause=clock.pause) == "found"
    assert clock.pauses == []


def test_false_predicate_is_repeated():
    """A false predicate is called again after each pause, until it is true."""
    clock = Clock()
    answers = iter([0, None, [], 7])
    assert wait_until(lambda: next(answers), 5, "it", every=1, patience=1, clock=clock, pause=clock.pause) == 7
    assert clock.pauses == [1, 1, 1]


def test_timeout_names_wait_and_last_value():
    """The error names the awaited condition, the deadline and the predicate's last value."""
    clock = Clock()
    with pytest.raises(TimedOut, match=r"^the door to open: not within 2\.5 s, last seen \[\]$"):
        wait_until(list, 2.5, "the door to open", every=1, patience=1, clock=clock, pause=clock.pause)
    assert clock.pauses == [1, 1, 0.5]


def test_predicate_is_repeated_after_deadline():
    """The predicate is called once more after the deadline, so that a slow predicate is not taken for a false one."""
    clock = Clock()
    asked = []

    def slow() -> bool:
        clock.now += 10
        asked.append(clock.now)
        return len(asked) == 2

    assert wait_until(slow, 5, "it", patience=1, clock=clock, pause=clock.pause)
    assert asked == [110.0, 120.0]


def test_exception_of_predicate_is_raised():
    """An exception of the predicate ends the wait."""

    def broken() -> bool:
        raise KeyError("x")

    with pytest.raises(KeyError):
        wait_until(broken, 5, "it")
