"""Track which of its two keys a neighbour runs, and give the allowed-ips to that key.

During a key rotation a neighbour may activate its next key at any moment. Both keys are peers of the interface, but an
allowed-ip belongs to one peer. Setting it on the other peer moves it in one step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from saltext_wgmesh.core.device import desired, wg_cli
from saltext_wgmesh.core.device.state import PeerStats
from saltext_wgmesh.core.model.view import Peer
from saltext_wgmesh.minion.system.host import Host

log = logging.getLogger("wgmesh.watch")

DUMP = ("wg", "show", "all", "dump")
DeviceAndNode = tuple[str, str]
DeviceAndKey = tuple[str, str]


@dataclass(slots=True)
class PeerKeyTracker:
    """The active keys of the neighbours that have two."""

    host: Host
    active_key: dict[DeviceAndNode, str] = field(default_factory=dict)
    """The key that has the neighbour's allowed-ips."""
    tried_at: dict[DeviceAndNode, float] = field(default_factory=dict)
    """When the allowed-ips were last moved without evidence, in seconds since the epoch."""
    received: dict[DeviceAndKey, int] = field(default_factory=dict)
    """Bytes at the last update."""

    def update(self, peers: Iterable[tuple[str, Peer]]) -> None:
        """Move the allowed-ips of each of *peers* (device and peer) to the key that it runs. HostError if ``wg``
        fails."""
        listed = [(device, peer) for device, peer in peers if peer.next_key]
        if listed:
            for command in self.moves(listed, self.host.run(*DUMP)):
                self.host.run(*command)

    def moves(self, listed: Iterable[tuple[str, Peer]], dump: str) -> Iterator[tuple[str, ...]]:
        """Yield the commands that ``update`` runs for the neighbours *listed*, which have two keys.

        *dump* is the output of DUMP. A neighbour whose command was yielded is taken for moved.
        """
        live = wg_cli.parse_dump(dump)
        configs = {(name, p.public_key): p.allowed_ips for name, dumped in live.items() for p in dumped.peers}
        counters = {(name, s.public_key): s for name, dumped in live.items() for s in dumped.stats}
        for device, peer in listed:
            held = {key: configs[device, key] for key in peer.keys if (device, key) in configs}
            other = self._key_to_activate(device, peer, held, {key: counters[device, key] for key in held})
            if other is not None:
                yield self.move(device, peer, other)

    def _key_to_activate(
        self, device: str, peer: Peer, held: Mapping[str, tuple[str, ...]], stats: Mapping[str, PeerStats]
    ) -> str | None:
        """Return the key to which the allowed-ips must move; None: they are where they belong.

        *held* are the allowed-ips and *stats* the counters of the keys of *peer* that the device has.
        """
        if held.keys() != set(peer.keys):
            # An apply is changing the device: its view decides about the peers, and the next update about the key.
            return None
        active = next((key for key in peer.keys if held[key]), peer.public_key)
        other = next(key for key in peer.keys if key != active)
        self.active_key[device, peer.node] = active
        grew = {key: self._grew(device, one) for key, one in stats.items()}
        # An attempt in the future was made while the clock was ahead.
        tried = int(self.tried_at.get((device, peer.node), 0))
        tried = tried if tried <= time.time() else 0
        last, latest = (stats[key].handshake_at or 0 for key in (active, other))
        # A handshake from before an attempt is no evidence for the key that was left. WireGuard gives handshake times
        # in whole seconds, so of two in one second the received bytes decide.
        runs_other = latest > max(last, tried) or (latest and latest >= last and grew[other] and not grew[active])
        return other if runs_other else None

    def _grew(self, device: str, stats: PeerStats) -> bool:
        before = self.received.get((device, stats.public_key))
        self.received[device, stats.public_key] = stats.received
        return before is not None and stats.received > before

    def move(self, device: str, peer: Peer, key: str) -> tuple[str, ...]:
        """Return the command that gives *key*, one of the keys of *peer*, its allowed-ips and keepalive."""
        first, second = sorted(desired.peer_configs(peer, key), key=lambda p: p.public_key != key)
        keepalive = (str(first.keepalive), str(second.keepalive))
        words = ("peer", key, "persistent-keepalive", keepalive[0], "allowed-ips", ",".join(first.allowed_ips))
        self.active_key[device, peer.node] = key
        log.info("%s: allowed-ips of %s move to its key %s", device, peer.node, key)
        return ("wg", "set", device, *words, "peer", second.public_key, "persistent-keepalive", keepalive[1])

    def try_other_key(self, device: str, peer: Peer) -> str:
        """Return the other key of *peer*, and take it for the active one from now on.

        The link is down, so the peer may run either. The caller sets the allowed-ips.
        """
        active = self.active_key.get((device, peer.node), peer.public_key)
        other = next((key for key in peer.keys if key != active), active)
        self.active_key[device, peer.node] = other
        self.tried_at[device, peer.node] = time.time()
        return other
