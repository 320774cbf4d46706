"""In which order nodes are told of views that change what runs: relays, then who is called by others, then who calls.

What only adds links, takes away unused ones or moves routes disturbs nothing, whoever takes it up first
(``core.rollout``). What alters a link that is in use goes out in waves, so that a mistake stops at the first relay.
What others use is given up when they have said that they do not: a leaf whose master is beyond it then still has its
way to say no.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from saltext_wgmesh.core.lookup import prefix
from saltext_wgmesh.core.renaming import renamed
from saltext_wgmesh.core.types import Interface, Role, View


def disturbs(old: View, new: View) -> bool:
    """Whether a node that takes up *new* after *old* alters a link that both have, or loses an address."""
    if old.mtu != new.mtu or not set(old.addresses) <= set(new.addresses) or renamed(old, new):
        return True
    before = {i.name: i for i in old.interfaces}
    return any(_alters(before[i.name], i) for i in new.interfaces if i.name in before)


def _alters(old: Interface, new: Interface) -> bool:
    if old.listen_port != new.listen_port:
        return True
    before = {p.node: p for p in old.peers}
    return any(
        # Of a key that the node may run already nothing is altered.
        not (set(p.keys) & set(q.keys) and p.address == q.address) or (p.endpoint and p.endpoint != q.endpoint)
        for p in new.peers
        if (q := before.get(p.node))
    )


class Wave(enum.IntEnum):
    """When a node is told."""

    CALM = 0
    """It adds links, takes away unused ones, or moves routes."""
    FIRST_RELAY = 1
    RELAYS = 2
    CALLED = 3
    """Leaves that are called by some neighbour."""
    CALLERS = 4
    """Leaves that open all their links themselves."""
    ENDING = 5
    """Relays that deliver to a subnet no more."""
    GONE = 6
    """Who leaves the mesh."""

    @property
    def gives_up(self) -> bool:
        """Whether others may use what these nodes give up."""
        return self >= Wave.ENDING


def waves(views: Mapping[str, tuple[View | None, View | None]]) -> dict[str, Wave]:
    """Node → its wave; *views* is node → what it runs and what it is to run, None if that is not known or no view."""
    found = {node: _wave(old, new) for node, (old, new) in views.items()}
    relays = sorted(node for node, wave in found.items() if wave is Wave.RELAYS)
    return {**found, **dict.fromkeys(relays[:1], Wave.FIRST_RELAY)}


def _wave(old: View | None, new: View | None) -> Wave:
    if old is None or new is None:
        return Wave.CALM if old is None else Wave.GONE
    if not disturbs(old, new):
        return Wave.ENDING if _gives_up(old, new) else Wave.CALM
    if new.role is Role.RELAY:
        return Wave.RELAYS
    return Wave.CALLED if any(p.endpoint is None for i in new.interfaces for p in i.peers) else Wave.CALLERS


def _gives_up(old: View, new: View) -> bool:
    """Whether a relay has no way to some subnet any more; but nobody waits for anything where a peer has to go."""
    peers = [{p.node for i in view.interfaces for p in i.peers} for view in (old, new)]
    return new.role is Role.RELAY and peers[0] <= peers[1] and bool(_subnets(old) - _subnets(new))


def _subnets(view: View) -> set[str]:
    """All that it has a way to and that is not in the mesh itself."""
    networks = [prefix(n) for n in view.networks]
    routed = (p for route in view.routes for p in route.prefixes)
    return {p for p in routed if not any(n.holds(prefix(p)) for n in networks)}
