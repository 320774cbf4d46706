"""How long a link that came back must be up before it is used again.

A link without recent flaps is used at once. The hold-down time doubles with each flap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FLAP_WINDOW = 60.0
"""Seconds: a link that goes down again within this time after its return flaps."""
FORGET_AFTER = 300.0
"""Seconds of being up after which earlier flaps are forgotten."""
INITIAL_HOLD = 1.0
"""Seconds: the hold-down time after the first flap."""
HOLD_CEILING = 60.0
"""Seconds: the longest hold-down time."""
FREE_HOLDS = 8
"""Times within FLAP_WINDOW that the neighbour may hold the link down on purpose. One more is a flap: an apply holds a
link down once or twice, and a transition has some applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDown:
    """The damping of one link. Times are seconds on any clock that only runs forward."""

    hold: float = 0.0
    """Seconds that the link must be up before it counts as up."""
    up_at: float | None = None
    """When the link came to count as up; None: it is down, or was never up."""
    held_at: tuple[float, ...] = ()
    """When the neighbour held the link down on purpose, at most the last FREE_HOLDS times."""

    def came_up(self, now: float) -> HoldDown:
        """Return the damping of a link that counts as up from *now* on."""
        return replace(self, up_at=now)

    def went_down(self, now: float) -> HoldDown:
        """Return the damping of a link that went down at *now*.

        The next hold-down time is longer if the link was up for a short time only.
        """
        # A link that has not counted as up since then can't flap: no route has used it.
        if self.up_at is None:
            return self
        up_for = now - self.up_at
        if up_for >= FORGET_AFTER:
            return HoldDown(held_at=self.held_at)
        if up_for >= FLAP_WINDOW:
            # Too long for a flap, too short to forget the earlier ones.
            return replace(self, up_at=None)
        return replace(self, hold=min(HOLD_CEILING, self.hold * 2 or INITIAL_HOLD), up_at=None)

    def was_held(self, now: float) -> HoldDown:
        """Return the damping of a link that the neighbour holds down on purpose since *now*."""
        return replace(self, held_at=(*self.held_at, now)[-FREE_HOLDS:])

    def may_be_held(self, now: float) -> bool:
        """Return whether the neighbour may hold the link down at *now* without a hold-down time."""
        return len(self.held_at) < FREE_HOLDS or now - self.held_at[0] >= FLAP_WINDOW
