"""Checks that each Route of each view is sound, and that each leaf always has a next hop that helps.

A leaf does not forward for other nodes, so its only choice is the first hop. A packet that it hands to a relay then
meets the same Routes as the relay's own packets (``via``). ``reachability`` walks those from every relay to every
destination. So a leaf needs no walk. It needs a Route with a next hop for every destination, and a second next hop
if it has a second link.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.view import Kind, Peer, Route
from saltext_wgmesh.core.proof.findings import Findings
from saltext_wgmesh.core.proof.forwarding_tables import ForwardingTables, NodeTables
from saltext_wgmesh.core.proof.link_graph import LinkGraph
from saltext_wgmesh.core.proof.prefix_table import HostAddress, Prefix, PrefixTable, first_host, prefix_or_none


def check_next_hops(tables: ForwardingTables, graph: LinkGraph, findings: Findings) -> None:
    """Add to *findings* all problems of single Routes, and of the first hops of leaves."""
    destinations = _Destinations(tables)
    proven: set[tuple[int, Hashable]] = set()
    for name in tables.plan.members:
        node = tables.node(name)
        if node is not None:
            # Leaves with the same Routes (the plan keeps that tuple alive), links and family, and nothing behind them.
            alike = (id(node.view.routes), _links(node)) if name not in tables.relays and not node.subnets else None
            if alike not in proven and _node(node, graph, destinations, findings) and alike:
                proven.add(alike)


def _links(node: NodeTables) -> Hashable:
    return node.families, tuple([(name, end[0].kind) for name, end in node.ends.items()])


def _node(node: NodeTables, graph: LinkGraph, destinations: _Destinations, findings: Findings) -> bool:
    """Add the problems of one node's Routes; return whether they are sound at any leaf with the same ones.

    A verdict holds for all leaves alike if it does not depend on the leaf itself. That demands two things: even its own
    address would find a next hop, and no Route has just one, as the search for other ways starts at the leaf.
    """
    before = findings.total
    _prefixes(node, destinations, findings)
    for route in node.view.routes:
        _route(node, route, destinations, findings)
    if node.member.is_relay:
        return False
    missing = _missing(node, destinations)
    _covers(node, missing, destinations, findings)
    _has_alternatives(node, graph, destinations, findings)
    return findings.total == before and not missing and all(len(set(r.via)) > 1 for r in node.view.routes)


class _Destinations:
    """All prefixes that can be a destination, with what the checks learned about prefixes so far."""

    def __init__(self, tables: ForwardingTables) -> None:
        self.owner = tables.owners
        self.owned = tables.prefixes
        self.networks = tables.plan.networks
        self.subnets = [s for m in tables.plan.members.values() for s in m.subnets]
        self._hosts = tables.shared.hosts
        self._standby: dict[str, list[str]] = {}
        for name, member in tables.plan.members.items():
            for subnet in member.standby_subnets:
                self._standby.setdefault(subnet, []).append(name)
        self.known = set(self.owner)
        """Prefixes that may stand in Routes."""
        self.known_tuples: set[int] = set()
        """Identities of tuples of such: nodes share most Routes, and the plan keeps them alive."""
        self._parsed = tables.parsed
        self._uncovered: dict[tuple[tuple[tuple[str, ...], bool], ...], list[str]] = {}
        self._parsed_subnets = [p for p in map(prefix_or_none, self.subnets) if p]

    def delivers(self, peer: Peer, text: str) -> bool:
        """Return whether WireGuard gives packets for *text* to the leaf *peer*, its gateway or a standby one."""
        return text in peer.allowed_ips and (
            self.owner.get(text) == peer.node or peer.node in self._standby.get(text, ())
        )

    def is_part_of_subnet(self, prefix: Prefix) -> bool:
        """Return whether *prefix* is a part of a subnet, so that one subnet would go two ways."""
        return any(s.holds(prefix) for s in self._parsed_subnets)

    def uncovered(self, routes: Iterable[Route]) -> list[str]:
        """Return the destinations for which *routes* have no Route, or one without a next hop."""
        # Many leaves have Routes of the same shape, and the result depends on nothing else.
        shape = tuple((r.prefixes, bool(r.via)) for r in routes)
        if shape not in self._uncovered:
            entries = {p: leads for prefixes, leads in shape for p in prefixes}
            table = PrefixTable(entries, [p for p in entries if p not in self._hosts])
            self._uncovered[shape] = [
                t for t, p in self._parsed.items() if not table.longest(HostAddress(p.version, p.value, t))
            ]
        return self._uncovered[shape]


# --- single routes -------------------------------------------------------------------------------------


def _prefixes(node: NodeTables, destinations: _Destinations, findings: Findings) -> None:
    """The view's prefixes are canonical and unique; none is a part of a subnet, or a subnet behind the node."""
    path = f"node {node.view.node}"
    # The last Route of a prefix replaces the others in the entries, so the counts differ if one stands twice.
    if sum([len(r.prefixes) for r in node.view.routes]) != len(node.entries):
        findings.add("prefixes in two Routes", path, "a prefix stands in two of its Routes")
    for route in node.view.routes:
        if id(route.prefixes) not in destinations.known_tuples and _are_usable(
            path, route.prefixes, destinations, findings
        ):
            destinations.known_tuples.add(id(route.prefixes))
    for text in sorted(s for s in node.subnets if s in node.entries):
        findings.add("Routes for a node's own subnets", path, f"it routes {text}, which is behind itself, elsewhere")


