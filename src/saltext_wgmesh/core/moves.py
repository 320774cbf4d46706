"""A subnet goes to another gateway, and each answer that its hosts owe still comes back.

On one interface WireGuard takes a source of one peer alone: where the subnet stands with the one gateway, what comes
from it by the other is dropped. Each gateway sends what it has by its first relay. So those two relays differ while
the subnet moves, by steps that are each a generation:

1. READY: the new gateway stands by. What both say goes by their first relay, even to other relays of theirs. Who has
   direct links to both sends to them by relays.
2. FIRST: the new gateway's first relay delivers to it; all others go on as before, by the old one's first relay.
3. MOST: all but the latter send to the new one's; the old one's sends what its own leaves have for the subnet there
   too, and takes from the old gateway what it still has to say.
4. LAST: that relay too delivers to the new gateway.

Then the plan may be as if nothing had been.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.types import Member, Plan, Route

Pair = tuple[str, str]
"""Two neighbours, sorted."""


class Stage(enum.Enum):
    """How far a subnet has moved."""

    READY = "ready"
    FIRST = "first"
    MOST = "most"
    LAST = "last"


AFTER = {Stage.READY: Stage.FIRST, Stage.FIRST: Stage.MOST, Stage.MOST: Stage.LAST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A subnet on its way."""

    old: str
    """The gateway that it leaves."""
    new: str
    stage: Stage

    @property
    def order(self) -> tuple[str, str]:
        """The two gateways, the active one first."""
        return (self.new, self.old) if self.stage in (Stage.MOST, Stage.LAST) else (self.old, self.new)


Moves = Mapping[str, Move]
"""Subnet → its move."""


def keep(before: Plan, known: Moves, after: Plan, health: Health, runs: Callable[[str], bool]) -> dict[str, Move]:
    """The moves by which *after* differs from what is asked for, if *before* was published with those *known*.

    A step is over when each node that can be asked *runs* it, and in any case the two gateways and their relays. From
    a gateway that is down, or left, its subnets are taken at once.
    """
    had, has = _gateways(before), _gateways(after)
    behind = {node for node in before.members if node not in health.down and not runs(node)}
    found = {}
    for subnet, new in has.items():
        move = known.get(subnet)
        old = move.old if move and move.new == new else had.get(subnet, new)
        if old == new or old not in after.members or health.down & {old, new}:
            continue
        if move is None or move.new != new:
            found[subnet] = Move(old=old, new=new, stage=Stage.READY)
        elif behind - health.silent or behind & {r for g in move.order for r in (g, *before.members[g].homes)}:
            found[subnet] = move
        elif move.stage in AFTER:
            found[subnet] = replace(move, stage=AFTER[move.stage])
    return found


def _gateways(plan: Plan) -> dict[str, str]:
    return {subnet: name for name, member in plan.members.items() for subnet in member.subnets}


def in_order(subnet: str, gateways: Sequence[str], moves: Moves) -> list[str]:
    """The *gateways* of *subnet*, the two that it is on its way between first."""
    move = moves.get(subnet)
    return [*move.order, *(g for g in gateways if g not in move.order)] if move else list(gateways)


def apart(homes: Mapping[str, tuple[str, ...]], moves: Moves, health: Health) -> dict[str, tuple[str, ...]]:
    """Leaf → relays: those of *homes*, but that a new gateway with the old one's first relay has its second one first,
    if it has one that is up."""
    found = dict(homes)
    for move in moves.values():
        first, *others = found.get(move.new, ())[:2] or ("",)
        usable = [r for r in others if r not in health.down and pair(move.new, r) not in health.cut]
        if usable and found.get(move.old, ())[:1] == (first,):
            found[move.new] = (usable[0], first, *found[move.new][2:])
    return found


