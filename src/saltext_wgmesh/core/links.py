"""Do the two ends of each link fit, and does WireGuard take at both ends all that may cross it, and nothing else?"""

from __future__ import annotations

from collections.abc import Collection

from saltext_wgmesh.core.findings import Findings, listed
from saltext_wgmesh.core.index import End, Index, Node
from saltext_wgmesh.core.lookup import family
from saltext_wgmesh.core.types import Kind, Link, Plan

_ENDS = {
    Kind.UPLINK: (Kind.UPLINK, Kind.ACCESS),
    Kind.TRUNK: (Kind.TRUNK, Kind.TRUNK),
    Kind.ACCESS: (Kind.ACCESS, Kind.ACCESS),
}
"""Kind of link → on which kind of interface it stands at its ends a and b."""
_UNSHARED = "links that views and plan don't share"


def check(index: Index, found: Findings) -> None:
    """Add to *found* whatever is wrong with links: those of the plan at their ends, and any that only a view has."""
    links = index.plan.links
    found.add_twice("plan", "link", [f"{link.a}--{link.b}" for link in links])
    tunnels = _Tunnels(index.plan)
    for link in links:
        _link(index, link, tunnels, found)
    nodes = [(name, node) for name in index.plan.members if (node := index.node(name))]
    if sum(len(node.ends) for _, node in nodes) != 2 * len(links):
        known = {end for link in links for end in ((link.a, link.b), (link.b, link.a))}
        for name, node in nodes:
            for other in sorted(node.ends):
                if (name, other) not in known:
                    found.add(_UNSHARED, f"node {name}", f"the plan lists no link to {other}")


def _link(index: Index, link: Link, tunnels: _Tunnels, found: Findings) -> None:
    a, b = index.node(link.a), index.node(link.b)
    here = a.ends.get(link.b) if a else None
    there = b.ends.get(link.a) if b else None
    if a is None or b is None or here is None or there is None:
        found.add(_UNSHARED, f"node {link.a}", f"its link to {link.b} is not at both ends")
        return
    ends = (Kind.UPLINK, Kind.UPLINK) if link.b in a.member.trunks else _ENDS[link.kind]
    if link.kind is not _kind(index.relays, link) or (here[0].kind, there[0].kind) != ends:
        text = f"its link to {link.b} stands on {here[0].name} and {there[0].name} as {link.kind.value}"
        found.add("links of a wrong kind", f"node {link.a}", text)
    _endpoints(index, link, here, there, found)
    if set(here[1].preshared) != set(there[1].preshared):
        found.add("different preshared keys", f"node {link.a}", f"{link.b} would have another key for their link")
    for near, end, far in ((a, here, b), (b, there, a)):
        if end[1].keys != far.member.keys:
            found.add("wrong keys", f"node {near.view.node}", f"its keys for {far.view.node} are not that node's")
        if end[1].preshared and near.member.public_key not in near.view.keys:
            text = f"its preshared key with {far.view.node} is not for the public key that it has"
            found.add("wrong preshared keys", f"node {near.view.node}", text)
        if end[1].address not in far.member.addresses or family(end[1].address) not in near.families:
            text = f"it would probe {end[1].address}, which is no address of {far.view.node} that it can reach"
            found.add("wrong addresses to probe", f"node {near.view.node}", text)
        if end[0].kind is not Kind.ACCESS:
            if id(end[1].allowed_ips) not in tunnels.right:
                tunnels.judge(near, end, found)
        elif end[1].allowed_ips != index.prefixes[end[1].node]:
            _access(index, near, end, found)


def _kind(relays: Collection[str], link: Link) -> Kind | None:
    """What the link must be by the roles of its ends; None if these are in the wrong order."""
    if link.b in relays and link.a not in relays:
        return Kind.UPLINK
    if link.a >= link.b or (link.a in relays) is not (link.b in relays):
        return None
    return Kind.TRUNK if link.a in relays else Kind.ACCESS


def _endpoints(index: Index, link: Link, here: End, there: End, found: Findings) -> None:
    """Each endpoint leads to the other end, and there is at least one."""
    opens = False
    for name, (interface, peer), (far, _) in ((link.a, here, there), (link.b, there, here)):
        if peer.endpoint is None:
            continue
        opens = True
        if not index.fits(peer, far):
            text = f"its endpoint {peer.endpoint} on {interface.name} does not lead to {far.name} of {peer.node}"
            found.add("wrong endpoints", f"node {name}", text)
    if not opens:
        found.add("links that nobody can open", f"node {link.a}", f"neither it nor {link.b} has an endpoint")


def _access(index: Index, node: Node, end: End, found: Findings) -> None:
    """The peer may use just what is its own; *node* need not know of a family that it does not have.

    A subnet may stand with a gateway that is not the active one, but on one interface with one peer only.
    """
    peer, allowed = end[1], set(end[1].allowed_ips)
    own, member = index.prefixes[peer.node], index.plan.members[peer.node]
    elsewhere = {p for other in end[0].peers if other is not peer for p in other.allowed_ips}
    must = {p for p in own if family(p) in node.families} - elsewhere.intersection(member.subnets)
    if not must <= allowed <= {*own, *member.standby_subnets} - elsewhere:
        text = f"{peer.node} may use {listed(allowed)}, and is {listed(own)}"
        found.add("wrong allowed-ips", f"node {node.view.node}", text)


class _Tunnels:
    """What the allowed-ips of uplinks and trunks must hold: all that may be a source or destination beyond."""

    def __init__(self, plan: Plan) -> None:
        active = {s for m in plan.members.values() for s in m.subnets}
        self._wanted = frozenset((*plan.networks, *active))
        self._known = self._wanted | {s for m in plan.members.values() for s in m.standby_subnets}
        self.right: set[int] = set()
        """Identities of tuples that are as wanted for any node: most links share one, and the plan keeps it alive."""

    def judge(self, node: Node, end: End, found: Findings) -> None:
        """Add what is missing at this end of *node*, and what should not be there.

        The node's own subnets may be missing: they are on its side.
        """
        peer, has = end[1], set(end[1].allowed_ips)
        missing, foreign = self._wanted - has, has - self._known
        if not missing and not foreign:
            self.right.add(id(peer.allowed_ips))
        lacks = [p for p in missing if family(p) in node.families and p not in node.subnets]
        for verdict, prefixes in (("lack", lacks), ("should not hold", foreign)):
            if prefixes:
                text = f"the allowed-ips towards {peer.node} {verdict} {listed(prefixes)}"
                found.add("wrong allowed-ips", f"node {node.view.node}", text)