def _are_usable(path: str, prefixes: Iterable[str], destinations: _Destinations, findings: Findings) -> bool:
    usable = True
    for text in () if destinations.known.issuperset(prefixes) else prefixes:
        prefix = prefix_or_none(text)
        if prefix is None:
            findings.add("malformed prefixes", path, f"{text!r} in its Routes is not a prefix in canonical form")
        elif text not in destinations.known and destinations.is_part_of_subnet(prefix):
            findings.add("Routes for a part of a subnet", path, f"it routes {text}, a part of a subnet, by itself")
        else:
            destinations.known.add(text)
            continue
        usable = False
    return usable


def _route(node: NodeTables, route: Route, destinations: _Destinations, findings: Findings) -> None:
    """Next hops are neighbours, those on the access interface only for their own prefixes; the Route fits the role.

    WireGuard gives each packet on an access interface to the peer that owns its destination, whatever the Route named.
    """
    path = f"node {node.view.node}"
    hops = (*route.via, *(route.from_trunk or ()))
    for hop in hops:
        end = node.ends.get(hop)
        if end is None:
            findings.add(
                "next hops that are no neighbours", path, f"it routes {_example(route)} to {hop}, no peer of it"
            )
        elif end[0].kind is Kind.ACCESS and not all(destinations.delivers(end[1], p) for p in route.prefixes):
            findings.add("packets sent to leaves that don't own them", path, f"it routes {_example(route)} to {hop}")
    if node.member.is_relay and route.from_trunk is None:
        message = f"its Route for {_example(route)} says nothing about packets from trunks"
        findings.add("Routes of a wrong form", path, message)
    if not node.member.is_relay and (route.detour or route.from_trunk is not None):
        findings.add("Routes of a wrong form", path, f"its Route for {_example(route)} is one of a relay")


def _example(route: Route) -> str:
    return route.prefixes[0] if route.prefixes else "nothing"


# --- first hops of leaves ------------------------------------------------------------------------------


def _covers(node: NodeTables, missing: Iterable[str], destinations: _Destinations, findings: Findings) -> None:
    """The leaf has a next hop for each destination of its families that is not itself."""
    path = f"node {node.view.node}"
    for text in missing:
        owner = destinations.owner[text]
        if owner != node.view.node and _is_of(text, node) and text not in node.subnets:
            findings.add("destinations without a route", path, f"it has no way to {text} of {owner}")


def _missing(node: NodeTables, destinations: _Destinations) -> list[str]:
    """Return the destinations that may lack a next hop."""
    routes = node.view.routes
    # The common case needs no look at each destination: a Route with a next hop for each network covers all members.
    if all(r.via for r in routes) and all(n in node.entries for n in destinations.networks if _is_of(n, node)):
        return [s for s in destinations.subnets if s not in node.entries and node.routes.longest(_host(s)) is None]
    direct: set[str] = set()
    general = []
    for route in routes:
        if any(_is_direct(node, n) for n in route.via):
            direct.update(route.prefixes)
        else:
            general.append(route)
    return [t for t in destinations.uncovered(general) if t not in direct]


def _is_of(text: str, node: NodeTables) -> bool:
    return address_family(text) in node.families


def _is_direct(node: NodeTables, neighbour: str) -> bool:
    end = node.ends.get(neighbour)
    return end is not None and end[0].kind is Kind.ACCESS


def _host(text: str) -> HostAddress:
    prefix = prefix_or_none(text)
    return first_host(prefix) if prefix else HostAddress(4, 0, text)


def _has_alternatives(node: NodeTables, graph: LinkGraph, destinations: _Destinations, findings: Findings) -> None:
    """Where a Route has one next hop, its failure costs the leaf only destinations that no other link reaches.

    A Route with two next hops needs no look: one failure takes one of them, and then the other counts.
    """
    name = node.view.node
    for route in node.view.routes:
        if len(set(route.via)) != 1 or len(node.ends) < 2:
            continue
        only = route.via[0]
        # If only the link is down, the neighbour itself must still be reached another way.
        for down in (frozenset({frozenset({name, only})}), frozenset({only})):
            lost = next(
                (
                    text
                    for text in _through(node, route, only, destinations)
                    if _avoidable(graph, name, text, down, destinations)
                ),
                None,
            )
            if lost is not None:
                message = (
                    f"it can't reach {lost} of {destinations.owner[lost]} without {only}, though it has another way"
                )
                findings.add("leaves that use one of two ways", f"node {name}", message)
                break


def _through(node: NodeTables, route: Route, only: str, destinations: _Destinations) -> Iterator[str]:
    """Yield the destinations of *route* that the leaf might reach by another of its links than that to *only*."""
    if _is_direct(node, only):
        # All are the neighbour's own (``_route``), so only a relay can be another way.
        candidates: Iterable[str] = route.prefixes if node.member.relays else ()
    elif any(end[0].kind is Kind.UPLINK for other, end in node.ends.items() if other != only):
        candidates = destinations.owner
    else:
        candidates = (p for other in node.ends if other != only for p in destinations.owned.get(other, ()))
    for text in candidates:
        if text in destinations.owner and _is_of(text, node) and node.routes.longest(_host(text)) is route:
            yield text


def _avoidable(
    graph: LinkGraph, name: str, text: str, down: frozenset[str | frozenset[str]], destinations: _Destinations
) -> bool:
    owner = destinations.owner[text]
    return owner != name and owner not in down and graph.connected(name, owner, down)
