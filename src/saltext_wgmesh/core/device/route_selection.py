"""The routes of a node's kernel, from its view and the links that are down.

A link is named by the neighbour at its other end. The watcher needs nothing else: when a link goes down or comes up, or
a relay stops forwarding, the new routes follow from the view alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from types import MappingProxyType

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.liveness.link_report import DownLinks
from saltext_wgmesh.core.model.addresses import host_prefixes
from saltext_wgmesh.core.model.view import Kind, Route, View

ALL_UP: DownLinks = MappingProxyType({})
MAIN = "main"
TRUNK = "trunk"
"""The table for packets that arrived by a trunk."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NextHop:
    """A neighbour, and the interface that leads to it."""

    neighbour: str
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CandidateRoute:
    """One prefix in one table with all its next hops, the preferred one first; without any: unreachable."""

    prefix: str
    table: str
    """``main`` or ``trunk``."""
    hops: tuple[NextHop, ...]
    owner: str | None
    """The neighbour that has the prefix, if one has it: it need not forward packets for itself."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class KernelRoute:
    """One prefix in one table as the kernel should have it now."""

    prefix: str
    table: str
    """``main`` or ``trunk``."""
    device: str | None
    """None: unreachable."""


def candidate_routes(view: View) -> tuple[CandidateRoute, ...]:
    """Return all routes of the node with all their next hops, sorted. A node without trunks has no trunk table."""
    found = (candidate for candidate in candidates(view) if candidate is not None)
    return tuple(sorted(found, key=lambda r: (r.prefix, r.table)))


def candidates(view: View) -> Iterator[CandidateRoute | None]:
    """Yield what ``candidate_routes`` returns, unsorted. None: nothing is found yet, but a caller may pause here.

    Raises ViewError if a route of *view* is by a node that is no peer.
    """
    interfaces: dict[str, str] = {}
    neighbours_at: dict[str, str] = {}
    trunks: list[str] = []
    for interface in view.interfaces:
        for peer in interface.peers:
            interfaces[peer.node] = interface.name
            neighbours_at[host_prefixes((peer.address,))[0]] = peer.node
            yield None
        trunks += [peer.node for peer in interface.peers if interface.kind is Kind.TRUNK]
    for route in view.routes:
        tables = {MAIN: _with_detours(route, tuple(trunks))}
        # Without trunks no packet arrives by one, so the table would never be used.
        if route.from_trunk is not None and trunks:
            tables[TRUNK] = route.from_trunk
        owner = next((neighbours_at[p] for p in route.prefixes if p in neighbours_at), None)
        # A neighbour's address may be in a Route to other nodes: then it is not the neighbour's own route.
        if owner not in route.via:
            owner = None
        for table, neighbours in tables.items():
            if not interfaces.keys() >= set(neighbours):
                raise ViewError(f"the view of {view.mesh} is damaged (a route is by no peer): converge again")
            hops = tuple(NextHop(neighbour=n, interface=interfaces[n]) for n in neighbours)
            for prefix in route.prefixes:
                yield CandidateRoute(prefix=prefix, table=table, hops=hops, owner=owner)


def select_routes(view: View, down: DownLinks = ALL_UP, blackholed: Set[str] = frozenset()) -> tuple[KernelRoute, ...]:
    """Return the routes while the links to the neighbours *down* are down, sorted.

    Links to neighbours in *blackholed* are up, but packets sent through these neighbours do not arrive.
    """
    return select(candidate_routes(view), down, blackholed)


def select(
    routes: Iterable[CandidateRoute], down: DownLinks = ALL_UP, blackholed: Set[str] = frozenset()
) -> tuple[KernelRoute, ...]:
    """Return what ``select_routes`` does, for candidates that were made before.

    Each route takes its first next hop whose link is up and that forwards; else the first whose link is up. If all are
    down, it keeps the one that went down last. A link that is wrongly reported down then still carries, and a packet
    over a link that is down is lost in any case.
    """
    return tuple(KernelRoute(prefix=r.prefix, table=r.table, device=select_device(r, down, blackholed)) for r in routes)


def _with_detours(route: Route, trunks: tuple[str, ...]) -> tuple[str, ...]:
    """Return the neighbours of ``via``, followed by all other relays if the route has a detour."""
    return (*route.via, *(t for t in trunks if t not in route.via)) if route.detour else route.via


def select_device(route: CandidateRoute, down: DownLinks, blackholed: Set[str]) -> str | None:
    """Return the device of the next hop that ``select`` takes for *route*; None: unreachable."""
    if not route.hops:
        return None
    up = [hop for hop in route.hops if hop.neighbour not in down]
    up = up or [max(route.hops, key=lambda hop: down[hop.neighbour])]
    # A blackholed relay still receives packets that are for itself.
    forwarding = (hop for hop in up if hop.neighbour not in blackholed or hop.neighbour == route.owner)
    return next(forwarding, up[0]).interface
