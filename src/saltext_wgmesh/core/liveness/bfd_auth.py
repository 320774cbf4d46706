"""Authentication of BFD packets by keys that only the two ends of a link have.

WireGuard proves which node sent a packet, not which program: any user of that node may send one. The watcher therefore
appends a code to each packet. It is keyed as in RFC 5880 section 6.7, with BLAKE2s (RFC 7693) in place of SHA1. The
code follows after the length of the packet, and the A bit is not set: an end that does not know the code, such as a
former version, ignores it and keeps its link. No sequence number is needed, since WireGuard refuses replayed packets.
"""

from __future__ import annotations

import enum
import hmac
from dataclasses import dataclass, field
from hashlib import blake2s

from saltext_wgmesh.core.liveness.bfd import PACKET_LENGTH

CODE_LENGTH = 16
"""Bytes of the code."""
REMEMBERED = 10.0
"""Seconds after a genuine packet for which no other is accepted. Then the neighbour may have gone back to a version
without codes. It is longer than the restart of a watcher."""


class Authenticity(enum.Enum):
    """The finding about one packet."""

    GENUINE = enum.auto()
    """The neighbour's watcher sent it."""
    UNSIGNED = enum.auto()
    """It has no valid code, and the neighbour is not known to send codes."""
    FORGED = enum.auto()
    """It has no valid code, although the neighbour sends codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkKey:
    """The keys of one link for one pair of WireGuard keys, one for each direction: no packet is valid the way back."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)


class Authentication:
    """The codes of one link. Times are seconds on any clock that only runs forward.

    During a key rotation each end has two keys, and neither end knows which of them the other has destroyed. All pairs
    are therefore accepted. Packets are sent with the pair that the neighbour used last. Until one is heard they take
    turns.
    """

    __slots__ = ("_chosen", "_genuine_at", "_keys")

    def __init__(self) -> None:
        self._keys: tuple[LinkKey, ...] = ()
        self._chosen = 0
        self._genuine_at = float("-inf")

    def set_keys(self, keys: tuple[LinkKey, ...]) -> None:
        """Use *keys* from now on, and the one in use until the neighbour has used another."""
        in_use = self._keys[self._chosen : self._chosen + 1]
        self._keys = (*keys, *(key for key in in_use if key not in keys))
        self._chosen = next((i for i, key in enumerate(self._keys) if key in in_use), 0)

    def sign(self, data: bytes, now: float) -> bytes:
        """Return the packet *data* with its code; unchanged without keys."""
        if not self._keys:
            return data
        if now - self._genuine_at >= REMEMBERED:
            self._chosen = (self._chosen + 1) % len(self._keys)
        return data + _code(self._keys[self._chosen].send, data)

    def check(self, data: bytes, now: float) -> Authenticity:
        """Return whether the neighbour's watcher sent the datagram *data*."""
        if len(data) >= PACKET_LENGTH + CODE_LENGTH and self._keys:
            packet, code = data[:PACKET_LENGTH], data[PACKET_LENGTH : PACKET_LENGTH + CODE_LENGTH]
            if hmac.compare_digest(_code(self._keys[self._chosen].receive, packet), code):
                self._genuine_at = now
                return Authenticity.GENUINE
            for i in range(len(self._keys)):
                if hmac.compare_digest(_code(self._keys[i].receive, packet), code):
                    self._chosen, self._genuine_at = i, now
                    return Authenticity.GENUINE
        return Authenticity.FORGED if now - self._genuine_at < REMEMBERED else Authenticity.UNSIGNED


def _code(key: bytes, packet: bytes) -> bytes:
    return blake2s(packet, key=key, digest_size=CODE_LENGTH).digest()
