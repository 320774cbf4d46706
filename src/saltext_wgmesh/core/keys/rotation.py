"""Key rotation: which node gets another key, and when it may switch to it. The clock is a parameter.

A node that is to rotate creates a second key and publishes it beside the first. All its neighbours accept both. Once
they have acknowledged that, the node is *activated*: its view names the key that it must run. From then on neighbours
accept whichever of the two keys the node runs. So any two neighbours have one key of each in common, whichever mixture
of old and new views nodes hold. When all interfaces of the node run the new key, the node publishes that key alone. The
old key is then removed everywhere (pre-publish rollover, RFC 6781 section 4.1.1.1).

Two things are stored: the nodes that are requested to create a key, and the nodes that are activated. All else follows
at every run from what nodes have published and acknowledged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.pairs import NodePair, node_pair
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.stored_time import plausible

Times = Mapping[str, float]
"""Node → seconds since the epoch."""

ACTIVATION_TIMEOUT = 120.0
"""Seconds that an activated node has to switch; then its activation is withdrawn."""
ACTIVATION_BACKOFF = 300.0
"""Seconds until a node whose activation was withdrawn may be activated again."""
BLOCK_LIMIT = 6 * 3600.0
"""Seconds after which a neighbour that has not acknowledged the next key of a node no longer keeps the node from it."""
NOTIFY_INTERVAL = 60.0
"""Seconds after which a node that is requested to create a key is notified again."""


def _none() -> Times:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The stored state of all key rotations of one mesh."""

    requested: Times = field(default_factory=_none)
    """Nodes that must create another key → when they were last notified; 0: not yet."""
    activated: Times = field(default_factory=_none)
    """Nodes that may run their next key → since when."""
    backed_off_until: Times = field(default_factory=_none)
    """Nodes whose activation was withdrawn → until when they are not activated again."""
    open_since: Times = field(default_factory=_none)
    """Nodes with a next key → since when it is published; 0: the operator has these not wait for their neighbours."""
    period: int = 0
    """``rotate_after`` of the policy at the last check, in seconds."""
    checked_at: float = 0.0
    """When nodes were last checked for a due rotation, in seconds since the epoch."""


NO_ROTATION = Rotation()


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationInput:
    """The master's knowledge of the mesh while it makes a plan."""

    neighbours: Mapping[str, frozenset[str]]
    """Member → the nodes that it has links to."""
    relays: Set[str]
    """The relays among the members."""
    next_keys: Mapping[str, str]
    """Members that have published a next key → that key."""
    published_next_keys: Mapping[str, str]
    """The same, as the published plan has it."""
    acknowledged: Set[str]
    """Nodes that have acknowledged what is published."""
    down: Set[str] = frozenset()
    """Nodes that count as down."""
    down_links: Set[NodePair] = frozenset()
    """Links that count as down."""
    now: float = 0.0
    """Seconds since the epoch."""


def request(before: Rotation, nodes: Iterable[str]) -> Rotation:
    """Return *before* with a request for another key of each of *nodes*."""
    return replace(before, requested=_sorted({**dict.fromkeys(nodes, 0.0), **before.requested}))


def force(before: Rotation, nodes: Iterable[str]) -> Rotation:
    """Return *before* with such a request, where *nodes* do not wait until their neighbours know their next keys."""
    forced = set(nodes)
    return replace(request(before, forced), open_since=_sorted({**before.open_since, **dict.fromkeys(forced, 0.0)}))


def is_step(known: Rotation, before: Facts, after: Facts) -> bool:
    """Return whether a node whose facts are *after* instead of *before* did just what it was told to.

    Either it was requested to create a next key and has created its only one, or it was activated and runs that key.
    Any other key is the node's own doing, even during a rotation.
    """
    created = replace(before, next_key=after.next_key)
    switched = replace(before, public_key=before.next_key or "", next_key=None)
    if before.node in known.requested and before.next_key is None and after == created:
        return True
    return before.node in known.activated and after == switched


def request_due(before: Rotation, nodes: Iterable[str], period: int, now: float) -> Rotation:
    """Return *before* with a request for each of *nodes* whose rotation is due at *now*.

    Each node has one moment in every *period* (seconds; 0: no node has), by a hash of its name, so that the rotations
    of a fleet are spread over the period. A changed period begins at *now*.
    """
    before = with_plausible_times(before, now)
    # Counted from zero, each node would have had a moment, and all would be due at once.
    if period != before.period or not before.checked_at:
        return replace(before, period=period, checked_at=now if period else 0.0)
    if not period:
        return before
    found = [n for n in nodes if _moments(n, period, now) > _moments(n, period, before.checked_at)]
    return replace(request(before, found), checked_at=now) if found else before


