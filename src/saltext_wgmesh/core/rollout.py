"""From one plan to the next, so that no packet is lost whatever nodes run of it: links are made before they are used,
and used no more before they go.

A leaf that gets other relays goes three steps, each a generation:

1. It has the new relays and, behind them, the old ones. Every relay of either list delivers to the leaf itself, and a
   packet's position in the list only grows; so nodes that follow this step and nodes that still follow the old plan may
   be mixed in any way.
2. Once the new links carry, the old ones are *idle*: they are there, and no route leads to them.
3. Once both ends have heard that, they go.

A direct link goes in two: both ends have it, and prefer a relay; then it goes.

Nodes that are to be heard at another port or endpoint, or to call their interfaces otherwise, move one relay after the
other, and the leaves when all relays have: by the relays that stay the mesh goes on meanwhile.

A node that gets another address has both for a while: it is reached at both, then it sends from the new one, then the
old one goes.

A subnet that gets another gateway goes by ``core.moves``.

A relay that is new is there first, and nobody depends on it until it is heard by all its neighbours.

A relay that becomes a leaf is one first by what it forwards, while its links are trunks still; then one link after the
other is left idle, made anew and used again. A leaf becomes a relay in the opposite order.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core import moves as moving
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.moves import Move, Pair
from saltext_wgmesh.core.types import Endpoint, Kind, Place, Plan

Homes = Mapping[str, tuple[str, ...]]


def _none() -> Homes:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A node on its way from relay to leaf, or back: a leaf meanwhile, with these relays."""

    place: Place
    """Where it is heard until then."""
    homes: tuple[str, ...]
    idle: tuple[str, ...] = ()
    trunks: tuple[str, ...] = ()
    """Those of both to which its link is a trunk."""

    def without(self, gone: Set[str]) -> Crossing:
        """The same, with none of the relays that are *gone*."""
        left = ((r for r in some if r not in gone) for some in (self.homes, self.idle, self.trunks))
        homes, idle, trunks = map(tuple, left)
        return replace(self, homes=homes, idle=idle, trunks=trunks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The links that a plan has only because the one before it had them."""

    homes: Homes = field(default_factory=_none)
    """Leaf → relays that it had, in the order that nodes know: used where its new ones are not up. It is about to leave
    them, or to have them in another order."""
    idle: Homes = field(default_factory=_none)
    """Leaf → relays that it has left."""
    pairs: frozenset[Pair] = frozenset()
    """Leaves that are about to be linked directly no more."""
    places: Mapping[str, Place] = field(default_factory=lambda: MappingProxyType({}))
    """Node → where it is heard until its turn to move has come."""
    addresses: Homes = field(default_factory=_none)
    """Node → its addresses while it has some that it is to lose; of each family, it sends from the first."""
    moves: Mapping[str, Move] = field(default_factory=lambda: MappingProxyType({}))
    """Subnets on their way from one gateway to another."""
    fresh: frozenset[str] = frozenset()
    """Relays that are not heard by the others yet."""
    crossing: Mapping[str, Crossing] = field(default_factory=lambda: MappingProxyType({}))
    """Nodes on their way from relay to leaf, or back."""

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Kept()


def as_dict(kept: Kept) -> dict[str, Any]:
    """Plain values for the ledger; ``from_dict`` is the inverse."""
    return {
        "homes": {leaf: list(relays) for leaf, relays in kept.homes.items()},
        "idle": {leaf: list(relays) for leaf, relays in kept.idle.items()},
        "pairs": [list(pair) for pair in sorted(kept.pairs)],
        "places": {node: _place_as_list(place) for node, place in kept.places.items()},
        "addresses": {node: list(addresses) for node, addresses in kept.addresses.items()},
        "moves": moving.as_dict(kept.moves),
        "fresh": sorted(kept.fresh),
        "crossing": {
            node: [_place_as_list(one.place), list(one.homes), list(one.idle), list(one.trunks)]
            for node, one in kept.crossing.items()
        },
    }


def from_dict(raw: Mapping[str, Any]) -> Kept:
    """What ``as_dict`` wrote; nothing is kept by an empty mapping."""
    return Kept(
        homes=MappingProxyType({leaf: tuple(relays) for leaf, relays in raw.get("homes", {}).items()}),
        idle=MappingProxyType({leaf: tuple(relays) for leaf, relays in raw.get("idle", {}).items()}),
        pairs=frozenset((a, b) for a, b in raw.get("pairs", ())),
        places=MappingProxyType({node: _place(*told) for node, told in raw.get("places", {}).items()}),
        addresses=MappingProxyType({node: tuple(told) for node, told in raw.get("addresses", {}).items()}),
        moves=MappingProxyType(moving.from_dict(raw.get("moves", {}))),
        fresh=frozenset(raw.get("fresh", ())),
        crossing=MappingProxyType({node: _crossing(*told) for node, told in raw.get("crossing", {}).items()}),
    )


def _crossing(place: list[Any], homes: Sequence[str], idle: Sequence[str], trunks: Sequence[str]) -> Crossing:
    return Crossing(place=_place(*place), homes=tuple(homes), idle=tuple(idle), trunks=tuple(trunks))


def _place_as_list(place: Place) -> list[Any]:
    where = place.endpoint
    return [place.listen_port, place.interface, where and [where.host, where.port]]


def _place(listen_port: int, interface: str, endpoint: list[Any] | None) -> Place:
    where = Endpoint(host=endpoint[0], port=endpoint[1]) if endpoint else None
    return Place(listen_port=listen_port, endpoint=where, interface=interface)


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What is known of the plan that runs."""

    runs: Callable[[str], bool]
    """Whether a node has acknowledged its view."""
    hears: Callable[[Pair], bool]
    """Whether an end of a link says that it is up."""
    alive: Callable[[Pair], bool]
    """Whether packets go by a link, as an end of it says, though it may count as down for its past."""

    def _run(self, a: str, b: str) -> bool:
        return self.runs(a) and self.runs(b)

    def _delivers(self, leaf: str, relay: str, was_amid: bool) -> bool:
        """Whether the two have their link: if it may be a new one, they must hear each other by it."""
        return self.hears(moving.pair(leaf, relay)) or (self._run(leaf, relay) and not was_amid)

    def _carries(self, a: str, b: str) -> bool:
        return self._run(a, b) and self.hears(moving.pair(a, b))


def step(
    before: Plan, kept_before: Kept, goal: Plan, make: Callable[[Kept], Plan], health: Health, witness: Witness
) -> tuple[Kept, Plan]:
    """What the next plan on the way from *before*, which had *kept_before*, to *goal* keeps, and that plan. *make* is
    how the goal is made."""
    new = fresh(before, kept_before, goal, health, witness)
    without_new = make(Kept(fresh=new)) if new else goal
    across = crossing(before, kept_before, without_new, health, witness)
    new -= across.keys()
    if across or new:
        goal = make(Kept(crossing=across, fresh=new))
    kept = replace(keep(before, kept_before, goal, health, witness, across), crossing=across, fresh=new)
    return kept, make(kept) if kept else goal


def crossing(before: Plan, kept_before: Kept, after: Plan, health: Health, witness: Witness) -> Mapping[str, Crossing]:
    """The nodes that are to be a leaf in place of a relay, or the other way round, and are not yet. With links to less
    than two other relays there is no other way meanwhile: such a node is at once what it is to be, and so is one that
    is down, and a relay that some leaf that can be told has still."""
    found: dict[str, Crossing] = {}
    untold = health.down | health.silent
    had_by_leaves = {r for leaf, member in before.members.items() if leaf not in untold for r in member.homes}
    dead = {p for p in health.cut if not witness.alive(p)}
    relays, had_relays = ({n for n, m in plan.members.items() if m.is_relay} for plan in (after, before))
    stay = sorted(relays & had_relays - health.down)
    for node in sorted(before.members.keys() & after.members.keys() - health.down):
        old, new, now = before.members[node], after.members[node], kept_before.crossing.get(node)
        if now is None and (old.is_relay is new.is_relay or node in had_by_leaves):
            continue
        linked = [r for r in stay if moving.pair(node, r) not in dead]
        had = (*now.homes, *now.idle) if now else old.homes
        # In the order that others know: a relay sends what it can't deliver to those behind it.
        order = {r: place for place, r in enumerate(before.register.homes.get(node, ()))}
        had = tuple(sorted(had, key=lambda r: order.get(r, len(order))))
        homes = tuple(r for r in (had if new.is_relay else new.homes) if r in linked)
        if len(homes) < 2:
            continue
        following: Crossing | None
        if now:
            following = _cross(node, now.without({*before.members}.difference(linked)), homes, new.is_relay, witness)
        elif new.is_relay:
            following = _left_idle(Crossing(place=old.place, homes=homes), homes[-1])
        else:
            idle = tuple(r for r in linked if r not in homes)
            following = Crossing(place=old.place, homes=homes, idle=idle, trunks=tuple(linked))
        if following:
            found[node] = following
    return MappingProxyType(found)


def _cross(node: str, now: Crossing, homes: tuple[str, ...], to_relay: bool, witness: Witness) -> Crossing | None:
    """The next step of *node*, whose relays are to be *homes*; None after the last."""
    others = tuple(r for r in now.homes if r not in homes)
    if len({*now.homes, *now.idle}) < 2 or not now.homes:
        # A relay was lost on the way: all others are used as they are.
        return replace(now, homes=(*homes, *others), idle=tuple(r for r in now.idle if r not in homes))
    if not all(witness.runs(n) for n in (node, *now.homes, *now.idle)):
        return now
    if now.idle:
        # Nobody goes by these any more: they go, or are made anew.
        anew = {*now.idle} & {*homes} if to_relay else set()
        trunks = {*now.trunks}.difference(now.idle) | anew
        return replace(now, homes=(*homes, *others), idle=(), trunks=tuple(sorted(trunks)))
    if not {*homes} <= {*now.homes} or not all(witness.hears(moving.pair(node, r)) for r in homes):
        return replace(now, homes=(*homes, *others))
    if others:
        return replace(now, homes=homes, idle=others)
    left = [r for r in homes if (r in now.trunks) is not to_relay]
    return _left_idle(replace(now, homes=homes), left[-1]) if left else None


def _left_idle(now: Crossing, relay: str) -> Crossing:
    return replace(now, homes=tuple(r for r in now.homes if r != relay), idle=(relay,))


def fresh(before: Plan, kept_before: Kept, after: Plan, health: Health, witness: Witness) -> frozenset[str]:
    """The relays of *after* that are new, unless all are, until they are heard. What is down nobody depends on anyhow.

    The plan that ``keep`` is asked about is one in which nobody depends on these.
    """
    relays = {n for n, m in after.members.items() if m.is_relay}
    had = {n for n, m in before.members.items() if m.is_relay} - kept_before.fresh
    if not relays & had:
        return frozenset()
    heard = {r for r in kept_before.fresh & before.members.keys() if _is_heard(r, before, health, witness)}
    return frozenset(relays - had - heard - health.down)


def in_order(homes: Sequence[str], kept: Sequence[str]) -> tuple[str, ...]:
    """The relays that are to be a leaf's *homes* and those *kept*, in the order in which a packet to it tries them."""
    return (*(r for r in homes if r not in kept), *kept)


def keep(
    before: Plan,
    kept_before: Kept,
    after: Plan,
    health: Health,
    witness: Witness,
    across: Container[str] = (),
) -> Kept:
    """What *after* must have of *before*, which had *kept_before*: the next step of each link that *after* lacks.

    No link is kept that leads to a node that left, or that counts as cut; but one that is alive is used by now, or in
    a moment, by nodes that have no better. Of those that go *across* from leaf to relay, or back, the links are as
    *after* has them.
    """
    dead = frozenset(p for p in health.cut if not witness.alive(p))
    homes: dict[str, tuple[str, ...]] = {}
    idle: dict[str, tuple[str, ...]] = {}
    for leaf, member in after.members.items():
        old = before.members.get(leaf)
        if old is None or member.is_relay or old.is_relay or leaf in across:
            continue
        had_idle = kept_before.idle.get(leaf, ())
        left = [
            r for r in (*old.homes, *had_idle) if r not in member.homes and _is_usable(leaf, r, after, health, dead)
        ]
        unused = {r for r in had_idle if r not in old.homes}
        new = [r for r in member.homes if _is_usable(leaf, r, after, health, health.cut)]
        carried = set(new) <= set(old.homes) and any(new) and all(witness._carries(leaf, r) for r in new)
        homes[leaf] = tuple(r for r in left if r not in unused and not carried)
        gone = {r for r in unused if witness.runs(leaf) and witness.runs(r)}
        idle[leaf] = tuple(r for r in left if r not in homes[leaf] and r not in gone)
        # Nodes may be amid the step before: a relay that does not deliver yet must find in nobody's list a way back.
        could_send_back = [r for r in _could_send_back(old.homes, in_order(member.homes, homes[leaf])) if r in new]
        was_amid = leaf in kept_before.homes
        if leaf not in health.down and not all(witness._delivers(leaf, r, was_amid) for r in could_send_back):
            usable = [r for r in old.homes if _is_usable(leaf, r, after, health, dead)]
            homes[leaf] = (*usable, *(r for r in member.homes if r in old.homes and r not in usable))
    leaves = {n for n, m in after.members.items() if not m.is_relay} - health.down
    pairs = _direct(before) - _direct(after) - dead
    heard = {p for p in kept_before.pairs if witness.runs(p[0]) and witness.runs(p[1])}
    return Kept(
        homes={leaf: relays for leaf, relays in homes.items() if relays},
        idle={leaf: relays for leaf, relays in idle.items() if relays},
        pairs=frozenset(p for p in pairs - heard if leaves >= set(p)),
        places=MappingProxyType(_places(before, kept_before, after, health, witness)),
        addresses=MappingProxyType(_addresses(before, kept_before, after, health, witness)),
        moves=MappingProxyType(moving.keep(before, kept_before.moves, after, health, witness.runs)),
    )


def _could_send_back(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The relays of both lists that could get back a packet which they send on: by *after* it goes to somebody who, by
    *before*, would send it to them."""
    place = {relay: i for i, relay in enumerate(before)}
    return [
        relay
        for i, relay in enumerate(after)
        if relay in place and any(place.get(later, -1) < place[relay] for later in after[i + 1 :])
    ]


def _addresses(before: Plan, kept_before: Kept, after: Plan, health: Health, witness: Witness) -> Homes:
    """The addresses of nodes that are to have others. Each step waits until all run the one before that are not down:
    who does not answer may have links that carry, and takes nothing from an address that it does not know."""
    all_run = all(witness.runs(node) for node in before.members if node not in health.down)
    found: dict[str, tuple[str, ...]] = {}
    for node, member in after.members.items():
        has = before.members[node].addresses if node in before.members else ()
        gone, fresh = set(has) - set(member.addresses), set(member.addresses) - set(has)
        changed = {":" in a for a in gone} & {":" in a for a in member.addresses}
        known = kept_before.addresses.get(node)
        if known is None and gone and fresh and changed:
            found[node] = _by_family((*has, *(a for a in member.addresses if a in fresh)))
        elif known is not None and gone and not all_run:
            found[node] = known
        elif known is not None and _sends_from(known, gone):
            found[node] = _by_family((*member.addresses, *(a for a in known if a in gone)))
    return found


def _sends_from(addresses: tuple[str, ...], some: set[str]) -> bool:
    """Whether a node with *addresses* sends from one of *some*."""
    firsts = {":" in a: a for a in reversed(addresses)}
    return bool(some & set(firsts.values()))


def _by_family(addresses: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(addresses, key=lambda a: ":" in a))


def _places(before: Plan, kept_before: Kept, after: Plan, health: Health, witness: Witness) -> dict[str, Place]:
    """Where nodes are heard still that are to be heard elsewhere. A relay that is down moves at once."""
    common = sorted(before.members.keys() & after.members.keys())
    moving = [n for n in common if before.members[n].place != after.members[n].place]
    relays = [n for n in common if before.members[n].is_relay and after.members[n].is_relay and n not in health.down]
    behind = [n for n in moving if n in relays]
    if not moving or len(relays) < 2:
        return {}
    moved = [r for r in relays if r not in kept_before.places] if kept_before.places else []
    if all(_is_heard(r, before, health, witness) for r in moved if r not in behind):
        behind = behind[1:]
        if not behind and not kept_before.places.keys() & set(relays):
            return {}
    waiting = [n for n in moving if n in behind or not after.members[n].is_relay]
    return {n: before.members[n].place for n in waiting}


def _is_heard(relay: str, plan: Plan, health: Health, witness: Witness) -> bool:
    """Whether all its neighbours hear it that can be asked."""
    absent = health.down | health.silent
    links = [moving.pair(link.a, link.b) for link in plan.links if relay in (link.a, link.b)]
    return witness.runs(relay) and all(
        witness.hears(pair) for pair in links if pair not in health.cut and not absent & set(pair)
    )


def _is_usable(leaf: str, relay: str, after: Plan, health: Health, cut: Set[Pair]) -> bool:
    there = after.members.get(relay)
    return bool(there and there.is_relay and relay not in health.down and moving.pair(leaf, relay) not in cut)


def _direct(plan: Plan) -> frozenset[Pair]:
    return frozenset(moving.pair(link.a, link.b) for link in plan.links if link.kind is Kind.ACCESS)
