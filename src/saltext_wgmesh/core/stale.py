"""A peer's counters, read again and again → whether it has stopped to answer. For nodes without a watcher.

WireGuard answers data with a keepalive after ten seconds at the latest if there is nothing else to send (whitepaper
section 6.5), so data without any answer for longer is a dead link. Keepalives and handshakes are answered by nothing
that can be counted on, and an idle link says nothing at all: neither is ever called stale.
"""

from __future__ import annotations

from dataclasses import dataclass

KEEPALIVE = 32
"""Bytes of a keepalive: header and tag of an empty transport message (whitepaper section 5.4.6)."""
INITIATION = 148
"""Bytes of a handshake's first message (section 5.4.2)."""
ANSWER_WITHIN = 11.0
"""Seconds: Keepalive-Timeout (section 6.1), and one for the way."""
_NO_DATA = frozenset(k * KEEPALIVE + i * INITIATION for k in range(3) for i in range(3))
"""What a second may add to the counter of bytes sent without any data: an empty datagram may be overlooked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What one peer's counters said up to now."""

    received: int
    sent: int
    unanswered_since: float | None = None
    """When data was first sent that nothing has come back for; seconds on any clock."""

    def seen(self, received: int, sent: int, now: float) -> Peer:
        """After one more look at the counters."""
        since = self.unanswered_since
        if received != self.received:
            since = None
        elif since is None and sent - self.sent not in _NO_DATA:
            since = now
        return Peer(received=received, sent=sent, unanswered_since=since)

    def stale(self, now: float) -> bool:
        """Whether it should have answered by *now*, and has not."""
        return self.unanswered_since is not None and now - self.unanswered_since > ANSWER_WITHIN
