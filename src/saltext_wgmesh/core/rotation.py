"""Who gets another key, and when it may turn to it. The clock is a parameter.

A node that is to rotate makes a second key and publishes it beside the first. All its neighbours take both; once they
have acknowledged that, the node is given the *turn*: its view names the key that it is to run. Whatever it runs of the
two then, its neighbours take it, and whatever mixture of old and new views nodes hold, any two neighbours have one key
of each in common. When all its interfaces run the new key, it publishes that one alone, and the old one goes
everywhere.

Two things are remembered: who is wanted to make a key and has not, and who has the turn. All else follows, at every
run, from what nodes published and acknowledged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.types import Plan

Times = Mapping[str, float]
"""Node → seconds since the epoch."""
Pair = tuple[str, str]
"""Two neighbours, sorted."""

PATIENCE = 120.0
"""Seconds after which a node that was given the turn and has not taken it gives it back."""
AGAIN = 300.0
"""Seconds until it is given it once more."""
TELL_AGAIN = 60.0
"""Seconds after which a node that is wanted to make a key is told again."""


def _none() -> Times:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What must be remembered of one mesh's rotations."""

    wanted: Times = field(default_factory=_none)
    """Nodes that are to make another key → when they were last told; 0: not yet."""
    turns: Times = field(default_factory=_none)
    """Nodes that may run their next key → since when."""
    rests: Times = field(default_factory=_none)
    """Nodes that did not take their turn → until when they don't get it again."""
    period: int = 0
    """``rotate_after`` of the policy when it was last looked at."""
    looked_at: float = 0.0
    """Whose time had come until then has been wanted since."""


NOTHING = Rotation()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known of the mesh while a plan is made."""

    neighbours: Mapping[str, frozenset[str]]
    """Member → the nodes that it has links to."""
    relays: Set[str]
    next_keys: Mapping[str, str]
    """Members that have published a next key → that."""
    held: Mapping[str, str]
    """The same, as the published plan has it."""
    runs: Set[str]
    """Nodes that have acknowledged what is published."""
    down: Set[str] = frozenset()
    cut: Set[Pair] = frozenset()
    """Links that count as down."""
    now: float = 0.0


def want(before: Rotation, nodes: Iterable[str]) -> Rotation:
    """*nodes* are to get another key, as soon as may be."""
    return replace(before, wanted=_sorted({**dict.fromkeys(nodes, 0.0), **before.wanted}))


def due(before: Rotation, nodes: Iterable[str], period: int, now: float) -> Rotation:
    """Those of *nodes* whose time has come are wanted: each has one moment in every *period* (seconds; 0: none has), by
    a hash of its name, so that a fleet's are spread over it. A period that is new begins now."""
    if period != before.period or not before.looked_at:
        return replace(before, period=period, looked_at=now if period else 0.0)
    if not period:
        return before
    found = [n for n in nodes if _moments(n, period, now) > _moments(n, period, before.looked_at)]
    return replace(want(before, found), looked_at=now) if found else before


def _moments(node: str, period: int, now: float) -> int:
    """How many moments of *node* there have been at *now*."""
    share = int.from_bytes(hashlib.sha256(node.encode()).digest()[:6], "big") / 2**48
    return int(now / period + share)


def step(before: Rotation, look: Look) -> Rotation:
    """Who is still wanted to make a key, and who has the turn now. Never two neighbours who have not taken it yet, and
    one such relay at a time, so that each node keeps a path; and nobody of whom a neighbour may not know the key."""
    members = look.neighbours
    kept = {n: at for n, at in before.turns.items() if look.next_keys.get(n, "") == look.held.get(n)}
    late = {n for n, at in kept.items() if n not in look.runs and (n in look.down or look.now - at > PATIENCE)}
    turns = {n: at for n, at in kept.items() if n in members and n not in late}
    rests = {n: at for n, at in before.rests.items() if at > look.now and n in look.next_keys}
    rests |= dict.fromkeys(late, look.now + AGAIN)
    turning = turns.keys() - look.runs
    for node in sorted(look.held, key=lambda n: (n not in look.relays, n)):
        if node not in turns and not any(_obstacles(node, look, turning, rests)):
            turns[node] = look.now
            turning.add(node)
    return replace(
        before,
        wanted=_sorted({n: at for n, at in before.wanted.items() if n in members and n not in look.next_keys}),
        turns=_sorted(turns),
        rests=_sorted(rests),
    )


