"""Is each Route of each view sound, and does each leaf always have a next hop that helps?

A leaf forwards for nobody, so its only choice is the first hop. A packet that it hands to a relay then meets what
the relay's own packets meet (``via``), and ``reachability`` follows those from every relay to every target. So a leaf
needs no walk: it needs a Route with a next hop for every target, and a second next hop where it has a second link.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from saltext_wgmesh.core.findings import Findings
from saltext_wgmesh.core.graph import Graph
from saltext_wgmesh.core.index import Index, Node
from saltext_wgmesh.core.lookup import Host, Prefix, PrefixTable, first_host, read
from saltext_wgmesh.core.types import Kind, Peer, Route


def check(index: Index, graph: Graph, found: Findings) -> None:
    """Add to *found* whatever is wrong with single Routes, and with the first hops of leaves."""
    spots = _Spots(index)
    proven: set[tuple[int, Hashable]] = set()
    for name in index.plan.members:
        node = index.node(name)
        if node is not None:
            # Leaves with the same Routes (the plan keeps that tuple alive), links and family, and nothing behind them.
            alike = (id(node.view.routes), _links(node)) if name not in index.relays and not node.subnets else None
            if alike not in proven and _node(node, graph, spots, found) and alike:
                proven.add(alike)


def _links(node: Node) -> Hashable:
    return node.families, tuple([(name, end[0].kind) for name, end in node.ends.items()])


def _node(node: Node, graph: Graph, spots: _Spots, found: Findings) -> bool:
    """Add what is wrong with one node's Routes; return whether nothing is, of any leaf like it.

    What holds for one leaf holds for those like it as far as it does not depend on the leaf itself: if even its own
    address would find a next hop, and if no Route has just one, for which other ways are sought from the leaf.
    """
    before = found.total
    _prefixes(node, spots, found)
    for route in node.view.routes:
        _route(node, route, spots, found)
    if node.member.is_relay:
        return False
    missing = _missing(node, spots)
    _covers(node, missing, spots, found)
    _has_alternatives(node, graph, spots, found)
    return found.total == before and not missing and all(len(set(r.via)) > 1 for r in node.view.routes)


class _Spots:
    """All that can be a destination, and what was learned about prefixes so far."""

    def __init__(self, index: Index) -> None:
        self.owner = index.owners
        self.owned = index.prefixes
        self.networks = index.plan.networks
        self.subnets = [s for m in index.plan.members.values() for s in m.subnets]
        self._hosts = index.shared.hosts
        self._standby: dict[str, list[str]] = {}
        for name, member in index.plan.members.items():
            for subnet in member.standby_subnets:
                self._standby.setdefault(subnet, []).append(name)
        self.known = set(self.owner)
        """Prefixes that may stand in Routes."""
        self.known_tuples: set[int] = set()
        """Identities of tuples of such: nodes share most Routes, and the plan keeps them alive."""
        self._places = index.places
        self._uncovered: dict[tuple[tuple[tuple[str, ...], bool], ...], list[str]] = {}
        self._subnet_places = [p for p in map(read, self.subnets) if p]

    def takes(self, peer: Peer, text: str) -> bool:
        """Whether the leaf *peer* owns the prefix or stands by for it, and WireGuard gives it what is for that."""
        return text in peer.allowed_ips and (
            self.owner.get(text) == peer.node or peer.node in self._standby.get(text, ())
        )

    def splits(self, place: Prefix) -> bool:
        """Whether *place* is a part of a subnet, so that one subnet would go two ways."""
        return any(s.holds(place) for s in self._subnet_places)

    def uncovered(self, routes: Iterable[Route]) -> list[str]:
        """The destinations that *routes* lead nowhere: no Route, or one without a next hop."""
        shape = tuple((r.prefixes, bool(r.via)) for r in routes)
        if shape not in self._uncovered:
            entries = {p: leads for prefixes, leads in shape for p in prefixes}
            table = PrefixTable(entries, [p for p in entries if p not in self._hosts])
            self._uncovered[shape] = [
                t for t, p in self._places.items() if not table.longest(Host(p.version, p.value, t))
            ]
        return self._uncovered[shape]


# --- single routes -------------------------------------------------------------------------------------


def _prefixes(node: Node, spots: _Spots, found: Findings) -> None:
    """The view's prefixes are canonical, each there once; none is a part of a subnet, or a subnet behind the node."""
    where = f"node {node.view.node}"
    if sum([len(r.prefixes) for r in node.view.routes]) != len(node.entries):
        found.add("prefixes in two Routes", where, "a prefix stands in two of its Routes")
    for route in node.view.routes:
        if id(route.prefixes) not in spots.known_tuples and _are_usable(where, route.prefixes, spots, found):
            spots.known_tuples.add(id(route.prefixes))
    for text in sorted(s for s in node.subnets if s in node.entries):
        found.add("Routes for a node's own subnets", where, f"it routes {text}, which is behind itself, elsewhere")


