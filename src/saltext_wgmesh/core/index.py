"""A finished plan, ready to be walked: what each node's kernel and WireGuard would look up."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from saltext_wgmesh.core.lookup import Prefix, PrefixTable, read
from saltext_wgmesh.core.types import Endpoint, Interface, Kind, Member, Peer, Plan, Route, View, host_prefixes

End = tuple[Interface, Peer]
"""One end of a link: a peer, and the interface on which it stands."""


_FAMILIES = {(): frozenset[int](), (4,): frozenset({4}), (6,): frozenset({6}), (4, 6): frozenset({4, 6})}


class Routes:
    """The route tables of a view: via and from_trunk share their prefixes."""

    def __init__(self, routes: tuple[Route, ...], shared: Shared) -> None:
        self.entries: dict[str, Route] = {}
        """Prefix → Route; of two for one prefix the last holds, as with ``ip route replace``."""
        for route in routes:
            self.entries.update(dict.fromkeys(route.prefixes, route))
        self._routes = routes
        self._shared = shared

    @cached_property
    def table(self) -> PrefixTable[Route]:
        """The same, to be looked up by address."""
        return PrefixTable(self.entries, [p for r in self._routes for p in self._shared.wider(r.prefixes)])


class Shared:
    """What is the same for many nodes, made once.

    Views that say the same mostly hold the same tuples: what is made from one is found again by its identity, and
    the tuple is kept beside, so that its identity stays its own.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self.hosts = frozenset(hosts)
        """The members' host prefixes."""
        self._wider: dict[int, tuple[tuple[str, ...], list[str]]] = {}
        self._routes: dict[int, tuple[tuple[Route, ...], Routes]] = {}

    def wider(self, prefixes: tuple[str, ...]) -> list[str]:
        """Those of *prefixes* that are no member's host prefix."""
        found = self._wider.get(id(prefixes))
        if found is None:
            found = self._wider[id(prefixes)] = prefixes, [p for p in prefixes if p not in self.hosts]
        return found[1]

    def routes(self, routes: tuple[Route, ...]) -> Routes:
        """The tables of a view with these."""
        found = self._routes.get(id(routes))
        if found is None:
            found = self._routes[id(routes)] = routes, Routes(routes, self)
        return found[1]


class Node:
    """One node's view with the tables that packets meet; each table is made when it is first asked for."""

    def __init__(self, view: View, member: Member, shared: Shared) -> None:
        self.view = view
        self.member = member
        self.families = _FAMILIES[tuple(sorted({6 if ":" in a else 4 for a in view.addresses}))]
        """4 and 6, as far as the node has an address of them."""
        self.subnets = frozenset((*member.subnets, *member.standby_subnets))
        """The subnets behind the node, active and standby."""
        self.peers: list[End] = [(i, peer) for i in view.interfaces for peer in i.peers]
        """All peers, with their interfaces."""
        self.ends: dict[str, End] = {end[1].node: end for end in reversed(self.peers)}
        """Neighbour → this node's end of the link to it (the first, if a broken view has two)."""
        self._shared = shared
        self._admission: dict[str, PrefixTable[Peer]] = {}

    @cached_property
    def by_key(self) -> dict[str, End]:
        """Public key → where the peer with that key stands (the first, if a broken view has two)."""
        return {end[1].public_key: end for end in reversed(self.peers)}

    @cached_property
    def trunks(self) -> tuple[str, ...]:
        """The relays at the other ends of the trunks, in the order of the interfaces."""
        return tuple(peer.node for interface, peer in self.peers if interface.kind is Kind.TRUNK)

    @property
    def entries(self) -> dict[str, Route]:
        """Prefix → Route."""
        return self._shared.routes(self.view.routes).entries

    @property
    def routes(self) -> PrefixTable[Route]:
        """The Routes by prefix."""
        return self._shared.routes(self.view.routes).table

    @cached_property
    def local(self) -> PrefixTable[str]:
        """What is delivered here: the node's addresses, and the subnets behind it.

        A standby gateway is in its subnets too: its own kernel knows them without the mesh.
        """
        own = (*host_prefixes(self.view.addresses), *self.subnets)
        return PrefixTable({p: p for p in own}, self._shared.wider(own))

    def admission(self, interface: Interface) -> PrefixTable[Peer]:
        """WireGuard's allowed-ips of one interface; a prefix given twice belongs to the peer that got it last."""
        found = self._admission.get(interface.name)
        if found is None:
            entries = {p: peer for peer in interface.peers for p in peer.allowed_ips}
            wider = [p for p in entries if p not in self._shared.hosts]
            found = self._admission[interface.name] = PrefixTable(entries, wider)
        return found

    def sockets(self, interface: Interface) -> frozenset[str]:
        """Each ``host:port`` by which *interface* can be reached: the policy's endpoint, and the underlay addresses.

        Where the policy's endpoint has another port than the interface (a forwarded port), all ports are
        shifted alike.
        """
        if interface.listen_port == 0:
            return frozenset()
        found = {str(Endpoint(host=host, port=interface.listen_port)) for host in self.member.underlay}
        public = self.member.endpoint
        if public is not None:
            shift = interface.listen_port - self._access_port
            found |= {str(Endpoint(host=public.host, port=p)) for p in (public.port + shift, interface.listen_port)}
        return frozenset(found)

    @cached_property
    def _access_port(self) -> int:
        return next((i.listen_port for i in self.view.interfaces if i.kind is Kind.ACCESS), 0)


