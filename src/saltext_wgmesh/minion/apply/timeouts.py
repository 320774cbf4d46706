"""How long an apply waits: one record, so that a caller can pass other values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """All in seconds."""

    verify: float = 10.0
    """For everything that the node had before the apply to be back: WireGuard repeats a lost handshake after 5 s."""
    recovery: float = 30.0
    """The same after an apply that died: after a reboot all sessions start again."""
    link: float = 10.0
    """For a link to be up again after its disruptive step; then the apply is rolled back."""
    optional_link: float = 3.0
    """The same where the apply goes on without the link: while it rolls back, and after a step that changes the key."""
    follow_up: float = 2.0
    """For the other ends of the links of a step to follow, before the next step."""


DEFAULT = Timeouts()
