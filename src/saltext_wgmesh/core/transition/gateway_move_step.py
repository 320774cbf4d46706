"""The next step of the moves of subnets between gateways."""

from __future__ import annotations

from dataclasses import replace

from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.transition.gateway_move import GatewayMove, Stage
from saltext_wgmesh.core.transition.published_step import PublishedStep

NEXT_STAGE = {
    Stage.PREPARE: Stage.FIRST_RELAY,
    Stage.FIRST_RELAY: Stage.MOST_RELAYS,
    Stage.MOST_RELAYS: Stage.LAST_RELAY,
}


def next_moves(published: PublishedStep, after: Plan) -> dict[str, GatewayMove]:
    """Return subnet → its move in the next step from what is published to *after*.

    A step is over when all nodes that answer have applied it, and in any case the two gateways and their relays. A
    gateway that is down or left loses its subnets at once.
    """
    before, health = published.plan, published.health
    had, has = _gateways(before), _gateways(after)
    behind = {n for n in before.members if n not in health.down_nodes and not published.evidence.has_applied(n)}
    found = {}
    for subnet, new in has.items():
        move = published.transition.gateway_moves.get(subnet)
        old = move.old if move and move.new == new else had.get(subnet, new)
        if old == new or old not in after.members or health.down_nodes & {old, new}:
            continue
        if move is None or move.new != new:
            found[subnet] = GatewayMove(old=old, new=new, stage=Stage.PREPARE)
        # An unresponsive node elsewhere must not block the move for days. The gateways and their relays accept or drop
        # the answers of all others, so there is no next step without them.
        elif behind - health.unresponsive or behind & _gateways_and_relays(before, move):
            found[subnet] = move
        elif move.stage in NEXT_STAGE:
            found[subnet] = replace(move, stage=NEXT_STAGE[move.stage])
    return found


def _gateways_and_relays(plan: Plan, move: GatewayMove) -> set[str]:
    return {node for gateway in move.order for node in (gateway, *plan.members[gateway].relays)}


def _gateways(plan: Plan) -> dict[str, str]:
    return {subnet: name for name, member in plan.members.items() for subnet in member.subnets}