def unused(members: Mapping[str, Member], direct: Iterable[Pair], moves: Moves) -> frozenset[Pair]:
    """The links that are not to be used while there is another way: direct ones from one node to both gateways of a
    move, and those of the gateways to all their relays but the first."""
    if not moves:
        return frozenset()
    pairs = {pair(a, b) for a, b in direct}
    nodes = {node for two in pairs for node in two}
    found: set[Pair] = set()
    for move in moves.values():
        for two in ({pair(node, gateway) for gateway in move.order} for node in nodes.difference(move.order)):
            found |= two if two <= pairs else set()
        found.update(pair(gateway, r) for gateway in move.order for r in members[gateway].homes[1:])
    return frozenset(found)


def apart_at(members: Mapping[str, Member], moves: Moves) -> dict[str, dict[str, str]]:
    """Relay → subnet → the gateway to which that relay alone delivers, unlike the others."""
    found: dict[str, dict[str, str]] = {}
    for subnet, move in moves.items():
        first = {name: members[name].homes[:1] for name in move.order}
        stays = {Stage.FIRST: move.new, Stage.MOST: move.old}.get(move.stage)
        if stays and all(first.values()) and first[move.old] != first[move.new]:
            found.setdefault(first[stays][0], {})[subnet] = stays
    return found


def delivering(members: Mapping[str, Member], to: Mapping[str, str], moves: Moves) -> dict[str, Member]:
    """*members*, as if the gateway of each subnet were the one that *to* names."""
    found = dict(members)
    for subnet, holder in to.items():
        for name in moves[subnet].order:
            member = found[name]
            active = {*member.subnets, subnet} if name == holder else {*member.subnets} - {subnet}
            standby = {*member.standby_subnets} - {subnet} if name == holder else {*member.standby_subnets, subnet}
            found[name] = replace(member, subnets=tuple(sorted(active)), standby_subnets=tuple(sorted(standby)))
    return found


def routes(relay: str, members: Mapping[str, Member], to: Mapping[str, str], moves: Moves) -> Iterator[Route]:
    """The routes of *relay* for the subnets that it alone delivers to those whom *to* names.

    The old gateway's relay, in the last step, sends there what came by a trunk only: what its own leaves have goes by
    the relays of the new one. Where the gateway is not heard, all goes by the relays of the other.
    """
    for subnet, holder in to.items():
        move = moves[subnet]
        others = members[move.new if holder == move.old else move.old].homes
        later = others[others.index(relay) + 1 :] if relay in others else others
        around = tuple(r for r in others if r != relay)
        via = (*around, holder) if move.stage is Stage.MOST else (holder, *around)
        yield Route(prefixes=(subnet,), via=via, detour=True, from_trunk=(holder, *later))


def admitted(node: Member, peers: Iterable[Member], moves: Moves) -> dict[str, tuple[str, ...]]:
    """Neighbour → the subnets for which it stands by and that are taken from it too, on an interface of *node* with
    these *peers*: those of which no other gateway is there."""
    listed = list(peers)
    taken = {s for m in (node, *listed) for s in m.subnets} | {*node.standby_subnets}
    found: dict[str, tuple[str, ...]] = {}
    going = {move.new for move in moves.values()}
    for member in sorted((m for m in listed if m.standby_subnets), key=lambda m: (m.node not in going, m.node)):
        own = tuple(s for s in member.standby_subnets if s not in taken)
        taken.update(own)
        if own:
            found[member.node] = own
    return found


def as_dict(moves: Moves) -> dict[str, list[str]]:
    """Plain values for the ledger; ``from_dict`` is the inverse."""
    return {subnet: [move.old, move.new, move.stage.value] for subnet, move in sorted(moves.items())}


def from_dict(raw: Mapping[str, Sequence[str]]) -> dict[str, Move]:
    """What ``as_dict`` wrote."""
    return {subnet: Move(old=old, new=new, stage=Stage(stage)) for subnet, (old, new, stage) in raw.items()}


def pair(a: str, b: str) -> Pair:
    """The two, sorted."""
    return (a, b) if a < b else (b, a)
