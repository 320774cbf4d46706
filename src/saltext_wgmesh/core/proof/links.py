"""Checks that the two ends of each link fit, and that WireGuard accepts exactly the packets that may cross it."""

from __future__ import annotations

from collections.abc import Collection

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Link, Plan
from saltext_wgmesh.core.model.view import Kind
from saltext_wgmesh.core.proof.findings import Findings, listed
from saltext_wgmesh.core.proof.forwarding_tables import ForwardingTables, LinkEnd, NodeTables

_END_KINDS = {
    Kind.UPLINK: (Kind.UPLINK, Kind.ACCESS),
    Kind.TRUNK: (Kind.TRUNK, Kind.TRUNK),
    Kind.ACCESS: (Kind.ACCESS, Kind.ACCESS),
}
"""Kind of link → the kinds of the interfaces at its ends a and b."""
_UNSHARED = "links that views and plan don't share"


def check_links(tables: ForwardingTables, findings: Findings) -> None:
    """Add to *findings* all problems of links: of the plan's links at both ends, and of links that only a view has."""
    links = tables.plan.links
    findings.add_duplicates("plan", "link", [f"{link.a}--{link.b}" for link in links])
    tunnels = _TunnelPrefixes(tables.plan)
    for link in links:
        _link(tables, link, tunnels, findings)
    nodes = [(name, node) for name in tables.plan.members if (node := tables.node(name))]
    # If the counts agree, and each link of the plan is at both its ends, no view has another one.
    if sum(len(node.ends) for _, node in nodes) != 2 * len(links):
        known = {end for link in links for end in ((link.a, link.b), (link.b, link.a))}
        for name, node in nodes:
            for other in sorted(node.ends):
                if (name, other) not in known:
                    findings.add(_UNSHARED, f"node {name}", f"the plan lists no link to {other}")


def _link(tables: ForwardingTables, link: Link, tunnels: _TunnelPrefixes, findings: Findings) -> None:
    """The link is at both its ends, of the right kind, with an endpoint, and each end fits the other."""
    a, b = tables.node(link.a), tables.node(link.b)
    here = a.ends.get(link.b) if a else None
    there = b.ends.get(link.a) if b else None
    if a is None or b is None or here is None or there is None:
        findings.add(_UNSHARED, f"node {link.a}", f"its link to {link.b} is not at both ends")
        return
    kinds = (Kind.UPLINK, Kind.UPLINK) if link.b in a.member.trunk_linked_relays else _END_KINDS[link.kind]
    if link.kind is not _kind(tables.relays, link) or (here[0].kind, there[0].kind) != kinds:
        message = f"its link to {link.b} stands on {here[0].name} and {there[0].name} as {link.kind.value}"
        findings.add("links of a wrong kind", f"node {link.a}", message)
    _endpoints(tables, link, here, there, findings)
    # As sets: the ends may list the keys of a rotation in different order.
    if set(here[1].psk_ids) != set(there[1].psk_ids):
        findings.add("different preshared keys", f"node {link.a}", f"{link.b} would have another key for their link")
    # Each end is checked with its own view: the planner may have made one end right and the other one wrong.
    for near, end, far in ((a, here, b), (b, there, a)):
        _end(tables, near, end, far, findings)
        # The allowed-ips of a tunnel are the whole mesh, those on an access interface the peer's own prefixes.
        if end[0].kind is not Kind.ACCESS:
            if id(end[1].allowed_ips) not in tunnels.verified:
                tunnels.check(near, end, findings)
        elif end[1].allowed_ips != tables.prefixes[end[1].node]:
            _access(tables, near, end, findings)


