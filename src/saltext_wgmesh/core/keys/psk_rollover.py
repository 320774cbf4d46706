"""The rollover of preshared keys: which secret of the mesh each pair of nodes derives its key from.

WireGuard has room for one preshared key per peer. A new key ends no session: it counts from the next handshake, and a
session lives for a minute after that handshake was due. So the two ends may change one after the other within that
minute. A pair with an end that the master can't reach keeps its key.

Only this is stored: the *epochs*, each with the secret that all nodes should use, and the *laggards*, nodes that have
not acknowledged the last epoch. A pair uses the earlier epoch of its two ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.keys import psk
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.stored_time import plausible
from saltext_wgmesh.core.model.view import Peer, View

NO_SECRET = ""
"""In place of a secret's name: no preshared keys."""
EPOCH_TIMEOUT = 20.0
"""Seconds that a notified node has to answer; together with the runs that follow it is less than that minute."""
LAGGARD_RETRY = 300.0
"""Seconds until a node that was notified and did not acknowledge the epoch is notified again."""

KeyOf = Callable[[str, str, str], str]
"""Name of a secret and two public keys → the preshared key of the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Laggard:
    """A node that has not acknowledged the last epoch."""

    epoch: int
    """The epoch that the node is at."""
    notified: bool
    """Whether its published view is of the last epoch: then the node is about to change, and counts as changed."""
    since: float = 0.0
    """When it was notified, or when its timeout was noticed, in Unix time; 0: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PskRollover:
    """The epochs of one mesh that some node is still at."""

    epochs: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({0: NO_SECRET}))
    """Number → name of the secret, or NO_SECRET. The highest number is the current epoch."""
    laggards: Mapping[str, Laggard] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def current_epoch(self) -> int:
        """The number of the last epoch, at which all nodes should be."""
        return max(self.epochs)

    @property
    def secret(self) -> str:
        """The name of the current epoch's secret, or NO_SECRET."""
        return self.epochs[self.current_epoch]

    @property
    def secrets(self) -> frozenset[str]:
        """The names of all secrets that are still needed."""
        return frozenset(self.epochs.values()) - {NO_SECRET}

    def secret_for(self, one: str, other: str) -> str:
        """Return the name of the secret that these two nodes derive their key from, or NO_SECRET."""
        return self.epochs[min(self._epoch_of(one), self._epoch_of(other))]

    def _epoch_of(self, node: str) -> int:
        laggard = self.laggards.get(node)
        return self.current_epoch if laggard is None or laggard.notified else laggard.epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """The master's knowledge of the nodes of a mesh."""

    members: Set[str]
    """The nodes of the plan."""
    published: Set[str]
    """The nodes that have a published view."""
    acknowledged: Set[str]
    """The nodes that have acknowledged their published view."""
    pending: Set[str]
    """The nodes that were told of their published view and have not answered yet."""
    unreachable: Set[str]
    """The nodes that the master can't reach now."""
    now: float
    """Unix time, in seconds."""


def begin_epoch(before: PskRollover, secret: str, fleet: FleetState) -> PskRollover:
    """Begin an epoch in which all nodes should use *secret* (or NO_SECRET).

    Nodes that the master can reach are notified; all others lag behind.
    """
    before = advance_epoch(before, fleet)
    epoch = before.current_epoch + 1
    # A node without a published view has no link yet that could break, so it starts at the new epoch.
    laggards = {
        node: before.laggards.get(node, Laggard(epoch=before.current_epoch, notified=False))
        for node in fleet.members & fleet.published
    }
    return PskRollover(
        epochs={**before.epochs, epoch: secret},
        laggards={node: _notify(node, laggard, fleet) for node, laggard in sorted(laggards.items())},
    )


def advance_epoch(before: PskRollover, fleet: FleetState) -> PskRollover:
    """Return *before* with the laggards as *fleet* shows them.

    - A node that acknowledged the current epoch is no laggard.
    - A notified node that did not acknowledge in time returns to its own epoch.
    - A node that can be reached again is notified.
    """
    before = record_acks(before, fleet.acknowledged)

    def next_of(node: str, laggard: Laggard) -> Laggard:
        if not laggard.notified:
            return _notify(node, laggard, fleet)
        laggard = replace(laggard, since=plausible(laggard.since, fleet.now))
        may_answer = node in fleet.pending and fleet.now - laggard.since < EPOCH_TIMEOUT
        return laggard if may_answer else replace(laggard, notified=False, since=fleet.now)

    members = {node: laggard for node, laggard in before.laggards.items() if node in fleet.members}
    return _with_laggards(before, {node: next_of(node, laggard) for node, laggard in members.items()})


