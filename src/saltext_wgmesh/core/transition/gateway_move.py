"""A subnet moves to another gateway, and each answer that its hosts still owe arrives.

On one interface WireGuard accepts a source address from one peer only. While an interface has the subnet at one
gateway, packets from the subnet by the other gateway are dropped. Each gateway sends by its first relay, so the two
first relays must differ while the subnet moves. The move has four steps, each a generation:

1. PREPARE: the new gateway stands by. Both gateways send all packets by their first relay, even to their other relays.
   A node with direct links to both gateways sends to them by relays.
2. FIRST_RELAY: the first relay of the new gateway delivers to it. All other nodes still send by the first relay of the
   old gateway.
3. MOST_RELAYS: all other nodes send to the new gateway. Only the first relay of the old gateway still accepts its
   packets. It sends what its own leaves have for the subnet to the relays of the new gateway.
4. LAST_RELAY: that relay too delivers to the new gateway.

After the last step the plan has no trace of the move.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.pairs import NodePair, node_pair
from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.model.view import Route


class Stage(enum.Enum):
    """The step of a move that a subnet has reached."""

    PREPARE = "prepare"
    FIRST_RELAY = "first_relay"
    MOST_RELAYS = "most_relays"
    LAST_RELAY = "last_relay"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayMove:
    """The move of one subnet between two gateways."""

    old: str
    """The gateway that the subnet leaves."""
    new: str
    """The gateway that the subnet gets."""
    stage: Stage

    @property
    def order(self) -> tuple[str, str]:
        """The two gateways, the active one first."""
        return (self.new, self.old) if self.stage in (Stage.MOST_RELAYS, Stage.LAST_RELAY) else (self.old, self.new)


GatewayMoves = Mapping[str, GatewayMove]
"""Subnet → its move."""


def gateways_in_order(subnet: str, gateways: Sequence[str], moves: GatewayMoves) -> list[str]:
    """Return the *gateways* of *subnet*; while it moves, the two gateways of the move first."""
    move = moves.get(subnet)
    return [*move.order, *(g for g in gateways if g not in move.order)] if move else list(gateways)


def separate_first_relays(
    relays: Mapping[str, tuple[str, ...]], moves: GatewayMoves, health: Health
) -> dict[str, tuple[str, ...]]:
    """Return *relays* (leaf → its relays), with different first relays for the two gateways of each move.

    If both have the same first relay, the new gateway prefers its second relay, if that is up.
    """
    found = dict(relays)
    for move in moves.values():
        first, *others = found.get(move.new, ())[:2] or ("",)
        usable = [r for r in others if r not in health.down_nodes and node_pair(move.new, r) not in health.down_links]
        if usable and found.get(move.old, ())[:1] == (first,):
            found[move.new] = (usable[0], first, *found[move.new][2:])
    return found


def links_to_avoid(
    members: Mapping[str, Member], direct: Iterable[NodePair], moves: GatewayMoves
) -> frozenset[NodePair]:
    """Return the links that are used only if there is no other path while subnets move.

    These are a node's direct links to both gateways of a move, and the links of the gateways to relays other than
    their first.
    """
    if not moves:
        return frozenset()
    direct_pairs = {node_pair(a, b) for a, b in direct}
    nodes = {node for pair in direct_pairs for node in pair}
    found: set[NodePair] = set()
    for move in moves.values():
        for node in nodes.difference(move.order):
            to_both = {node_pair(node, gateway) for gateway in move.order}
            found |= to_both if to_both <= direct_pairs else set()
        found.update(node_pair(gateway, r) for gateway in move.order for r in members[gateway].relays[1:])
    return frozenset(found)


def relay_overrides(members: Mapping[str, Member], moves: GatewayMoves) -> dict[str, dict[str, str]]:
    """Return relay → subnet → the gateway that this relay delivers to, where it differs from all other nodes."""
    found: dict[str, dict[str, str]] = {}
    for subnet, move in moves.items():
        first = {name: members[name].relays[:1] for name in move.order}
        # In these two steps one relay is ahead of the other nodes, or behind them.
        gateway = {Stage.FIRST_RELAY: move.new, Stage.MOST_RELAYS: move.old}.get(move.stage)
        if gateway and all(first.values()) and first[move.old] != first[move.new]:
            found.setdefault(first[gateway][0], {})[subnet] = gateway
    return found


def with_gateways(members: Mapping[str, Member], gateways: Mapping[str, str], moves: GatewayMoves) -> dict[str, Member]:
    """Return *members*, with the active gateways that *gateways* names (subnet → gateway)."""
    found = dict(members)
    for subnet, active_gateway in gateways.items():
        for name in moves[subnet].order:
            member = found[name]
            active = {*member.subnets, subnet} if name == active_gateway else {*member.subnets} - {subnet}
            standby = (
                {*member.standby_subnets} - {subnet} if name == active_gateway else {*member.standby_subnets, subnet}
            )
            found[name] = replace(member, subnets=tuple(sorted(active)), standby_subnets=tuple(sorted(standby)))
    return found


def override_routes(
    relay: str, members: Mapping[str, Member], gateways: Mapping[str, str], moves: GatewayMoves
) -> Iterator[Route]:
    """Yield the routes of *relay* for the subnets of *gateways* (subnet → the gateway that it delivers to).

    In step MOST_RELAYS the first relay of the old gateway sends only packets from a trunk there. Packets of its own
    leaves go to the relays of the new gateway. If the link to the gateway is down, all packets go to the relays of the
    other gateway.
    """
    for subnet, gateway in gateways.items():
        move = moves[subnet]
        others = members[move.new if gateway == move.old else move.old].relays
        # A packet from a trunk goes to later relays only, so that it can't loop.
        later = others[others.index(relay) + 1 :] if relay in others else others
        around = tuple(r for r in others if r != relay)
        via = (*around, gateway) if move.stage is Stage.MOST_RELAYS else (gateway, *around)
        yield Route(prefixes=(subnet,), via=via, detour=True, from_trunk=(gateway, *later))


def standby_allowed_ips(node: Member, peers: Iterable[Member], moves: GatewayMoves) -> dict[str, tuple[str, ...]]:
    """Return neighbour → the standby subnets that are accepted from it on an interface of *node* with these *peers*.

    WireGuard accepts a prefix from one peer of an interface only. So these are the subnets of which neither *node* nor
    another peer is a gateway. Of several standby gateways, the new gateway of a move comes first.
    """
    listed = list(peers)
    assigned = {s for m in (node, *listed) for s in m.subnets} | {*node.standby_subnets}
    found: dict[str, tuple[str, ...]] = {}
    new_gateways = {move.new for move in moves.values()}
    standby = sorted((m for m in listed if m.standby_subnets), key=lambda m: (m.node not in new_gateways, m.node))
    for member in standby:
        own = tuple(s for s in member.standby_subnets if s not in assigned)
        assigned.update(own)
        if own:
            found[member.node] = own
    return found


def moves_as_dict(moves: GatewayMoves) -> dict[str, list[str]]:
    """Return plain values for the ledger; ``moves_from_dict`` is the inverse."""
    return {subnet: [move.old, move.new, move.stage.value] for subnet, move in sorted(moves.items())}


def moves_from_dict(raw: Mapping[str, Sequence[str]]) -> dict[str, GatewayMove]:
    """Return the moves that ``moves_as_dict`` wrote."""
    return {subnet: GatewayMove(old=old, new=new, stage=Stage(stage)) for subnet, (old, new, stage) in raw.items()}