def with_plausible_times(before: Rotation, now: float) -> Rotation:
    """Return *before* with *now* in place of times that no right clock can have written.

    So no rotation waits for such a time, none is given up for it, and not all nodes are due at once.
    """

    def clamped(times: Times, latest: float = now) -> Times:
        return {node: at and plausible(at, latest) for node, at in times.items()}

    return replace(
        before,
        requested=clamped(before.requested),
        activated=clamped(before.activated),
        open_since=clamped(before.open_since),
        backed_off_until=clamped(before.backed_off_until, now + ACTIVATION_BACKOFF),
        checked_at=before.checked_at and plausible(before.checked_at, now),
    )


def _moments(node: str, period: int, now: float) -> int:
    """Return how many moments of *node* have passed at *now*."""
    # A hash needs no record: each run finds the same moment for a node, also after a loss of the ledger.
    share = int.from_bytes(hashlib.sha256(node.encode()).digest()[:6], "big") / 2**48
    return int(now / period + share)


def advance(before: Rotation, state: RotationInput) -> Rotation:
    """Return the requests that are still open, and the nodes that are activated now.

    No two neighbours switch at the same time, and no two relays, so that each node keeps a path. No node is activated
    while a neighbour may not know its next key, for at most BLOCK_LIMIT seconds: a neighbour that never acknowledges
    then loses its link to the node, and nothing else.
    """
    before = replace(before, open_since=_open_since(before, state))
    members, published = state.neighbours, state.published_next_keys
    # A node that has published its next key alone, or another one, has finished or given up its switch.
    activated = {n: at for n, at in before.activated.items() if state.next_keys.get(n, "") == published.get(n)}
    late = {n for n, at in activated.items() if _is_late(n, at, state)}
    activated = {n: at for n, at in activated.items() if n in members and n not in late}
    backed_off = {n: until for n, until in before.backed_off_until.items() if until > state.now}
    backed_off = {n: until for n, until in backed_off.items() if n in state.next_keys}
    # A node that did not switch in time would hold up all others, so it waits and these go first.
    backed_off |= dict.fromkeys(late, state.now + ACTIVATION_BACKOFF)

    before = replace(before, backed_off_until=_sorted(backed_off))
    switching = activated.keys() - state.acknowledged
    # Relays first, since all other nodes wait for them.
    for node in sorted(published, key=lambda n: (n not in state.relays, n)):
        if node not in activated and not any(_obstacles(node, state, switching, before)):
            # Counted at once: the next node of this loop must not be a neighbour of this one.
            activated[node] = state.now
            switching.add(node)
    requested = {n: at for n, at in before.requested.items() if n in members and n not in state.next_keys}
    return replace(
        before,
        requested=_sorted(requested),
        activated=_sorted(activated),
    )


def _open_since(before: Rotation, state: RotationInput) -> Times:
    """Return since when the neighbours of each node with a next key were to acknowledge it."""
    known = {n: at for n, at in before.open_since.items() if n in state.next_keys or n in before.requested}
    return _sorted({**dict.fromkeys(state.published_next_keys, state.now), **known})


def _is_late(node: str, activated_at: float, state: RotationInput) -> bool:
    """Return whether an activated *node* has not switched in time, or went down before it did."""
    timed_out = state.now - activated_at > ACTIVATION_TIMEOUT
    return node not in state.acknowledged and (node in state.down or timed_out)


def to_notify(rotation: Rotation, down: Set[str], now: float) -> tuple[str, ...]:
    """Return the nodes to notify now that they must create a key, sorted. Nodes that are *down* are left out."""
    return tuple(n for n, at in rotation.requested.items() if n not in down and now - at >= NOTIFY_INTERVAL)


def unconfirmed(rotation: Rotation, state: RotationInput) -> frozenset[str]:
    """Return the nodes that switched more than NOTIFY_INTERVAL ago and have not published that."""
    return frozenset(
        n for n, at in rotation.activated.items() if n in state.acknowledged and state.now - at > NOTIFY_INTERVAL
    )


def mark_notified(rotation: Rotation, nodes: Iterable[str], now: float) -> Rotation:
    """Return *rotation*, in which *nodes* were notified at *now*."""
    return replace(rotation, requested=_sorted({**rotation.requested, **dict.fromkeys(nodes, now)}))