def _are_usable(where: str, prefixes: Iterable[str], spots: _Spots, found: Findings) -> bool:
    usable = True
    for text in () if spots.known.issuperset(prefixes) else prefixes:
        place = read(text)
        if place is None:
            found.add("malformed prefixes", where, f"{text!r} in its Routes is not a prefix in canonical form")
        elif text not in spots.known and spots.splits(place):
            found.add("Routes for a part of a subnet", where, f"it routes {text}, a part of a subnet, by itself")
        else:
            spots.known.add(text)
            continue
        usable = False
    return usable


def _route(node: Node, route: Route, spots: _Spots, found: Findings) -> None:
    """Its next hops are neighbours, those on the access interface only for what is theirs; it fits the node's role.

    An access interface takes each packet to the peer that owns its destination, whatever the route named.
    """
    where = f"node {node.view.node}"
    hops = (*route.via, *(route.from_trunk or ()))
    for hop in hops:
        end = node.ends.get(hop)
        if end is None:
            found.add("next hops that are no neighbours", where, f"it routes {_some(route)} to {hop}, no peer of it")
        elif end[0].kind is Kind.ACCESS and not all(spots.takes(end[1], p) for p in route.prefixes):
            found.add("packets sent to leaves that don't own them", where, f"it routes {_some(route)} to {hop}")
    if node.member.is_relay and route.from_trunk is None:
        found.add(
            "Routes of a wrong form", where, f"its Route for {_some(route)} says nothing about packets from trunks"
        )
    if not node.member.is_relay and (route.detour or route.from_trunk is not None):
        found.add("Routes of a wrong form", where, f"its Route for {_some(route)} is one of a relay")


def _some(route: Route) -> str:
    return route.prefixes[0] if route.prefixes else "nothing"


# --- first hops of leaves ------------------------------------------------------------------------------


def _covers(node: Node, missing: Iterable[str], spots: _Spots, found: Findings) -> None:
    """The leaf has a next hop for each destination of its families that is not itself."""
    for text in missing:
        owner = spots.owner[text]
        if owner != node.view.node and (6 if ":" in text else 4) in node.families and text not in node.subnets:
            found.add("destinations without a route", f"node {node.view.node}", f"it has no way to {text} of {owner}")


def _missing(node: Node, spots: _Spots) -> list[str]:
    """What may lack a next hop: nothing, at a glance, where each network and subnet has one."""
    routes = node.view.routes
    if all(r.via for r in routes) and all(n in node.entries for n in spots.networks if _is_of(n, node)):
        return [s for s in spots.subnets if s not in node.entries and node.routes.longest(_host(s)) is None]
    near: set[str] = set()
    general = []
    for route in routes:
        if any(_is_direct(node, n) for n in route.via):
            near.update(route.prefixes)
        else:
            general.append(route)
    return [t for t in spots.uncovered(general) if t not in near]


def _is_of(text: str, node: Node) -> bool:
    return (6 if ":" in text else 4) in node.families


def _is_direct(node: Node, neighbour: str) -> bool:
    end = node.ends.get(neighbour)
    return end is not None and end[0].kind is Kind.ACCESS


def _host(text: str) -> Host:
    place = read(text)
    return first_host(place) if place else Host(4, 0, text)


def _has_alternatives(node: Node, graph: Graph, spots: _Spots, found: Findings) -> None:
    """If its only next hop for something dies, the leaf is cut off from it only if it has no other link that helps.

    A Route with two next hops needs no look: one failure takes one of them, and then the other counts.
    """
    name = node.view.node
    for route in node.view.routes:
        if len(set(route.via)) != 1 or len(node.ends) < 2:
            continue
        only = route.via[0]
        for down in (frozenset({frozenset({name, only})}), frozenset({only})):
            lost = next(
                (t for t in _through(node, route, only, spots) if _avoidable(graph, name, t, down, spots)), None
            )
            if lost is not None:
                text = f"it can't reach {lost} of {spots.owner[lost]} without {only}, though it has another way"
                found.add("leaves that use one of two ways", f"node {name}", text)
                break


def _through(node: Node, route: Route, only: str, spots: _Spots) -> Iterator[str]:
    """The destinations of *route* that the leaf might reach by another of its links than that to *only*."""
    if _is_direct(node, only):
        # All are the neighbour's own (``_route``), so only a relay can be another way.
        candidates: Iterable[str] = route.prefixes if node.member.homes else ()
    elif any(end[0].kind is Kind.UPLINK for other, end in node.ends.items() if other != only):
        candidates = spots.owner
    else:
        candidates = (p for other in node.ends if other != only for p in spots.owned.get(other, ()))
    for text in candidates:
        if text in spots.owner and _is_of(text, node) and node.routes.longest(_host(text)) is route:
            yield text


def _avoidable(graph: Graph, name: str, text: str, down: frozenset[str | frozenset[str]], spots: _Spots) -> bool:
    owner = spots.owner[text]
    return owner != name and owner not in down and graph.connected(name, owner, down)
