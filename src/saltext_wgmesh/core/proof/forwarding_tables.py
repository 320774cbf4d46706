"""A finished plan in the form that packets meet it: what each node's kernel and WireGuard would look up."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from saltext_wgmesh.core.model.addresses import address_family, host_prefixes
from saltext_wgmesh.core.model.plan import Member, Plan
from saltext_wgmesh.core.model.policy import Endpoint
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, Route, View
from saltext_wgmesh.core.proof.prefix_table import Prefix, PrefixTable, prefix_or_none

LinkEnd = tuple[Interface, Peer]
"""One end of a link: a peer, and the interface that has it."""


_FAMILIES = {(): frozenset[int](), (4,): frozenset({4}), (6,): frozenset({6}), (4, 6): frozenset({4, 6})}


class Routes:
    """The route tables of a view; ``via`` and ``from_trunk`` share their prefixes."""

    def __init__(self, routes: tuple[Route, ...], shared: SharedTables) -> None:
        self.entries: dict[str, Route] = {}
        """Prefix → Route; of two for one prefix the last counts, as with ``ip route replace``."""
        for route in routes:
            self.entries.update(dict.fromkeys(route.prefixes, route))
        self._routes = routes
        self._shared = shared

    @cached_property
    def table(self) -> PrefixTable[Route]:
        """The entries, for lookups by address."""
        return PrefixTable(self.entries, [p for r in self._routes for p in self._shared.wider(r.prefixes)])


class SharedTables:
    """Tables that are the same for many nodes, each made once.

    Views with equal content mostly hold the same tuple objects, so a table is cached by the identity of its tuple.
    The tuple is kept beside the table: while it lives, Python gives its identity to no other object.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self.hosts = frozenset(hosts)
        """The members' host prefixes."""
        self._wider: dict[int, tuple[tuple[str, ...], list[str]]] = {}
        self._routes: dict[int, tuple[tuple[Route, ...], Routes]] = {}

    def wider(self, prefixes: tuple[str, ...]) -> list[str]:
        """Return those of *prefixes* that are not a member's host prefix."""
        cached = self._wider.get(id(prefixes))
        if cached is None:
            cached = self._wider[id(prefixes)] = prefixes, [p for p in prefixes if p not in self.hosts]
        return cached[1]

    def routes(self, routes: tuple[Route, ...]) -> Routes:
        """Return the tables of a view with these Routes."""
        cached = self._routes.get(id(routes))
        if cached is None:
            cached = self._routes[id(routes)] = routes, Routes(routes, self)
        return cached[1]


class NodeTables:
    """One node's view with the tables that packets meet; each table is made on first use."""

    def __init__(self, view: View, member: Member, shared: SharedTables) -> None:
        self.view = view
        self.member = member
        self.families = _FAMILIES[tuple(sorted({address_family(a) for a in view.addresses}))]
        """4 and 6, as far as the node has an address of them."""
        self.subnets = frozenset((*member.subnets, *member.standby_subnets))
        """The subnets behind the node, active and standby."""
        self.peers: list[LinkEnd] = [(i, peer) for i in view.interfaces for peer in i.peers]
        """All peers, with their interfaces."""
        self.ends: dict[str, LinkEnd] = {end[1].node: end for end in reversed(self.peers)}
        """Neighbour → this node's end of the link to it (the first, if a broken view has two)."""
        self._shared = shared
        self._cryptokey_tables: dict[str, PrefixTable[Peer]] = {}

    @cached_property
    def by_key(self) -> dict[str, LinkEnd]:
        """Public key → this node's end of the link to the peer with that key (the first, if a broken view has two)."""
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
        """The prefixes that are delivered here: the node's addresses, and the subnets behind it.

        A standby gateway is connected to its subnets too: its own kernel reaches them without the mesh.
        """
        own = (*host_prefixes(self.view.addresses), *self.subnets)
        return PrefixTable({p: p for p in own}, self._shared.wider(own))

    def cryptokey_table(self, interface: Interface) -> PrefixTable[Peer]:
        """Return WireGuard's allowed-ips of one interface; a prefix given twice belongs to the last peer with it."""
        table = self._cryptokey_tables.get(interface.name)
        if table is None:
            entries = {p: peer for peer in interface.peers for p in peer.allowed_ips}
            wider = [p for p in entries if p not in self._shared.hosts]
            table = self._cryptokey_tables[interface.name] = PrefixTable(entries, wider)
        return table

    def sockets(self, interface: Interface) -> frozenset[str]:
        """Return each ``host:port`` that reaches *interface*: by the policy's endpoint, and by underlay addresses.

        If the policy's endpoint has another port than the access interface (a forwarded port), the ports of all
        interfaces are shifted by the same number.
        """
        if interface.listen_port == 0:
            return frozenset()
        sockets = {str(Endpoint(host=host, port=interface.listen_port)) for host in self.member.underlay}
        public = self.member.endpoint
        # Both ports of the public host: the forwarded one, and its own if the host is not behind a forwarding router.
        if public is not None:
            shift = interface.listen_port - self._access_port
            sockets |= {str(Endpoint(host=public.host, port=p)) for p in (public.port + shift, interface.listen_port)}
        return frozenset(sockets)

    @cached_property
    def _access_port(self) -> int:
        return next((i.listen_port for i in self.view.interfaces if i.kind is Kind.ACCESS), 0)


