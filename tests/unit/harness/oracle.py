"""The oracle of the proof: all pairs, all single failures, each packet by itself, without classes or tables.

It shares nothing with ``core.proof`` and is slow. ``prove`` must fail for each plan that the oracle calls broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network

from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.view import Kind


@cache
def _net(text):
    return ip_network(text)


@cache
def _holds(prefix, address):
    return ip_address(address) in _net(prefix)


def _longest(prefixes, address):
    return max((p for p in prefixes if _holds(p, address)), key=lambda p: _net(p).prefixlen, default=None)


def _peers(plan, node):
    return [(i, p) for i in plan.views[node].interfaces for p in i.peers]


def _can_open(plan, node, peer, there):
    """Return whether the endpoint that *node* has for *peer* leads to the interface *there* of the peer."""
    member = plan.members[peer.node]
    host, _, port = (peer.endpoint or "").rpartition(":")
    access = next(i for i in plan.views[peer.node].interfaces if i.kind is Kind.ACCESS)
    shift = there.listen_port - access.listen_port
    if there.listen_port == 0 or not host:
        return False
    if member.endpoint and host == member.endpoint.host and int(port) == member.endpoint.port + shift:
        return True
    own = (*member.underlay, member.endpoint.host if member.endpoint else "")
    return host.strip("[]") in own and int(port) == there.listen_port


def is_trunk(interface):
    """Return whether *interface* has a port of its own for one relay, like a trunk."""
    return interface.kind is Kind.TRUNK or (interface.kind is Kind.UPLINK and interface.listen_port > 0)


def _is_down(at, neighbour, down):
    """Return whether *at* sees its link to *neighbour* down; an ordered pair is down only for its first node."""
    return neighbour in down or frozenset((at, neighbour)) in down or (at, neighbour) in down


def walk(plan: Plan, source: str, source_address: str, to: str, down: frozenset) -> tuple[str, tuple[str, ...]]:
    """Return how the packet ended, and the nodes on its way."""
    hops, by_trunk = [source], False
    seen = set()
    while True:
        at = hops[-1]
        view, member = plan.views[at], plan.members[at]
        local = [*view.addresses, *member.subnets, *member.standby_subnets]
        if any(_holds(p, to) for p in local):
            return ("delivered" if to in view.addresses or view.forward else "not forwarding"), tuple(hops)
        if (at, by_trunk) in seen or len(hops) > 9:
            return "loop", tuple(hops)
        seen.add((at, by_trunk))
        if len(hops) > 1 and not (member.is_relay and view.forward):
            return "not forwarding", tuple(hops)
        prefix = _longest([p for r in view.routes for p in r.prefixes], to)
        routes = [r for r in view.routes if prefix in r.prefixes]
        if not routes:
            return "no route", tuple(hops)
        nexts = list(routes[-1].from_trunk or () if by_trunk else routes[-1].via)
        if routes[-1].detour and not by_trunk:
            nexts += [p.node for i, p in _peers(plan, at) if i.kind is Kind.TRUNK]
        up = [n for n in nexts if not _is_down(at, n, down)]
        if not up:
            return "unreachable", tuple(hops)
        step = _cross(plan, at, up[0], source_address, to, down)
        if isinstance(step, str):
            return step, tuple(hops)
        hops.append(step[0])
        by_trunk = step[1]


def _cross(plan, at, neighbour, source_address, to, down):
    own = [(i, p) for i, p in _peers(plan, at) if p.node == neighbour]
    if not own:
        return "no peer"
    out = own[0][0]
    prefix = _longest([a for p in out.peers for a in p.allowed_ips], to)
    peers = [p for p in out.peers if prefix in p.allowed_ips]
    if not peers:
        return "no peer"
    peer = peers[-1]
    if _is_down(at, peer.node, down):
        return "down"
    if plan.members[peer.node].public_key != peer.public_key:
        return "no session"
    kind = Kind.UPLINK if plan.members[at].is_relay and out.kind is Kind.ACCESS else Kind.ACCESS
    back = [
        (i, p)
        for i, p in _peers(plan, peer.node)
        if p.public_key == plan.members[at].public_key
        # A node that was a leaf a moment ago is a direct neighbour in older views: WireGuard accepts it.
        and (is_trunk(i) if is_trunk(out) else i.kind in (kind, Kind.ACCESS) and not is_trunk(i))
    ]
    if not back:
        return "no session"
    there, sender = back[0]
    if not (_can_open(plan, at, peer, there) or _can_open(plan, peer.node, sender, out)):
        return "no session"
    prefix = _longest([a for p in there.peers for a in p.allowed_ips], source_address)
    if prefix is None or [p for p in there.peers if prefix in p.allowed_ips][-1] is not sender:
        return "source refused"
    return peer.node, there.kind is Kind.TRUNK


def trips(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    """Yield (source, source address, destination, address) of all packets that must arrive."""
    endpoints = {n: [(a, a) for a in m.addresses] for n, m in plan.members.items()}
    for n, m in plan.members.items():
        endpoints[n] += [(s, str(_net(s)[9])) for s in m.subnets]
    for a in plan.members:
        families = {":" in x for x in plan.members[a].addresses}
        for b in plan.members:
            for _, source_address in endpoints[a]:
                for text, to in endpoints[b]:
                    same = (":" in to) == (":" in source_address)
                    if a != b and same and (":" in to) in families and text not in plan.members[a].standby_subnets:
                        yield a, source_address, b, to


def failures(plan: Plan) -> list[frozenset]:
    """Return the empty set, each relay, and each link."""
    relays = [n for n, m in plan.members.items() if m.is_relay]
    links = {frozenset((link.a, link.b)) for link in plan.links}
    links |= {frozenset((n, p.node)) for n in plan.views for _, p in _peers(plan, n)}
    return [frozenset(), *(frozenset({r}) for r in relays), *(frozenset({pair}) for pair in sorted(links, key=sorted))]


def _connected(plan, a, b, down):
    seen, frontier = {a}, [a]
    while frontier:
        at = frontier.pop()
        for _, p in _peers(plan, at):
            n = p.node
            if (
                n in plan.members[at].unrouted_relays
                or at in plan.members[n].unrouted_relays
                or n in down
                or frozenset((at, n)) in down
                or n in seen
            ):
                continue
            if n == b:
                return True
            seen.add(n)
            if plan.members[n].is_relay:
                frontier.append(n)
    return False


def broken(plan: Plan) -> list[str]:
    """Return a sentence for each packet that must arrive and does not."""
    found = []
    for down in failures(plan):
        for a, source_address, b, to in trips(plan):
            if a in down or b in down:
                continue
            how, hops = walk(plan, a, source_address, to, down)
            standby = any(_holds(s, to) for s in plan.members[hops[-1]].standby_subnets)
            if how == "delivered" and (hops[-1] == b or standby):
                continue
            if down and how == "unreachable" and not _connected(plan, hops[-1], b, down):
                continue
            found.append(f"{source_address} of {a} to {to} of {b}: {how} {hops}, down {[*down]}")
    return found
