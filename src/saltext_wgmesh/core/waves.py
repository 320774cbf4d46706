"""In which order nodes are told of views that change what runs: relays, then who is called by others, then who calls.

What only adds links, takes away unused ones or moves routes disturbs nothing, whoever takes it up first
(``core.rollout``). What alters a link that is in use goes out in waves, so that a mistake stops at the first relay.
What others use is given up when they have: a leaf whose master is beyond it then still has its way to say no.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def waves(views: Mapping[str, tuple[View | None, View | None]], nodes: Iterable[str]) -> list[list[str]]:
    """*nodes* in the order in which they are told; *views* is node → what it runs and what it is to run, None if that
    is not known or no view. The first wave disturbs nothing; of those that do, the first relay is a wave of its own.
    Relays that deliver to a subnet no more come after all leaves, and who leaves the mesh comes last."""
    calm: list[str] = []
    ending: list[str] = []
    gone: list[str] = []
    ranked: dict[int, list[str]] = {}
    for node in sorted(nodes):
        old, new = views.get(node, (None, None))
        if old is None or new is None:
            (calm if old is None else gone).append(node)
        elif not disturbs(old, new):
            (ending if new.role is Role.RELAY and _subnets(old) - _subnets(new) else calm).append(node)
        else:
            ranked.setdefault(_rank(new), []).append(node)
    relays = ranked.pop(0, [])
    return [wave for wave in (calm, relays[:1], relays[1:], *(ranked[r] for r in sorted(ranked)), ending, gone) if wave]


def _subnets(view: View) -> set[str]:
    """All that it has a way to and that is not in the mesh itself."""
    networks = [prefix(n) for n in view.networks]
    routed = (p for route in view.routes for p in route.prefixes)
    return {p for p in routed if not any(n.holds(prefix(p)) for n in networks)}


def _rank(view: View) -> int:
    """0: a relay; 1: a leaf that is called by some neighbour; 2: one that opens all its links itself."""
    if view.role is Role.RELAY:
        return 0
    return 1 if any(p.endpoint is None for i in view.interfaces for p in i.peers) else 2
