"""How soon one more run may begin, so that events cannot keep the master busy.

Times are seconds by the clock that runs from the boot and is never set. Those of an earlier boot delay a run by
MAX_DELAY seconds at most.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

BURST = 5
"""Runs that may follow each other at once."""
BURST_WINDOW = 5.0
"""Seconds in which at most BURST runs begin."""
IDLE_BACKOFF = 1.0
"""Pause after a run that changed nothing, as a multiple of that run's duration."""
MAX_DELAY = 10.0
"""Seconds of the longest pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """When the last runs were. ``encode`` and ``decode`` keep it in the lock file, for all processes."""

    begun: tuple[float, ...] = ()
    """When the last BURST runs began, oldest first."""
    not_before: float = 0.0
    """When the pause after the last run ends."""

    def delay(self, now: float) -> float:
        """Seconds until one more run may begin, at most MAX_DELAY.

        Times that lie ahead are of an earlier boot, and do not count.
        """
        if len(self.begun) < BURST or self.begun[-1] > now:
            return 0.0
        pause = self.not_before - now if self.not_before - now <= MAX_DELAY else 0.0
        return max(0.0, self.begun[0] + BURST_WINDOW - now, pause)

    def run_began(self, now: float) -> RateLimit:
        """The limit after one more run began."""
        past = (time for time in self.begun if time <= now)
        return replace(self, begun=(*past, now)[-BURST:])

    def run_ended(self, now: float, *, made_changes: bool) -> RateLimit:
        """The limit after that run ended; a run that made no changes is followed by a pause."""
        pause = min(MAX_DELAY, IDLE_BACKOFF * max(0.0, now - self.begun[-1]))
        return self if made_changes else replace(self, not_before=now + pause)

    def encode(self) -> str:
        """The text of the lock file."""
        return json.dumps({"begun": list(self.begun), "not_before": self.not_before})

    @classmethod
    def decode(cls, text: str | bytes) -> RateLimit:
        """The limit that ``encode`` wrote; as if nothing had run yet, if the text cannot be read."""
        try:
            raw = json.loads(text)
            return cls(begun=tuple(float(time) for time in raw["begun"]), not_before=float(raw["not_before"]))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return cls()