class ForwardingTables:
    """The nodes of a plan, each made on first use. Views of unknown members are left out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.shared = SharedTables([p for m in plan.members.values() for p in host_prefixes(m.addresses)])
        self.relays = frozenset(name for name, m in plan.members.items() if m.is_relay)
        self.prefixes = {name: m.prefixes for name, m in plan.members.items()}
        """Member → host prefixes and active subnets."""
        self.owners = {p: name for name, prefixes in self.prefixes.items() for p in prefixes}
        """Prefix → the member that has it: the inverse of ``prefixes``."""
        self._nodes: dict[str, NodeTables] = {}
        self._sockets: dict[tuple[str, str], frozenset[str]] = {}
        self._far: dict[tuple[str, str, str, str], LinkEnd | str] = {}

    @cached_property
    def parsed(self) -> dict[str, Prefix]:
        """The keys of ``owners`` as numbers, without those that are not prefixes in canonical form."""
        return {text: parsed for text in self.owners if (parsed := prefix_or_none(text)) is not None}

    def node(self, name: str) -> NodeTables | None:
        """Return the node of that name; None if it is not a member or has no view."""
        node = self._nodes.get(name)
        if node is None and name in self.plan.members and name in self.plan.views:
            node = self._nodes[name] = NodeTables(self.plan.views[name], self.plan.members[name], self.shared)
        return node

    def other_end(self, name: str, interface: Interface, peer: Peer) -> LinkEnd | str:
        """Return where packets from *name* to *peer* come in; or why no session comes up, as a sentence."""
        key = (name, interface.name, peer.node, peer.public_key)
        far = self._far.get(key)
        if far is None:
            far = self._far[key] = self._find_other_end(name, interface, peer)
        return far

    def _find_other_end(self, name: str, interface: Interface, peer: Peer) -> LinkEnd | str:
        sender, receiver = self.node(name), self.node(peer.node)
        if sender is None or receiver is None:
            return f"{name} has a peer {peer.node}, which has no view"
        if peer.public_key != receiver.member.public_key:
            return f"{name} has a key for {peer.node} that is not its key"
        kind = far_kind(interface.kind, sender.member, receiver.member)
        # WireGuard finds a peer by its key, not by its node: a view may name the node wrongly and still work.
        key = sender.member.public_key
        far = receiver.ends.get(name)
        if far is None or far[1].public_key != key:
            far = receiver.by_key.get(key)
        if far is None or far[0].kind is not kind:
            return f"{peer.node} has no peer with the key of {name} on an interface of kind {kind.value}"
        if not (self.endpoint_matches(peer, far[0]) or self.endpoint_matches(far[1], interface, of=name)):
            return f"neither {name} nor {peer.node} has an endpoint at which the other listens"
        return far

    def endpoint_matches(self, peer: Peer, interface: Interface, of: str | None = None) -> bool:
        """Return whether *peer* has an endpoint that leads to *interface* of the peer's node, or of the node *of*."""
        if peer.endpoint is None:
            return False
        name = of or peer.node
        key = (name, interface.name)
        sockets = self._sockets.get(key)
        if sockets is None:
            node = self.node(name)
            sockets = self._sockets[key] = node.sockets(interface) if node else frozenset()
        return peer.endpoint in sockets


def far_kind(kind: Kind, near: Member, far: Member) -> Kind:
    """Return the kind of interface at the other end of a link, seen from one of *kind* at the node *near*."""
    if kind is Kind.TRUNK:
        return Kind.TRUNK
    if near.node in far.trunk_linked_relays or far.node in near.trunk_linked_relays:
        return Kind.UPLINK
    return Kind.UPLINK if kind is Kind.ACCESS and near.is_relay else Kind.ACCESS
