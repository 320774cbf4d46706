"""How long a link that came back must be good before it is used again: not at all, and longer with each flap."""

from __future__ import annotations

from dataclasses import dataclass, replace

FLAP = 60.0
"""Seconds: a link that goes down again so soon after its return flaps."""
FORGET = 300.0
"""Seconds of being up after which earlier flaps are forgotten."""
FIRST = 1.0
CEILING = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDown:
    """The damping of one link. Times are seconds on any clock that only runs forward."""

    hold: float = 0.0
    """Seconds that it must be good before it counts as up."""
    up_at: float | None = None
    """When it came to count as up; None: it never did, or is down."""

    def came_up(self, now: float) -> HoldDown:
        """It counts as up from *now* on."""
        return replace(self, up_at=now)

    def went_down(self, now: float) -> HoldDown:
        """It is down; the next return is held for longer, if the last one was short."""
        if self.up_at is None:
            return self
        good_for = now - self.up_at
        if good_for >= FORGET:
            return HoldDown()
        if good_for >= FLAP:
            return replace(self, up_at=None)
        return HoldDown(hold=min(CEILING, self.hold * 2 or FIRST))
