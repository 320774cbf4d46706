"""Is each member's part of a plan sound in itself, and do the two ends of each link fit?

What holds when nothing is found here is what lets ``verify`` walk few packets for many: on every link, WireGuard
takes each packet that may cross it, at both ends, and gives it to the node that the route named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from saltext_wgmesh.core import names
from saltext_wgmesh.core.findings import Findings
from saltext_wgmesh.core.index import Index, Node
from saltext_wgmesh.core.lookup import Prefix, read
from saltext_wgmesh.core.types import Kind, Link, Peer, Plan, host_prefixes


def check(index: Index, found: Findings) -> None:
    """Add to *found* whatever is wrong with members, views, interfaces and links."""
    plan = index.plan
    _views_match_members(plan, found)
    _unique(plan, found)
    _places(index, found)
    _homes(plan, found)
    tunnels = _Tunnels(plan)
    for name in plan.members:
        node = index.node(name)
        if node is not None:
            _view(plan, node, found)
            _interfaces(node, found)
            _peers(index, node, tunnels, found)
    _links(index, found)


# --- members -------------------------------------------------------------------------------------------


def _views_match_members(plan: Plan, found: Findings) -> None:
    for name in sorted(plan.members.keys() ^ plan.views.keys()):
        has = "member without a view" if name in plan.members else "view of no member"
        found.add("members without a view, and views without a member", f"node {name}", f"it is a {has}")
    for name, member in plan.members.items():
        if member.node != name:
            found.add("misfiled members", f"node {name}", f"its member is named {member.node}")


def _unique(plan: Plan, found: Findings) -> None:
    """Keys and addresses belong to one member each."""
    _report_shared("public key", [(m.public_key, name) for name, m in plan.members.items()], found)
    _report_shared("address", [(a, name) for name, m in plan.members.items() for a in m.addresses], found)


def _report_shared(what: str, uses: Sequence[tuple[str, str]], found: Findings) -> None:
    first: dict[str, str] = dict(reversed(uses))
    if len(first) < len(uses):
        for value, name in uses:
            if first[value] != name:
                found.add(f"shared {what}s", f"node {name}", f"it has the {what} {value} of {first[value]}")


def _places(index: Index, found: Findings) -> None:
    """Addresses are in the mesh's networks, one a family; subnets overlap neither networks nor each other."""
    plan = index.plan
    networks = [n for n in map(read, plan.networks) if n]
    if len(networks) < len(plan.networks):
        found.add("malformed prefixes", "plan", f"of the networks {_list(plan.networks)}, one is no prefix")
    subnets: dict[str, tuple[Prefix, str]] = {}
    for name, member in plan.members.items():
        where = f"node {name}"
        for text in index.prefixes[name]:
            if text not in index.places:
                found.add("malformed prefixes", where, f"{text!r} is not a prefix in canonical form")
        own = [p for p in map(index.places.get, host_prefixes(member.addresses)) if p]
        if not own or len({p.version for p in own}) < len(own):
            found.add("wrong number of addresses", where, f"it has the addresses {_list(member.addresses)}")
        if any(not any(n.holds(p) for n in networks) for p in own):
            found.add("addresses outside the mesh", where, f"one of {_list(member.addresses)} is in no network")
        lacking = {n.version for n in networks} - {p.version for p in own}
        if member.is_relay and lacking:
            text = f"the relay has no IPv{max(lacking)} address, and would drop what others send by it"
            found.add("relays without a family", where, text)
        for text in member.subnets:
            place = index.places.get(text)
            if place and text in subnets:
                found.add("subnets with two gateways", where, f"{text} is behind {subnets[text][1]} as well")
            elif place:
                subnets[text] = (place, name)
    _disjoint([(n, "the mesh") for n in networks], list(subnets.values()), found)


def _disjoint(networks: Iterable[tuple[Prefix, str]], subnets: Iterable[tuple[Prefix, str]], found: Findings) -> None:
    """No two of these hold one address: in order of place, an overlap shows between a prefix and an open one before."""
    held: list[tuple[Prefix, str]] = []
    for place, owner in sorted((*networks, *subnets), key=lambda p: (p[0].version, p[0].value, p[0].length, p[1])):
        while held and not held[-1][0].holds(place):
            held.pop()
        if held:
            found.add("overlapping prefixes", f"node {owner}", f"its subnet overlaps one of {held[-1][1]}")
        held.append((place, owner))


