"""Is each member's part of a plan sound in itself, and do the two ends of each link fit?

What holds when nothing is found here is what lets ``verify`` walk few packets for many: on every link, WireGuard
takes each packet that may cross it, at both ends, and gives it to the node that the route named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from saltext_wgmesh.core import links, names
from saltext_wgmesh.core.findings import Findings, listed
from saltext_wgmesh.core.index import Index, Node
from saltext_wgmesh.core.lookup import Prefix, family, read
from saltext_wgmesh.core.types import Kind, Plan, host_prefixes


def check(index: Index, found: Findings) -> None:
    """Add to *found* whatever is wrong with members, views, interfaces and links."""
    plan = index.plan
    _views_match_members(plan, found)
    _unique(plan, found)
    _places(index, found)
    _homes(plan, found)
    crossing = {(relay, name) for name, member in plan.members.items() for relay in member.trunks}
    for name in plan.members:
        node = index.node(name)
        if node is not None:
            _view(plan, node, found)
            _interfaces(node, crossing, found)
            _uplinks(node, crossing, found)
    links.check(index, found)


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
    _report_shared("public key", [(k, name) for name, m in plan.members.items() for k in m.keys], found)
    _report_shared("address", [(a, name) for name, m in plan.members.items() for a in m.addresses], found)


def _report_shared(what: str, uses: Sequence[tuple[str, str]], found: Findings) -> None:
    first: dict[str, str] = dict(reversed(uses))
    if len(first) < len(uses):
        for value, name in uses:
            if first[value] != name:
                found.add(f"shared {what}s", f"node {name}", f"it has the {what} {value} of {first[value]}")


def _places(index: Index, found: Findings) -> None:
    """Addresses are in the mesh's networks, two a family at most; subnets overlap neither networks nor each other."""
    plan = index.plan
    networks = [n for n in map(read, plan.networks) if n]
    if len(networks) < len(plan.networks):
        found.add("malformed prefixes", "plan", f"of the networks {listed(plan.networks)}, one is no prefix")
    subnets: dict[str, tuple[Prefix, str]] = {}
    for name, member in plan.members.items():
        where = f"node {name}"
        for text in index.prefixes[name]:
            if text not in index.places:
                found.add("malformed prefixes", where, f"{text!r} is not a prefix in canonical form")
        own = [p for p in map(index.places.get, host_prefixes(member.addresses)) if p]
        if not own or any([p.version for p in own].count(version) > 2 for version in (4, 6)):
            found.add("wrong number of addresses", where, f"it has the addresses {listed(member.addresses)}")
        if any(not any(n.holds(p) for n in networks) for p in own):
            found.add("addresses outside the mesh", where, f"one of {listed(member.addresses)} is in no network")
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
    """A leaf has two relays if any leaf has: the mesh then has two that can be used. One of them may be idle."""
    most = max((len(m.homes) for m in plan.members.values()), default=0)
    for name, member in plan.members.items():
        if not member.is_relay and len({*member.homes, *member.idle}) < min(2, most):
            text = f"it has {len(set(member.homes))} relays, where others have two"
            found.add("leaves without a second relay", f"node {name}", text)


# --- views ---------------------------------------------------------------------------------------------


def _view(plan: Plan, node: Node, found: Findings) -> None:
    """The view says what the member is, and the node forwards only if it must."""
    view, member = node.view, node.member
    where = f"node {member.node}"
    must = member.is_relay or bool(node.subnets or member.trunks)
    facts: tuple[tuple[str, object, object], ...] = (
        ("mesh", view.mesh, plan.mesh),
        ("name", view.node, member.node),
        ("role", view.role, member.role),
        ("addresses", view.addresses, member.addresses),
        ("forward", view.forward, must),
        ("key to turn to", view.turn_to, view.turn_to and member.next_key),
    )
    if view.networks != plan.networks:
        networks = sorted([n for n in plan.networks if family(n) in node.families])
        facts = (*facts, ("networks", sorted(view.networks), networks))
    for what, has, wanted in facts:
        if has != wanted:
            found.add(f"views with a wrong {what}", where, f"its view says {what} {has}, which should be {wanted}")


def _interfaces(node: Node, crossing: Collection[tuple[str, str]], found: Findings) -> None:
    """Names and ports are there once; kinds fit the node's role, but of relays to leaves that are *crossing*; tunnels
    have one peer.

    That a prefix is allowed to one peer of an interface follows from ``links``: to the one that owns it.
    """
    where = f"node {node.view.node}"
    interfaces = node.view.interfaces
    wrong = Kind.UPLINK if node.member.is_relay else Kind.TRUNK
    for interface in interfaces:
        if not 1 <= len(interface.name.encode()) <= names.IFNAMSIZ:
            found.add("unusable interface names", where, f"{interface.name!r} can't be an interface's name")
        crosses = any((node.view.node, peer.node) in crossing for peer in interface.peers)
        if interface.kind is wrong and not crosses:
            found.add("interfaces of a wrong kind", where, f"a {node.member.role.value} has no {wrong.value}")
        if interface.kind is not Kind.ACCESS and len(interface.peers) != 1:
            found.add("tunnels without one peer", where, f"{interface.name} has {len(interface.peers)} peers")
        if not 0 <= interface.listen_port <= 65535:
            found.add("impossible ports", where, f"{interface.name} listens on {interface.listen_port}")
    found.add_twice(where, "interface name", [i.name for i in interfaces])
    found.add_twice(where, "listen port", [str(i.listen_port) for i in interfaces if i.listen_port])
    found.add_twice(where, "access interface", [i.kind.value for i in interfaces if i.kind is Kind.ACCESS])
    if len(node.peers) != len(node.ends):
        found.add_twice(where, "link to", [peer.node for _, peer in node.peers])


def _uplinks(node: Node, crossing: Iterable[tuple[str, str]], found: Findings) -> None:
    """A leaf's uplinks lead to its homes, a relay's to leaves that are *crossing*."""
    has = {peer.node for interface, peer in node.peers if interface.kind is Kind.UPLINK}
    own = {leaf for relay, leaf in crossing if relay == node.view.node}
    homes = {*node.member.homes, *node.member.idle, *own}
    if has != homes:
        text = f"it has uplinks to {listed(has)}, and the homes {listed(homes)}"
        found.add("uplinks that are not the homes", f"node {node.view.node}", text)
