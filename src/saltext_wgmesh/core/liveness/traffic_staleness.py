"""Whether a peer has stopped to answer, from repeated samples of its counters, for nodes without a watcher.

WireGuard answers data with a keepalive after ten seconds at the latest if it has nothing else to send (whitepaper
section 6.5). So a link on which data stays unanswered for longer is dead. Keepalives and handshakes have no reliable
answer, and an idle link gives no evidence at all: neither counts as stale.
"""

from __future__ import annotations

from dataclasses import dataclass

KEEPALIVE_BYTES = 32
"""Bytes of a keepalive: header and tag of an empty transport message (whitepaper section 5.4.6)."""
INITIATION_BYTES = 148
"""Bytes of the first message of a handshake (section 5.4.2)."""
ANSWER_WITHIN = 11.0
"""Seconds: Keepalive-Timeout (section 6.1), and one second for the path."""
_NO_DATA = frozenset(k * KEEPALIVE_BYTES + i * INITIATION_BYTES for k in range(3) for i in range(3))
"""The amounts that a second without data may add to the counter of sent bytes. An empty datagram has the size of a
keepalive and may be overlooked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficWatch:
    """The counters of one peer at the last sample, and since when data is unanswered."""

    received: int
    """Bytes."""
    sent: int
    """Bytes."""
    unanswered_since: float | None = None
    """When data was first sent without an answer, in seconds on any clock; None: all data was answered."""

    def sample(self, received: int, sent: int, now: float) -> TrafficWatch:
        """Return the watch after one more sample of the counters (bytes) at *now*."""
        since = self.unanswered_since
        if received != self.received:
            since = None
        elif since is None and sent - self.sent not in _NO_DATA:
            since = now
        return TrafficWatch(received=received, sent=sent, unanswered_since=since)

    def is_stale(self, now: float) -> bool:
        """Return whether an answer is overdue at *now*."""
        return self.unanswered_since is not None and now - self.unanswered_since > ANSWER_WITHIN
