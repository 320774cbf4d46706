"""A view and the links that are down → the routes of the node's kernel.

A link is named by the neighbour at its other end, as everywhere. This is all that a watcher needs: when a link goes
down or comes up, the new routes follow from the view alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from saltext_wgmesh.core.types import Kind, Route, View

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
    trunks = tuple(p.node for i in view.interfaces if i.kind is Kind.TRUNK for p in i.peers)
    found = []
    for route in view.routes:
        tables = {MAIN: _with_detours(route, trunks)}
        if route.from_trunk is not None and trunks:
            tables[TRUNK] = route.from_trunk
        for table, neighbours in tables.items():
            hops = tuple(NextHop(neighbour=n, interface=interfaces[n]) for n in neighbours)
            found += [PreparedRoute(prefix=prefix, table=table, hops=hops) for prefix in route.prefixes]
    return tuple(sorted(found, key=lambda r: (r.prefix, r.table)))


def choose(view: View, down: frozenset[str] = frozenset()) -> tuple[KernelRoute, ...]:
    """The routes to have while the links to the neighbours *down* are down, sorted.

    Each takes its first next hop whose link is up. If all are down it takes the first of all: a link that is wrongly
    believed dead then still carries, and nothing is lost by trying one that is dead.
    """
    return tuple(
        KernelRoute(prefix=route.prefix, table=route.table, device=_device(route.hops, down)) for route in expand(view)
    )


def _with_detours(route: Route, trunks: tuple[str, ...]) -> tuple[str, ...]:
    """The neighbours of ``via``, and after them, on a detour, all other relays."""
    return (*route.via, *(t for t in trunks if t not in route.via)) if route.detour else route.via


def _device(hops: tuple[NextHop, ...], down: frozenset[str]) -> str | None:
    if not hops:
        return None
    return next((h.interface for h in hops if h.neighbour not in down), hops[0].interface)
