"""Nodes that get another port, endpoint or interface name: one relay after the other, then the leaves.

The relays that do not move keep the mesh connected.
"""

from __future__ import annotations

from saltext_wgmesh.core.model.plan import AccessSocket, Plan
from saltext_wgmesh.core.transition.published_step import PublishedStep


def previous_sockets(published: PublishedStep, after: Plan) -> dict[str, AccessSocket]:
    """Return node → its socket in the published plan, for the nodes that keep it in the next step.

    A relay that is down gets its new socket at once. So do all nodes of a mesh with fewer than two relays that are up.
    """
    before = published.plan
    common = sorted(before.members.keys() & after.members.keys())
    moving = [n for n in common if before.members[n].access_socket != after.members[n].access_socket]
    relays = [
        n
        for n in common
        if before.members[n].is_relay and after.members[n].is_relay and n not in published.health.down_nodes
    ]
    waiting_relays = [n for n in moving if n in relays]
    # With one relay no order keeps the mesh connected, so nothing is gained by waiting.
    if not moving or len(relays) < 2:
        return {}
    had_waiting = published.transition.previous_sockets.keys()
    moved = [r for r in relays if r not in had_waiting] if had_waiting else []
    # The next relay moves once all neighbours hear the relays that have moved.
    if all(published.is_heard_by_neighbours(r) for r in moved if r not in waiting_relays):
        waiting_relays = waiting_relays[1:]
        if not waiting_relays and not had_waiting & set(relays):
            # No relay was waiting in the step before: the leaves move now.
            return {}
    waiting = [n for n in moving if n in waiting_relays or not after.members[n].is_relay]
    return {n: before.members[n].access_socket for n in waiting}
