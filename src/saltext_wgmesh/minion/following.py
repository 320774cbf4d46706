"""Which of its two keys a neighbour runs: its allowed-ips are given to that one.

A neighbour that gets another key may begin to run it at any moment. Both keys are peers of the interface; an allowed-ip
stands on one. It is moved in one step, by being given to the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from saltext_wgmesh.core import wanted, wgtext
from saltext_wgmesh.core.device import PeerStats
from saltext_wgmesh.core.types import Peer
from saltext_wgmesh.minion.host import Host

log = logging.getLogger("wgmesh.watch")

Place = tuple[str, str]
"""A device and a public key."""


@dataclass(slots=True)
class Follower:
    """What is remembered of neighbours with two keys between two looks."""

    host: Host
    holders: dict[Place, str] = field(default_factory=dict)
    """Device and neighbour → the key that has its allowed-ips."""
    tried_at: dict[Place, float] = field(default_factory=dict)
    """Device and neighbour → when these were last moved without a sign, in seconds since the epoch."""
    received: dict[Place, int] = field(default_factory=dict)
    """Bytes at the last look."""

    def look(self, peers: Iterable[tuple[str, Peer]]) -> None:
        """Each of *peers* (device and peer) that runs its other key has its allowed-ips there. HostError if ``wg``
        fails."""
        listed = [(device, peer) for device, peer in peers if peer.next_key]
        if not listed:
            return
        live = wgtext.parse_dump(self.host.run("wg", "show", "all", "dump"))
        for device, peer in listed:
            if device in live:
                self._look(device, peer, live[device])

    def _look(self, device: str, peer: Peer, live: wgtext.Dumped) -> None:
        held = {p.public_key: p.allowed_ips for p in live.peers if p.public_key in peer.keys}
        stats = {s.public_key: s for s in live.stats if s.public_key in held}
        if held.keys() != set(peer.keys):
            return
        holder = next((key for key in peer.keys if held[key]), peer.public_key)
        other = next(key for key in peer.keys if key != holder)
        self.holders[device, peer.node] = holder
        grew = {key: self._grew(device, one) for key, one in stats.items()}
        tried = int(self.tried_at.get((device, peer.node), 0))
        last, latest = (stats[key].handshake_at or 0 for key in (holder, other))
        # Handshakes are told in whole seconds.
        if latest > max(last, tried) or (latest and latest >= last and grew[other] and not grew[holder]):
            self.give(device, peer, other)

    def _grew(self, device: str, stats: PeerStats) -> bool:
        before = self.received.get((device, stats.public_key))
        self.received[device, stats.public_key] = stats.received
        return before is not None and stats.received > before

    def give(self, device: str, peer: Peer, key: str) -> None:
        """The allowed-ips of *peer* stand on *key*."""
        first, second = sorted(wanted.peer_configs(peer, key), key=lambda p: p.public_key != key)
        keepalive = (str(first.keepalive), str(second.keepalive))
        words = ("peer", key, "persistent-keepalive", keepalive[0], "allowed-ips", ",".join(first.allowed_ips))
        self.host.run("wg", "set", device, *words, "peer", second.public_key, "persistent-keepalive", keepalive[1])
        self.holders[device, peer.node] = key
        log.info("%s: %s runs its key %s", device, peer.node, key)

    def try_other(self, device: str, peer: Peer) -> str:
        """The key of *peer* that is to be tried next, and is taken for the holder from now on: nothing is heard of it,
        so it may run either."""
        holder = self.holders.get((device, peer.node), peer.public_key)
        other = next((key for key in peer.keys if key != holder), holder)
        self.holders[device, peer.node] = other
        self.tried_at[device, peer.node] = time.time()
        return other