def to_tell(rotation: Rotation, down: Set[str], now: float) -> tuple[str, ...]:
    """The nodes that are to be told now to make a key, sorted."""
    return tuple(n for n, at in rotation.wanted.items() if n not in down and now - at >= TELL_AGAIN)


def unsaid(rotation: Rotation, look: Look) -> frozenset[str]:
    """The nodes that took their turn a while ago, and have not published that."""
    return frozenset(n for n, at in rotation.turns.items() if n in look.runs and look.now - at > TELL_AGAIN)


def told(rotation: Rotation, nodes: Iterable[str], now: float) -> Rotation:
    """*nodes* have been told at *now*."""
    return replace(rotation, wanted=_sorted({**rotation.wanted, **dict.fromkeys(nodes, now)}))


def waiting(rotation: Rotation, look: Look) -> dict[str, str]:
    """Each node that is about to get another key → what it waits for, in a few words; sorted."""
    found = dict.fromkeys(rotation.wanted, "it is to make another key")
    for node in look.next_keys:
        if node in rotation.turns and node in look.runs:
            found[node] = "it runs its new key, and is to say so"
        elif node in rotation.turns:
            found[node] = "it turns to its new key"
        elif look.held.get(node) != look.next_keys[node]:
            found[node] = "its new key is to be published"
        else:
            reasons = list(_obstacles(node, look, rotation.turns.keys() - look.runs, rotation.rests))
            found[node] = "; ".join(reasons[:3]) or "its turn comes next"
    return dict(sorted(found.items()))


def _obstacles(node: str, look: Look, turning: Set[str], rests: Times) -> Iterator[str]:
    """Why *node* can't have the turn now; *turning* are those who have it and may be amid it."""
    others = look.neighbours.get(node)
    if others is None or look.held.get(node) != look.next_keys.get(node):
        yield "its new key is not published"
        return
    if node in rests:
        yield "it did not take its turn lately"
    if node in look.down:
        yield "it is down"
    behind = sorted(n for n in (node, *others) if n not in look.runs and n not in look.down)
    if behind:
        yield f"not acknowledged by {_listed(behind)}"
    busy = sorted(turning & others | (turning & look.relays if node in look.relays else set()))
    if busy:
        yield f"{_listed(busy)} turns first"
    lonely = sorted(_lonely(node, look))
    if lonely:
        yield f"{_listed(lonely)} has no other relay that is up"


def _lonely(node: str, look: Look) -> Iterator[str]:
    """Who would be cut off while *node* turns. Who has one relay in the plan has no other way at any time."""
    if node not in look.relays:
        least, concerned = 2, [node]
    else:
        least, concerned = 1, [n for n in look.neighbours[node] if n not in look.relays and n not in look.down]
    for leaf in concerned:
        relays = look.neighbours.get(leaf, frozenset()) & look.relays
        up = {r for r in relays - {node} if r not in look.down and _pair(leaf, r) not in look.cut}
        if len(relays) >= 2 and len(up) < least:
            yield leaf


def _pair(a: str, b: str) -> Pair:
    return (a, b) if a < b else (b, a)


def _listed(nodes: list[str]) -> str:
    return ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")


def turned(plan: Plan, nodes: Set[str]) -> Plan:
    """*plan*, in which *nodes* and no others have the turn: their views name their next key."""
    wanted = {node: member.next_key if node in nodes else None for node, member in plan.members.items()}
    views = {n: replace(v, turn_to=wanted.get(n)) for n, v in plan.views.items() if v.turn_to != wanted.get(n)}
    return replace(plan, views={**plan.views, **views}) if views else plan


# --- in the ledger -------------------------------------------------------------------------------------


def as_dict(rotation: Rotation) -> dict[str, Any]:
    """*rotation* as plain values; empty if there is nothing to remember."""
    return (
        {}
        if rotation == NOTHING
        else {
            "wanted": dict(rotation.wanted),
            "turns": dict(rotation.turns),
            "rests": dict(rotation.rests),
            "period": rotation.period,
            "looked_at": rotation.looked_at,
        }
    )


def from_dict(raw: Mapping[str, Any]) -> Rotation:
    """The inverse of ``as_dict``."""
    return Rotation(
        wanted=dict(raw.get("wanted", {})),
        turns=dict(raw.get("turns", {})),
        rests=dict(raw.get("rests", {})),
        period=int(raw.get("period", 0)),
        looked_at=float(raw.get("looked_at", 0.0)),
    )


def _sorted(times: Times) -> dict[str, float]:
    return dict(sorted(times.items()))