def _homes(plan: Plan, found: Findings) -> None:
    """A leaf has two relays if any leaf has: the mesh then has two that can be used."""
    most = max((len(m.homes) for m in plan.members.values()), default=0)
    for name, member in plan.members.items():
        if not member.is_relay and len(set(member.homes)) < min(2, most):
            text = f"it has {len(set(member.homes))} relays, where others have two"
            found.add("leaves without a second relay", f"node {name}", text)


# --- views ---------------------------------------------------------------------------------------------


def _view(plan: Plan, node: Node, found: Findings) -> None:
    """The view says what the member is, and the node forwards only if it must."""
    view, member = node.view, node.member
    where = f"node {member.node}"
    must = member.is_relay or bool(node.subnets)
    facts: tuple[tuple[str, object, object], ...] = (
        ("mesh", view.mesh, plan.mesh),
        ("name", view.node, member.node),
        ("role", view.role, member.role),
        ("addresses", view.addresses, member.addresses),
        ("forward", view.forward, must),
    )
    if view.networks != plan.networks:
        networks = sorted([n for n in plan.networks if _family(n) in node.families])
        facts = (*facts, ("networks", sorted(view.networks), networks))
    for what, has, wanted in facts:
        if has != wanted:
            found.add(f"views with a wrong {what}", where, f"its view says {what} {has}, which should be {wanted}")


def _interfaces(node: Node, found: Findings) -> None:
    """Names and ports are there once; kinds fit the node's role; tunnels have one peer.

    That a prefix is allowed to one peer of an interface follows from ``_peers``: to the one that owns it.
    """
    where = f"node {node.view.node}"
    interfaces = node.view.interfaces
    wrong = Kind.UPLINK if node.member.is_relay else Kind.TRUNK
    for interface in interfaces:
        if not 1 <= len(interface.name.encode()) <= names.IFNAMSIZ:
            found.add("unusable interface names", where, f"{interface.name!r} can't be an interface's name")
        if interface.kind is wrong:
            found.add("interfaces of a wrong kind", where, f"a {node.member.role.value} has no {wrong.value}")
        if interface.kind is not Kind.ACCESS and len(interface.peers) != 1:
            found.add("tunnels without one peer", where, f"{interface.name} has {len(interface.peers)} peers")
        if not 0 <= interface.listen_port <= 65535:
            found.add("impossible ports", where, f"{interface.name} listens on {interface.listen_port}")
    _report_twice(where, "interface name", [i.name for i in interfaces], found)
    _report_twice(where, "listen port", [str(i.listen_port) for i in interfaces if i.listen_port], found)
    _report_twice(where, "access interface", [i.kind.value for i in interfaces if i.kind is Kind.ACCESS], found)
    if len(node.peers) != len(node.ends):
        _report_twice(where, "link to", [peer.node for _, peer in node.peers], found)


def _report_twice(where: str, what: str, values: Sequence[str], found: Findings) -> None:
    if len(values) > len(set(values)):
        for value in sorted(v for v, n in Counter(values).items() if n > 1):
            found.add("things there twice", where, f"its view has the {what} {value} twice")


# --- links ---------------------------------------------------------------------------------------------


class _Tunnels:
    """What the allowed-ips of uplinks and trunks must hold: all that may be a source or destination beyond."""

    def __init__(self, plan: Plan) -> None:
        active = {s for m in plan.members.values() for s in m.subnets}
        self._wanted = frozenset((*plan.networks, *active))
        self._known = self._wanted | {s for m in plan.members.values() for s in m.standby_subnets}
        self._seen: dict[tuple[str, ...], tuple[frozenset[str], frozenset[str]]] = {}
        self.right: set[int] = set()
        """Identities of such tuples that are as wanted for any node: most links share one, and the plan keeps it."""

    def faults(self, node: Node, peer: Peer) -> tuple[list[str], list[str]]:
        """What is missing, and what should not be there. A node's own subnets may be missing: they are on its side."""
        if peer.allowed_ips not in self._seen:
            has = frozenset(peer.allowed_ips)
            self._seen[peer.allowed_ips] = self._wanted - has, has - self._known
        missing, foreign = self._seen[peer.allowed_ips]
        if not missing and not foreign:
            self.right.add(id(peer.allowed_ips))
        return [p for p in sorted(missing) if _family(p) in node.families and p not in node.subnets], sorted(foreign)


