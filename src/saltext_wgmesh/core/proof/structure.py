"""Checks that each member's part of a plan is sound in itself, and that the two ends of each link fit.

``reachability`` relies on it when it walks few packets in place of many: on every link, WireGuard accepts each packet
that may cross it, at both ends, and gives it to the node that the route named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.addresses import address_family, host_prefixes
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.view import Kind
from saltext_wgmesh.core.proof import links
from saltext_wgmesh.core.proof.findings import Findings, listed
from saltext_wgmesh.core.proof.forwarding_tables import ForwardingTables, NodeTables
from saltext_wgmesh.core.proof.prefix_table import Prefix, prefix_or_none


def check_structure(tables: ForwardingTables, findings: Findings) -> None:
    """Add to *findings* all problems of members, views, interfaces and links."""
    plan = tables.plan
    _views_match_members(plan, findings)
    _unique(plan, findings)
    _addresses_and_subnets(tables, findings)
    _relays_of_leaves(plan, findings)
    # While a node changes between leaf and relay, its end of a link is an uplink and the relay's end is one too.
    trunk_linked = {(relay, name) for name, member in plan.members.items() for relay in member.trunk_linked_relays}
    for name in plan.members:
        node = tables.node(name)
        if node is not None:
            _view(plan, node, findings)
            _interfaces(node, trunk_linked, findings)
            _uplinks(node, trunk_linked, findings)
    links.check_links(tables, findings)


# --- members -------------------------------------------------------------------------------------------


def _views_match_members(plan: Plan, findings: Findings) -> None:
    for name in sorted(plan.members.keys() ^ plan.views.keys()):
        has = "member without a view" if name in plan.members else "view of no member"
        findings.add("members without a view, and views without a member", f"node {name}", f"it is a {has}")
    for name, member in plan.members.items():
        if member.node != name:
            findings.add("misfiled members", f"node {name}", f"its member is named {member.node}")


def _unique(plan: Plan, findings: Findings) -> None:
    """Keys and addresses belong to one member each."""
    _report_shared("public key", [(k, name) for name, m in plan.members.items() for k in m.keys], findings)
    _report_shared("address", [(a, name) for name, m in plan.members.items() for a in m.addresses], findings)


def _report_shared(noun: str, uses: Sequence[tuple[str, str]], findings: Findings) -> None:
    # In reverse, so that of several uses of a value the first one remains.
    first: dict[str, str] = dict(reversed(uses))
    if len(first) < len(uses):
        for value, name in uses:
            if first[value] != name:
                findings.add(f"shared {noun}s", f"node {name}", f"it has the {noun} {value} of {first[value]}")


def _addresses_and_subnets(tables: ForwardingTables, findings: Findings) -> None:
    """Addresses are in the mesh's networks, at most two a family; subnets overlap neither networks nor each other."""
    plan = tables.plan
    networks = [n for n in map(prefix_or_none, plan.networks) if n]
    if len(networks) < len(plan.networks):
        findings.add("malformed prefixes", "plan", f"of the networks {listed(plan.networks)}, one is not a prefix")
    subnets: dict[str, tuple[Prefix, str]] = {}
    for name, member in plan.members.items():
        path = f"node {name}"
        for text in tables.prefixes[name]:
            if text not in tables.parsed:
                findings.add("malformed prefixes", path, f"{text!r} is not a prefix in canonical form")
        own = [p for p in map(tables.parsed.get, host_prefixes(member.addresses)) if p]
        # Two of a family: while a node is renumbered, it has the old and the new address.
        if not own or any([p.version for p in own].count(version) > 2 for version in (4, 6)):
            findings.add("wrong number of addresses", path, f"it has the addresses {listed(member.addresses)}")
        if any(not any(n.holds(p) for n in networks) for p in own):
            findings.add("addresses outside the mesh", path, f"one of {listed(member.addresses)} is in no network")
        # A leaf may lack a family, since no other node depends on it.
        missing = {n.version for n in networks} - {p.version for p in own}
        if member.is_relay and missing:
            message = f"the relay has no IPv{max(missing)} address, and would drop what others send by it"
            findings.add("relays without a family", path, message)
        for text in member.subnets:
            parsed = tables.parsed.get(text)
            if parsed and text in subnets:
                findings.add("subnets with two gateways", path, f"{text} is behind {subnets[text][1]} as well")
            elif parsed:
                subnets[text] = (parsed, name)
    _disjoint([(n, "the mesh") for n in networks], list(subnets.values()), findings)