def blockers(rotation: Rotation, state: RotationInput) -> dict[str, str]:
    """Return each node that is about to get another key → what it waits for, in a few words; sorted."""
    found = dict.fromkeys(rotation.requested, "it must create its next key")
    for node in state.next_keys:
        if node in rotation.activated and node in state.acknowledged:
            found[node] = "it runs its new key and has not published that yet"
        elif node in rotation.activated:
            found[node] = "it is switching to its new key"
        elif state.published_next_keys.get(node) != state.next_keys[node]:
            found[node] = "its new key is not published yet"
        else:
            switching = rotation.activated.keys() - state.acknowledged
            reasons = list(_obstacles(node, state, switching, rotation))
            found[node] = "; ".join(reasons[:3]) or "it is activated next"
    return dict(sorted(found.items()))


def _obstacles(node: str, state: RotationInput, switching: Set[str], rotation: Rotation) -> Iterator[str]:
    """Yield the reasons why *node* can't be activated now; *switching* are activated nodes that may be about to switch.

    A node that is down has not acknowledged anything, and no other node waits for it. After BLOCK_LIMIT seconds the
    word of other nodes, or the lack of it, is no reason either.
    """
    others = state.neighbours.get(node)
    if others is None or state.published_next_keys.get(node) != state.next_keys.get(node):
        yield "its new key is not published"
        return
    if node in rotation.backed_off_until:
        yield "it did not switch in time and waits"
    if node in state.down:
        yield "it is down"
    since = rotation.open_since.get(node, state.now)
    is_overdue = not since or state.now - since > BLOCK_LIMIT
    awaited = (node,) if is_overdue else (node, *others)
    behind = sorted(n for n in awaited if n not in state.acknowledged and n not in state.down)
    if behind:
        yield f"not acknowledged by {_listed(behind)}"
    # Two ends that switch at once would each call a key that the other has left. Two relays may be the only paths.
    busy = sorted(switching & others | (switching & state.relays if node in state.relays else set()))
    if busy:
        yield f"{_listed(busy)} is switching"
    isolated = [] if is_overdue else sorted(_would_be_isolated(node, state))
    if isolated:
        yield f"{_listed(isolated)} has no other relay that is up"


def _would_be_isolated(node: str, state: RotationInput) -> Iterator[str]:
    """Yield the leaves that would lose all paths while *node* switches.

    A leaf with one relay in the plan has no second path at any time, so it holds no node up.
    """
    if node in state.relays:
        # Each leaf of this relay needs one other relay.
        least, leaves = 1, [n for n in state.neighbours[node] if n not in state.relays and n not in state.down]
    else:
        # The leaf recreates its links one after the other, so it needs two.
        least, leaves = 2, [node]
    for leaf in leaves:
        relays = state.neighbours.get(leaf, frozenset()) & state.relays
        up = {r for r in relays - {node} if r not in state.down and node_pair(leaf, r) not in state.down_links}
        if len(relays) >= 2 and len(up) < least:
            yield leaf


def _listed(nodes: list[str]) -> str:
    return ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")


def with_activation(plan: Plan, nodes: Set[str]) -> Plan:
    """Return *plan*, in which *nodes* and no others are activated: their views name their next key."""
    keys = {node: member.next_key if node in nodes else None for node, member in plan.members.items()}
    views = {n: replace(v, activate_key=keys.get(n)) for n, v in plan.views.items() if v.activate_key != keys.get(n)}
    return replace(plan, views={**plan.views, **views}) if views else plan


# --- in the ledger -------------------------------------------------------------------------------------


def rotation_as_dict(rotation: Rotation) -> dict[str, Any]:
    """Return plain values for the ledger; empty if there is nothing to store. ``rotation_from_dict`` is the inverse."""
    return (
        {}
        if rotation == NO_ROTATION
        else {
            "requested": dict(rotation.requested),
            "activated": dict(rotation.activated),
            "backed_off_until": dict(rotation.backed_off_until),
            # Rotations of former versions have no such times, and most meshes have no rotation.
            **({"open_since": dict(rotation.open_since)} if rotation.open_since else {}),
            "period": rotation.period,
            "checked_at": rotation.checked_at,
        }
    )


def rotation_from_dict(raw: Mapping[str, Any]) -> Rotation:
    """Return the rotation that ``rotation_as_dict`` wrote."""
    return Rotation(
        requested=dict(raw.get("requested", {})),
        activated=dict(raw.get("activated", {})),
        backed_off_until=dict(raw.get("backed_off_until", {})),
        open_since=dict(raw.get("open_since", {})),
        period=int(raw.get("period", 0)),
        checked_at=float(raw.get("checked_at", 0.0)),
    )


def _sorted(times: Times) -> dict[str, float]:
    return dict(sorted(times.items()))
