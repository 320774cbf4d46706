"""The one way in which the lab waits, on a clock that the test moves."""

from __future__ import annotations

import pytest

from .wait import TimedOut, wait_until


class Clock:
    """Time passes when somebody pauses."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_returns_what_the_predicate_found_without_a_pause():
    clock = Clock()
    assert wait_until(lambda: "found", 5, "it", clock=clock, pause=clock.pause) == "found"
    assert clock.pauses == []


def test_asks_again_until_it_is_true():
    clock = Clock()
    answers = iter([0, None, [], 7])
    assert wait_until(lambda: next(answers), 5, "it", every=1, clock=clock, pause=clock.pause) == 7
    assert clock.pauses == [1, 1, 1]


def test_the_error_names_what_was_waited_for_and_what_was_seen():
    clock = Clock()
    with pytest.raises(TimedOut, match=r"^the door to open: not within 2\.5 s, last seen \[\]$"):
        wait_until(list, 2.5, "the door to open", every=1, clock=clock, pause=clock.pause)
    assert clock.pauses == [1, 1, 0.5]


def test_asks_once_more_after_the_deadline():
    """A predicate that takes longer than the deadline still gets its say."""
    clock = Clock()
    asked = []

    def slow() -> bool:
        clock.now += 10
        asked.append(clock.now)
        return len(asked) == 2

    assert wait_until(slow, 5, "it", clock=clock, pause=clock.pause)
    assert asked == [110.0, 120.0]


def test_what_the_predicate_raises_is_passed_on():
    def broken() -> bool:
        raise KeyError("x")

    with pytest.raises(KeyError):
        wait_until(broken, 5, "it")
