"""A view and the links that are down → the routes of the node's kernel.

A link is named by the neighbour at its other end, as everywhere. This is all that a watcher needs: when a link goes
down or comes up, or a relay stops forwarding, the new routes follow from the view alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType

from saltext_wgmesh.core.types import Kind, Route, View, host_prefixes

Down = Mapping[str, float]
"""Neighbour whose link is down → since when, in seconds on any clock; 0: it never was up, infinity: it rests."""
NOTHING: Down = MappingProxyType({})
MAIN = "main"
TRUNK = "trunk"
"""The table for packets that came in by a trunk."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NextHop:
    """A neighbour, and the interface that leads to it."""

    neighbour: str
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PreparedRoute:
    """One prefix in one table with every next hop that it may take, first choice first; none: unreachable."""

    prefix: str
    table: str
    """``main`` or ``trunk``."""
    hops: tuple[NextHop, ...]
    owner: str | None
    """The neighbour to whom the prefix belongs, if it belongs to one: it need not forward what is for itself."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class KernelRoute:
    """One prefix in one table as the kernel should have it now."""

    prefix: str
    table: str
    """``main`` or ``trunk``."""
    device: str | None
    """None: unreachable."""


def expand(view: View) -> tuple[PreparedRoute, ...]:
    """All routes of the node with all their next hops, sorted. A node without trunks has no trunk table."""
    interfaces = {peer.node: interface.name for interface in view.interfaces for peer in interface.peers}
    neighbours_at = {host_prefixes((p.address,))[0]: p.node for i in view.interfaces for p in i.peers}
    trunks = tuple(p.node for i in view.interfaces if i.kind is Kind.TRUNK for p in i.peers)
    found = []
    for route in view.routes:
        tables = {MAIN: _with_detours(route, trunks)}
        if route.from_trunk is not None and trunks:
            tables[TRUNK] = route.from_trunk
        owner = next((neighbours_at[p] for p in route.prefixes if p in neighbours_at), None)
        if owner not in route.via:
            owner = None
        for table, neighbours in tables.items():
            hops = tuple(NextHop(neighbour=n, interface=interfaces[n]) for n in neighbours)
            found += [PreparedRoute(prefix=prefix, table=table, hops=hops, owner=owner) for prefix in route.prefixes]
    return tuple(sorted(found, key=lambda r: (r.prefix, r.table)))


def choose(view: View, down: Down = NOTHING, mute: Set[str] = frozenset()) -> tuple[KernelRoute, ...]:
    """The routes to have while the links to the neighbours *down* are down, and those to *mute* are up but nothing
    that was sent through them arrives; sorted."""
    return select(expand(view), down, mute)


def select(
    prepared: Iterable[PreparedRoute], down: Down = NOTHING, mute: Set[str] = frozenset()
) -> tuple[KernelRoute, ...]:
    """The same for routes that were prepared before.

    Each takes its first next hop whose link is up and that forwards; else the first whose link is up. If all are
    down it keeps the one that was the last to go down: a link that is wrongly believed dead then still carries, and
    nothing is lost by trying one that is dead.
    """
    return tuple(KernelRoute(prefix=r.prefix, table=r.table, device=_device(r, down, mute)) for r in prepared)


def _with_detours(route: Route, trunks: tuple[str, ...]) -> tuple[str, ...]:
    """The neighbours of ``via``, and after them, on a detour, all other relays."""
    return (*route.via, *(t for t in trunks if t not in route.via)) if route.detour else route.via


def _device(route: PreparedRoute, down: Down, mute: Set[str]) -> str | None:
    if not route.hops:
        return None
    up = [hop for hop in route.hops if hop.neighbour not in down]
    up = up or [max(route.hops, key=lambda hop: down[hop.neighbour])]
    forwarding = (hop for hop in up if hop.neighbour not in mute or hop.neighbour == route.owner)
    return next(forwarding, up[0]).interface
