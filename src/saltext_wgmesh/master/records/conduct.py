"""The conduct of one node: how often it cost all others something, and for how long it therefore has to wait.

A node can make itself slow, change its facts or have events name others as often as it likes. Each kind of it is
counted by node, and each time the node waits longer. In any hour one node thus costs a limited time and a limited
number of applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONDUCT_FORGOTTEN_AFTER = 7200.0
"""Seconds without another time after which earlier times no longer count."""
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


AWAITED = Limit(free=1, first=300.0, longest=3600.0)
"""A push that the node left unanswered, or answered late: for the pause no run waits for the node any longer than for a
node that does not begin the job."""
ASKED = Limit(free=3, first=60.0, longest=3600.0)
"""A question that the node left unanswered."""
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
class Conduct:
    """All that is counted of one node."""

    awaited: Repeats = NEVER
    asked: Repeats = NEVER
    facts: Repeats = NEVER
    drift: Repeats = NEVER
    enrolment: Repeats = NEVER

    def as_dict(self) -> dict[str, list[float]]:
        """Plain values for the ledger, of what was ever seen; ``from_dict`` is the inverse."""
        found = {
            "awaited": self.awaited,
            "asked": self.asked,
            "facts": self.facts,
            "drift": self.drift,
            "enrolment": self.enrolment,
        }
        return {name: [seen.count, seen.at] for name, seen in found.items() if seen != NEVER}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Conduct:
        """The conduct that ``as_dict`` wrote. Kinds that this version does not know are left out."""
        return cls(
            awaited=_repeats(raw, "awaited"),
            asked=_repeats(raw, "asked"),
            facts=_repeats(raw, "facts"),
            drift=_repeats(raw, "drift"),
            enrolment=_repeats(raw, "enrolment"),
        )


def _repeats(raw: Mapping[str, Any], kind: str) -> Repeats:
    if kind not in raw:
        return NEVER
    count, at = raw[kind]
    return Repeats(count=int(count), at=float(at))


GOOD_CONDUCT = Conduct()
