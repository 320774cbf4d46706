"""The conduct of one node: how often it cost all others something, and for how long it therefore has to wait.

A node can make itself slow, change its facts or have events name others as often as it likes. Facts and events are
counted by node, and each time the node waits longer. The seconds are counted for which runs wait for a node, so that an
answer just in time counts like none. In any hour one node thus costs a limited time and a limited number of applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONDUCT_FORGOTTEN_AFTER = 7200.0
"""Seconds without another time after which earlier times no longer count."""
_HOUR = 3600.0
MAX_COUNT = 16
"""Times that are counted: no pause is longer after more of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How long one kind of conduct must wait for the next time."""

    free: int
    """Times without a pause after them."""
    first: float
    """Seconds of the first pause; each further one is twice as long."""
    longest: float
    """Seconds."""


AWAITED_SECONDS = 100.0
"""Seconds an hour for which runs wait for the node's answers to pushes. After that no run waits for the node any longer
than for a node that does not begin the job."""
ASKED_SECONDS = 60.0
"""Seconds an hour for which runs wait for the node's answers to questions."""
FACTS = Limit(free=4, first=60.0, longest=3600.0)
"""Other facts that were published. A rotation takes two, and a node on the move one each."""
DRIFT = Limit(free=0, first=20.0, longest=600.0)
"""A push for an event that called a node drifted, and that changed nothing there."""
ENROLMENT = Limit(free=0, first=60.0, longest=3600.0)
"""A job to apply the formula, which the node published no facts after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How often one kind of conduct was seen lately."""

    count: int = 0
    at: float = 0.0
    """The last time, in seconds since the epoch."""

    def is_paused(self, limit: Limit, now: float) -> bool:
        """Whether the pause after the last time lasts at *now*. A time in the future is of a clock that was ahead."""
        over = self.count - limit.free
        return over > 0 and 0 <= now - self.at < min(limit.first * 2 ** (over - 1), limit.longest)

    def once_more(self, now: float) -> Repeats:
        """The same after one more time at *now*."""
        goes_on = 0 <= now - self.at < CONDUCT_FORGOTTEN_AFTER
        return Repeats(count=min(self.count + 1, MAX_COUNT) if goes_on else 1, at=now)


NEVER = Repeats()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """For how long runs waited for the node lately, beyond the answers of others.

    An allowance in seconds an hour is forgiven as time passes. So an hour costs what is left of one allowance, another
    one, and the wait by which the last one was exceeded.
    """

    seconds: float = 0.0
    at: float = 0.0
    """The last wait, in seconds since the epoch."""

    def is_spent(self, allowance: float, now: float) -> bool:
        """Whether no run waits for the node at *now*."""
        return self._left(allowance, now) >= allowance

    def longer(self, seconds: float, allowance: float, now: float) -> Waited:
        """The same after one more wait. It is forgiven within two hours, however long it was."""
        return Waited(seconds=min(self._left(allowance, now) + seconds, 2 * allowance), at=now)

    def _left(self, allowance: float, now: float) -> float:
        """Seconds that are not forgiven at *now*. Those of a clock that was ahead are in the future, and are."""
        return max(0.0, self.seconds - allowance * (now - self.at) / _HOUR) if now >= self.at else 0.0


NO_WAIT = Waited()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """All that is counted of one node."""

    awaited: Waited = NO_WAIT
    """For answers to pushes."""
    asked: Waited = NO_WAIT
    """For answers to questions."""
    facts: Repeats = NEVER
    drift: Repeats = NEVER
    enrolment: Repeats = NEVER

    def as_dict(self) -> dict[str, list[float]]:
        """Plain values for the ledger, of what was ever seen; ``from_dict`` is the inverse."""
        seen = {"facts": self.facts, "drift": self.drift, "enrolment": self.enrolment}
        waits = {"awaited": self.awaited, "asked": self.asked}
        return {
            **{name: [wait.seconds, wait.at] for name, wait in waits.items() if wait != NO_WAIT},
            **{name: [kind.count, kind.at] for name, kind in seen.items() if kind != NEVER},
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Conduct:
        """The conduct that ``as_dict`` wrote. Kinds that this version does not know are left out."""
        return cls(
            awaited=_waited(raw, "awaited"),
            asked=_waited(raw, "asked"),
            facts=_repeats(raw, "facts"),
            drift=_repeats(raw, "drift"),
            enrolment=_repeats(raw, "enrolment"),
        )


def _repeats(raw: Mapping[str, Any], kind: str) -> Repeats:
    if kind not in raw:
        return NEVER
    count, at = raw[kind]
    return Repeats(count=int(count), at=float(at))


def _waited(raw: Mapping[str, Any], kind: str) -> Waited:
    """Earlier versions counted times: a few of these are as many seconds."""
    seconds, at = raw.get(kind, (0.0, 0.0))
    return Waited(seconds=float(seconds), at=float(at))


GOOD_CONDUCT = Conduct()