class Index:
    """The nodes of a plan, each made when it is first asked for. Views of unknown members are left out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.shared = Shared([p for m in plan.members.values() for p in host_prefixes(m.addresses)])
        self.relays = frozenset(name for name, m in plan.members.items() if m.is_relay)
        self.prefixes = {name: m.prefixes for name, m in plan.members.items()}
        """Member → host prefixes and active subnets."""
        self.owners = {p: name for name, prefixes in self.prefixes.items() for p in prefixes}
        """The same the other way round."""
        self._nodes: dict[str, Node] = {}
        self._sockets: dict[tuple[str, str], frozenset[str]] = {}
        self._far: dict[tuple[str, str, str, str], End | str] = {}

    @cached_property
    def places(self) -> dict[str, Prefix]:
        """The keys of ``owners`` as numbers; those that are no prefixes in canonical form are left out."""
        return {text: place for text in self.owners if (place := read(text)) is not None}

    def node(self, name: str) -> Node | None:
        """The node of that name; None if it is no member or has no view."""
        found = self._nodes.get(name)
        if found is None and name in self.plan.members and name in self.plan.views:
            found = self._nodes[name] = Node(self.plan.views[name], self.plan.members[name], self.shared)
        return found

    def other_end(self, name: str, interface: Interface, peer: Peer) -> End | str:
        """Where packets from *name* to *peer* come in; or why no session comes up, as a sentence."""
        key = (name, interface.name, peer.node, peer.public_key)
        found = self._far.get(key)
        if found is None:
            found = self._far[key] = self._find_other_end(name, interface, peer)
        return found

    def _find_other_end(self, name: str, interface: Interface, peer: Peer) -> End | str:
        sender, receiver = self.node(name), self.node(peer.node)
        if sender is None or receiver is None:
            return f"{name} has a peer {peer.node}, which has no view"
        if peer.public_key != receiver.member.public_key:
            return f"{name} has a key for {peer.node} that is not its key"
        wanted = far_kind(interface.kind, sender.member, receiver.member)
        key = sender.member.public_key
        far = receiver.ends.get(name)
        if far is None or far[1].public_key != key:
            far = receiver.by_key.get(key)
        if far is None or far[0].kind is not wanted:
            return f"{peer.node} has no peer with the key of {name} on an interface of kind {wanted.value}"
        if not (self.fits(peer, far[0]) or self.fits(far[1], interface, of=name)):
            return f"neither {name} nor {peer.node} has an endpoint at which the other listens"
        return far

    def fits(self, peer: Peer, interface: Interface, of: str | None = None) -> bool:
        """Whether *peer* has an endpoint, and it leads to *interface* of the peer's node (or of the node *of*)."""
        if peer.endpoint is None:
            return False
        name = of or peer.node
        key = (name, interface.name)
        found = self._sockets.get(key)
        if found is None:
            node = self.node(name)
            found = self._sockets[key] = node.sockets(interface) if node else frozenset()
        return peer.endpoint in found


def far_kind(kind: Kind, near: Member, far: Member) -> Kind:
    """The kind of interface at the other end of a link, seen from one of *kind* at the node *near*."""
    if kind is Kind.TRUNK:
        return Kind.TRUNK
    if near.node in far.trunks or far.node in near.trunks:
        return Kind.UPLINK
    return Kind.UPLINK if kind is Kind.ACCESS and near.is_relay else Kind.ACCESS