def _peers(index: Index, node: Node, tunnels: _Tunnels, found: Findings) -> None:
    """Each peer is a member's, its other end fits, and its allowed-ips are what the link is for."""
    name, where = node.view.node, f"node {node.view.node}"
    for interface, peer in node.peers:
        far = index.find_other_end(name, interface, peer)
        if isinstance(far, str):
            found.add("links whose ends don't fit", where, far)
            continue
        if peer.endpoint is not None and not index.fits(peer, far[0]):
            text = f"its endpoint {peer.endpoint} for {peer.node} does not lead to {far[0].name} there"
            found.add("wrong endpoints", where, text)
        if peer.node == name or interface.kind is not _kind_of_end(index.relays, name, peer.node):
            found.add("peers on a wrong interface", where, f"{peer.node} stands on {interface.name}")
        if interface.kind is Kind.ACCESS:
            own = index.prefixes[peer.node]
            if peer.allowed_ips != own and not _are_own(node, peer.allowed_ips, own):
                text = f"{peer.node} may use {_list(peer.allowed_ips)}, and is {_list(own)}"
                found.add("wrong allowed-ips", where, text)
        elif id(peer.allowed_ips) not in tunnels.right:
            _tunnel(node, peer, tunnels, found)


def _tunnel(node: Node, peer: Peer, tunnels: _Tunnels, found: Findings) -> None:
    for verdict, prefixes in zip(("lack", "should not hold"), tunnels.faults(node, peer), strict=True):
        if prefixes:
            text = f"the allowed-ips towards {peer.node} {verdict} {_list(prefixes)}"
            found.add("wrong allowed-ips", f"node {node.view.node}", text)


def _are_own(node: Node, allowed: Sequence[str], own: Sequence[str]) -> bool:
    """Whether *allowed* is just what is the peer's *own*; *node* need not know of a family that it does not have."""
    return {p for p in own if _family(p) in node.families} <= set(allowed) <= set(own)


def _kind_of_end(relays: Collection[str], here: str, there: str) -> Kind:
    if there not in relays:
        return Kind.ACCESS
    return Kind.TRUNK if here in relays else Kind.UPLINK


def _links(index: Index, found: Findings) -> None:
    """The plan's links are those of the views, each with both its ends; and a leaf's uplinks lead to its homes."""
    plan = index.plan
    _report_twice("plan", "link", [f"{link.a}--{link.b}" for link in plan.links], found)
    relays, ends = index.relays, 0
    for name in plan.members:
        node = index.node(name)
        if node is not None:
            ends += len(node.ends)
            _uplinks(node, found)
    both = [link for link in plan.links if _is_at_both_ends(index, link)]
    if len(both) == len(plan.links) and ends == 2 * len(both):
        return
    listed = {(link.a, link.b) for link in both}
    for link in plan.links:
        if (link.a, link.b) not in listed:
            found.add(
                "links that views and plan don't share", f"node {link.a}", f"its link to {link.b} is not at both ends"
            )
    for name in plan.members:
        for other in sorted(node.ends) if (node := index.node(name)) else ():
            if _pair(relays, name, other) not in listed:
                found.add("links that views and plan don't share", f"node {name}", f"the plan lists no link to {other}")


def _is_at_both_ends(index: Index, link: Link) -> bool:
    """Whether the link is of the right kind and order, and both its nodes have it."""
    a, b = index.node(link.a), index.node(link.b)
    if a is None or b is None or link.b not in a.ends or link.a not in b.ends:
        return False
    fits = _kind_of_end(index.relays, link.a, link.b) is link.kind
    return fits and _pair(index.relays, link.a, link.b) == (link.a, link.b)


def _pair(relays: Collection[str], a: str, b: str) -> tuple[str, str]:
    """The ends in the order of a Link: the leaf of an uplink first, else the lesser name."""
    if (a in relays) is (b in relays):
        return (a, b) if a < b else (b, a)
    return (b, a) if a in relays else (a, b)


def _uplinks(node: Node, found: Findings) -> None:
    has = {peer.node for interface, peer in node.peers if interface.kind is Kind.UPLINK}
    if has != set(node.member.homes):
        text = f"it has uplinks to {_list(has)}, and the homes {_list(node.member.homes)}"
        found.add("uplinks that are not the homes", f"node {node.view.node}", text)


def _family(text: str) -> int:
    return 6 if ":" in text else 4


def _list(words: Iterable[str], most: int = 4) -> str:
    words = sorted(words)
    return (", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")) or "none"