def _end(tables: ForwardingTables, near: NodeTables, end: LinkEnd, far: NodeTables, findings: Findings) -> None:
    """At its *end* the node *near* has the keys of *far*, and an address of it to probe."""
    peer = end[1]
    if peer.keys != far.member.keys:
        findings.add("wrong keys", f"node {near.view.node}", f"its keys for {far.view.node} are not that node's")
    if peer.psk_ids and near.member.public_key not in near.view.keys:
        message = f"its preshared key with {far.view.node} is not for the public key that it has"
        findings.add("wrong preshared keys", f"node {near.view.node}", message)
    known = {peer.address, *peer.other_addresses}
    if not known <= {*far.member.addresses} or address_family(peer.address) not in near.families:
        message = f"it would probe {peer.address}, which is no address of {far.view.node} that it can reach"
        findings.add("wrong addresses to probe", f"node {near.view.node}", message)


def _kind(relays: Collection[str], link: Link) -> Kind | None:
    """Return the kind that the roles of the link's ends demand; None if the ends are in the wrong order."""
    if link.b in relays and link.a not in relays:
        return Kind.UPLINK
    if link.a >= link.b or (link.a in relays) is not (link.b in relays):
        return None
    return Kind.TRUNK if link.a in relays else Kind.ACCESS


def _endpoints(tables: ForwardingTables, link: Link, here: LinkEnd, there: LinkEnd, findings: Findings) -> None:
    """Each endpoint leads to the other end, and there is at least one."""
    has_endpoint = False
    for name, (interface, peer), (far, _) in ((link.a, here, there), (link.b, there, here)):
        if peer.endpoint is None:
            continue
        has_endpoint = True
        if not tables.endpoint_matches(peer, far):
            message = f"its endpoint {peer.endpoint} on {interface.name} does not lead to {far.name} of {peer.node}"
            findings.add("wrong endpoints", f"node {name}", message)
    if not has_endpoint:
        findings.add("links without an endpoint", f"node {link.a}", f"neither it nor {link.b} has an endpoint")


def _access(tables: ForwardingTables, node: NodeTables, end: LinkEnd, findings: Findings) -> None:
    """The peer's allowed-ips are its own prefixes; those of a family that *node* does not have may be missing.

    A subnet may also be with a gateway that is not the active one, but with one peer of an interface only.
    """
    peer, allowed = end[1], set(end[1].allowed_ips)
    own, member = tables.prefixes[peer.node], tables.plan.members[peer.node]
    # While a subnet moves between two gateways on this interface, either of them may have it.
    elsewhere = {p for other in end[0].peers if other is not peer for p in other.allowed_ips}
    required = {p for p in own if address_family(p) in node.families} - elsewhere.intersection(member.subnets)
    if not required <= allowed <= {*own, *member.standby_subnets} - elsewhere:
        message = f"{peer.node} may use {listed(allowed)}, and is {listed(own)}"
        findings.add("wrong allowed-ips", f"node {node.view.node}", message)


class _TunnelPrefixes:
    """The allowed-ips that uplinks and trunks must have: each prefix that may be a source or destination beyond."""

    def __init__(self, plan: Plan) -> None:
        active = {s for m in plan.members.values() for s in m.subnets}
        self._required = frozenset((*plan.networks, *active))
        self._permitted = self._required | {s for m in plan.members.values() for s in m.standby_subnets}
        self.verified: set[int] = set()
        """Identities of tuples that are right for any node: most links share one, and the plan keeps it alive."""

    def check(self, node: NodeTables, end: LinkEnd, findings: Findings) -> None:
        """Add a problem for prefixes that are missing at this end of *node*, and for foreign ones.

        The node's own subnets may be missing: they are on its side of the link.
        """
        peer, has = end[1], set(end[1].allowed_ips)
        missing, foreign = self._required - has, has - self._permitted
        if not missing and not foreign:
            self.verified.add(id(peer.allowed_ips))
        lacks = [p for p in missing if address_family(p) in node.families and p not in node.subnets]
        for verdict, prefixes in (("lack", lacks), ("should not hold", foreign)):
            if prefixes:
                message = f"the allowed-ips towards {peer.node} {verdict} {listed(prefixes)}"
                findings.add("wrong allowed-ips", f"node {node.view.node}", message)
