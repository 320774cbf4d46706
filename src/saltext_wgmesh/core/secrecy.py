"""Which secret of its mesh each pair of nodes makes its preshared key from, while these are turned on, off or rotated.

WireGuard has room for one preshared key a peer. Setting it ends no session: it counts at the next handshake, and a
session lives for a minute after that was due. So both ends may change one after the other, as long as both have changed
within that minute; and a pair of which one end can't be told stays at what it has. That is all that is remembered here:
what came after what (*stages*), and who *lags* behind the last. A pair is at the earlier stage of its two ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core import preshared
from saltext_wgmesh.core.types import Peer, Plan, View

OFF = ""
"""In place of a secret's name: no preshared keys."""
PATIENCE = 20.0
"""Seconds in which a node that was told of a stage may answer: with the runs that follow, less than that minute."""
RETRY = 300.0
"""Seconds after which a node that was told of a stage, and did not take it up, is told again."""

KeyOf = Callable[[str, str, str], str]
"""Name of a secret and two public keys → the key of these two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """A node that has not taken up the last stage."""

    stage: int
    """The one that it has."""
    told: bool
    """Whether its published view is of the last stage: then it is about to take it up, and counts as there."""
    since: float = 0.0
    """When it was told, or was given up if it was told in vain, in seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrecy:
    """The stages of one mesh that somebody still has."""

    stages: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({0: OFF}))
    """Number → name of the secret, or OFF. The highest number is the last stage, at which all should be."""
    lags: Mapping[str, Lag] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def last(self) -> int:
        """The number of the last stage."""
        return max(self.stages)

    @property
    def secret(self) -> str:
        """The name of the last stage's secret, or OFF."""
        return self.stages[self.last]

    @property
    def secrets(self) -> frozenset[str]:
        """The names of all secrets that are still needed."""
        return frozenset(self.stages.values()) - {OFF}

    def meant(self, one: str, other: str) -> str:
        """The name of the secret from which the key of these two nodes is made, or OFF."""
        return self.stages[min(self._at(one), self._at(other))]

    def _at(self, node: str) -> int:
        lag = self.lags.get(node)
        return self.last if lag is None or lag.told else lag.stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of the nodes of a mesh now."""

    members: Set[str]
    """Those of the plan."""
    published: Set[str]
    """Those that have a view already."""
    runs: Set[str]
    """Those that have acknowledged what is published."""
    unanswered: Set[str]
    """Those of the others that were told of it and did not answer yet."""
    deaf: Set[str]
    """Those that can't be told anything now."""
    now: float
    """Seconds since the epoch."""


def start(before: Secrecy, secret: str, seen: Seen) -> Secrecy:
    """*secret* (or OFF) is what all should have from now on. Who can be told is; everybody else lags behind."""
    before = proceed(before, seen)
    last = before.last + 1
    lags = {node: before.lags.get(node, Lag(stage=before.last, told=False)) for node in seen.members & seen.published}
    return Secrecy(
        stages={**before.stages, last: secret},
        lags={node: _tell(node, lag, seen) for node, lag in sorted(lags.items())},
    )


def proceed(before: Secrecy, seen: Seen) -> Secrecy:
    """Who took up the last stage lags no more; who was told in vain goes back to what it has; who is back is told."""
    before = conclude(before, seen.runs)

    def next_of(node: str, lag: Lag) -> Lag:
        if not lag.told:
            return _tell(node, lag, seen)
        may_answer = node in seen.unanswered and 0 <= seen.now - lag.since < PATIENCE
        return lag if may_answer else replace(lag, told=False, since=seen.now)

    return _with_lags(before, {n: next_of(n, lag) for n, lag in before.lags.items() if n in seen.members})


def conclude(before: Secrecy, runs: Set[str]) -> Secrecy:
    """After a push: those of the nodes that were told of the last stage have it that run what is published."""
    return _with_lags(before, {node: lag for node, lag in before.lags.items() if not (lag.told and node in runs)})


def without(before: Secrecy, lost: Set[str]) -> Secrecy:
    """As if the stages of secrets that are *lost* had never been: who has one of these is taken to the last one. If
    that is lost itself, all begins anew."""
    if before.secret in lost:
        return Secrecy(stages={before.last: OFF})
    stages = {n: name for n, name in before.stages.items() if name not in lost}
    return Secrecy(stages=stages, lags={node: lag for node, lag in before.lags.items() if lag.stage in stages})


def _with_lags(before: Secrecy, lags: Mapping[str, Lag]) -> Secrecy:
    """*before* with these *lags*, and without stages that nobody has any more."""
    needed = {lag.stage for lag in lags.values()} | {before.last}
    return Secrecy(stages={n: name for n, name in before.stages.items() if n in needed}, lags=lags)


def _tell(node: str, lag: Lag, seen: Seen) -> Lag:
    """That *node* is told of the last stage now, if it can be."""
    if node in seen.runs and node not in seen.deaf and seen.now - lag.since >= RETRY:
        return replace(lag, told=True, since=seen.now)
    return replace(lag, told=False)


# --- the plan ------------------------------------------------------------------------------------------


def mark(plan: Plan, secrecy: Secrecy, key_of: KeyOf) -> Plan:
    """*plan*, in whose views each peer has the identifier of the key that the two nodes should have."""
    if not secrecy.secrets:
        return plan
    known: dict[tuple[str, str, str], str] = {}

    def identifier(secret: str, own: str, other: str) -> str:
        place = (secret, min(own, other), max(own, other))
        if place not in known:
            known[place] = str(preshared.identifier(key_of(*place)))
        return known[place]

    def marked(node: str, peer: Peer) -> Peer:
        secret = secrecy.meant(node, peer.node)
        if secret == OFF:
            return peer
        ends = preshared.pairs(plan.members[node].keys, peer)
        return replace(peer, preshared=tuple(identifier(secret, own, other) for own, other in ends))

    def view_of(node: str, view: View) -> View:
        interfaces = (replace(i, peers=tuple(marked(node, peer) for peer in i.peers)) for i in view.interfaces)
        return replace(view, keys=plan.members[node].keys, interfaces=tuple(interfaces))

    return replace(plan, views={node: view_of(node, view) for node, view in plan.views.items()})


# --- in the ledger -------------------------------------------------------------------------------------


def as_dict(secrecy: Secrecy) -> dict[str, Any]:
    """Plain values; no secret is among them."""
    return {
        "stages": {str(number): name for number, name in secrecy.stages.items()},
        "lags": {n: {"stage": x.stage, "told": x.told, "since": x.since} for n, x in secrecy.lags.items()},
    }


def from_dict(raw: Mapping[str, Any]) -> Secrecy:
    """The inverse of ``as_dict``; of an empty mapping, that there never were preshared keys."""
    if not raw:
        return Secrecy()
    return Secrecy(
        stages={int(number): name for number, name in raw["stages"].items()},
        lags={node: Lag(**lag) for node, lag in raw["lags"].items()},
    )