def _disjoint(
    networks: Iterable[tuple[Prefix, str]], subnets: Iterable[tuple[Prefix, str]], findings: Findings
) -> None:
    """No two of the prefixes hold one address.

    In the order of their first addresses, the prefixes that hold the present one are always on top of a stack.
    """
    open_prefixes: list[tuple[Prefix, str]] = []
    for prefix, owner in sorted((*networks, *subnets), key=lambda p: (p[0].version, p[0].value, p[0].length, p[1])):
        while open_prefixes and not open_prefixes[-1][0].holds(prefix):
            open_prefixes.pop()
        if open_prefixes:
            message = f"its subnet overlaps one of {open_prefixes[-1][1]}"
            findings.add("overlapping prefixes", f"node {owner}", message)
        open_prefixes.append((prefix, owner))


def _relays_of_leaves(plan: Plan, findings: Findings) -> None:
    """Each leaf has two relays if any leaf has: the mesh then has two usable ones. One of them may be unrouted."""
    most = max((len(m.relays) for m in plan.members.values()), default=0)
    for name, member in plan.members.items():
        if not member.is_relay and len({*member.relays, *member.unrouted_relays}) < min(2, most):
            message = f"it has {len(set(member.relays))} relays, where others have two"
            findings.add("leaves without a second relay", f"node {name}", message)


# --- views ---------------------------------------------------------------------------------------------


def _view(plan: Plan, node: NodeTables, findings: Findings) -> None:
    """The view agrees with the member, and the node forwards only if it must."""
    view, member = node.view, node.member
    path = f"node {member.node}"
    must_forward = member.is_relay or bool(node.subnets or member.trunk_linked_relays)
    fields: tuple[tuple[str, object, object], ...] = (
        ("mesh", view.mesh, plan.mesh),
        ("name", view.node, member.node),
        ("role", view.role, member.role),
        ("addresses", view.addresses, member.addresses),
        ("forward", view.forward, must_forward),
        ("key to activate", view.activate_key, view.activate_key and member.next_key),
    )
    # A node without a family need not know the networks of it.
    if view.networks != plan.networks:
        networks = sorted([n for n in plan.networks if address_family(n) in node.families])
        fields = (*fields, ("networks", sorted(view.networks), networks))
    for noun, has, expected in fields:
        if has != expected:
            findings.add(f"views with a wrong {noun}", path, f"its view says {noun} {has}, which should be {expected}")


def _interfaces(node: NodeTables, trunk_linked: Collection[tuple[str, str]], findings: Findings) -> None:
    """Names and ports are unique, kinds fit the node's role, and a tunnel has one peer.

    A relay may have an uplink to a node with which it is *trunk_linked*. That a prefix is allowed to one peer of an
    interface only is not checked here: it follows from ``links``, where each prefix is allowed to its owner.
    """
    path = f"node {node.view.node}"
    interfaces = node.view.interfaces
    wrong = Kind.UPLINK if node.member.is_relay else Kind.TRUNK
    for interface in interfaces:
        if not 1 <= len(interface.name.encode()) <= constants.IFNAMSIZ:
            findings.add("unusable interface names", path, f"{interface.name!r} can't be an interface's name")
        changes_role = any((node.view.node, peer.node) in trunk_linked for peer in interface.peers)
        if interface.kind is wrong and not changes_role:
            findings.add("interfaces of a wrong kind", path, f"a {node.member.role.value} has no {wrong.value}")
        if interface.kind is not Kind.ACCESS and len(interface.peers) != 1:
            findings.add("tunnels without one peer", path, f"{interface.name} has {len(interface.peers)} peers")
        if not 0 <= interface.listen_port <= 65535:
            findings.add("impossible ports", path, f"{interface.name} listens on {interface.listen_port}")
    findings.add_duplicates(path, "interface name", [i.name for i in interfaces])
    findings.add_duplicates(path, "listen port", [str(i.listen_port) for i in interfaces if i.listen_port])
    findings.add_duplicates(path, "access interface", [i.kind.value for i in interfaces if i.kind is Kind.ACCESS])
    if len(node.peers) != len(node.ends):
        findings.add_duplicates(path, "link to", [peer.node for _, peer in node.peers])


def _uplinks(node: NodeTables, trunk_linked: Iterable[tuple[str, str]], findings: Findings) -> None:
    """A leaf's uplinks lead to its relays, a relay's to nodes with which it is *trunk_linked*."""
    has = {peer.node for interface, peer in node.peers if interface.kind is Kind.UPLINK}
    own = {leaf for relay, leaf in trunk_linked if relay == node.view.node}
    relays = {*node.member.relays, *node.member.unrouted_relays, *own}
    if has != relays:
        message = f"it has uplinks to {listed(has)}, and the relays {listed(relays)}"
        findings.add("uplinks that do not lead to the relays", f"node {node.view.node}", message)