def record_acks(before: PskRollover, acknowledged: Set[str]) -> PskRollover:
    """Return *before* without the notified nodes that have *acknowledged* their published view."""
    return _with_laggards(
        before,
        {n: laggard for n, laggard in before.laggards.items() if not (laggard.notified and n in acknowledged)},
    )


def drop_lost(before: PskRollover, lost: Set[str]) -> PskRollover:
    """Return *before* without the epochs whose secrets are *lost*.

    Nodes at such an epoch count as being at the current one. If the secret of the current epoch is lost, the rollover
    starts without preshared keys.
    """
    if before.secret in lost:
        return PskRollover(epochs={before.current_epoch: NO_SECRET})
    epochs = {number: name for number, name in before.epochs.items() if name not in lost}
    laggards = {node: laggard for node, laggard in before.laggards.items() if laggard.epoch in epochs}
    return PskRollover(epochs=epochs, laggards=laggards)


def _with_laggards(before: PskRollover, laggards: Mapping[str, Laggard]) -> PskRollover:
    """Return *before* with these *laggards*, and without epochs that no node is at."""
    needed = {laggard.epoch for laggard in laggards.values()} | {before.current_epoch}
    return PskRollover(epochs={n: name for n, name in before.epochs.items() if n in needed}, laggards=laggards)


def _notify(node: str, laggard: Laggard, fleet: FleetState) -> Laggard:
    """Return *laggard* as notified, if the master can reach the node and its last timeout is long enough ago."""
    is_reachable = node in fleet.acknowledged and node not in fleet.unreachable
    # A time in the future was written while the clock was ahead: no pause can be derived from it.
    if is_reachable and not 0 <= fleet.now - laggard.since < LAGGARD_RETRY:
        return replace(laggard, notified=True, since=fleet.now)
    return replace(laggard, notified=False)


# --- the plan ------------------------------------------------------------------------------------------


def annotate(plan: Plan, rollover: PskRollover, key_of: KeyOf) -> Plan:
    """Return *plan* with the identifier of the preshared key at each peer of each view."""
    if not rollover.secrets:
        return plan
    known: dict[tuple[str, str, str], str] = {}

    def identifier(secret: str, own: str, other: str) -> str:
        # Both ends need the same key, so each is derived once.
        ends = (secret, min(own, other), max(own, other))
        if ends not in known:
            known[ends] = str(psk.psk_id(key_of(*ends)))
        return known[ends]

    def with_psk_ids(node: str, peer: Peer) -> Peer:
        secret = rollover.secret_for(node, peer.node)
        if secret == NO_SECRET:
            return peer
        key_pairs = psk.psk_pairs(plan.members[node].keys, peer)
        return replace(peer, psk_ids=tuple(identifier(secret, own, other) for own, other in key_pairs))

    def view_of(node: str, view: View) -> View:
        interfaces = (replace(i, peers=tuple(with_psk_ids(node, peer) for peer in i.peers)) for i in view.interfaces)
        return replace(view, keys=plan.members[node].keys, interfaces=tuple(interfaces))

    return replace(plan, views={node: view_of(node, view) for node, view in plan.views.items()})


# --- in the ledger -------------------------------------------------------------------------------------


def rollover_as_dict(rollover: PskRollover) -> dict[str, Any]:
    """Return plain values for the ledger, without any secret; ``rollover_from_dict`` is the inverse."""
    return {
        "epochs": {str(number): name for number, name in rollover.epochs.items()},
        "laggards": {
            node: {"epoch": laggard.epoch, "notified": laggard.notified, "since": laggard.since}
            for node, laggard in rollover.laggards.items()
        },
    }


def rollover_from_dict(raw: Mapping[str, Any]) -> PskRollover:
    """Return what ``rollover_as_dict`` wrote; an empty mapping is a mesh that never had preshared keys.

    Raises ValueError if there is no epoch, or a laggard is at one that is not listed.
    """
    if not raw:
        return PskRollover()
    found = PskRollover(
        epochs={int(number): name for number, name in raw["epochs"].items()},
        laggards={
            node: Laggard(epoch=listed["epoch"], notified=listed["notified"], since=listed["since"])
            for node, listed in raw["laggards"].items()
        },
    )
    if not found.epochs or not {each.epoch for each in found.laggards.values()} <= found.epochs.keys():
        raise ValueError("an epoch of the preshared keys is missing")
    return found
