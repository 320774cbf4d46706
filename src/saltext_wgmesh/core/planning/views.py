"""Members, direct pairs and relay numbers → one view for each node: its interfaces and its routes.

Many nodes share parts of their views, such as the peer of a relay, or the routes of all leaves with the same relays.
Each such part is made once, so that ten thousand nodes cost little more than their own parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from types import MappingProxyType

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.pairs import NodePair, node_pair
from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, Route, View
from saltext_wgmesh.core.planning import direct_links
from saltext_wgmesh.core.planning.relay_assignment import RelayOrder
from saltext_wgmesh.core.planning.relay_choice import RelayChoice
from saltext_wgmesh.core.planning.view_builder import ViewBuilder
from saltext_wgmesh.core.transition import gateway_move


def build_views(
    mesh: MeshPolicy,
    members: Mapping[str, Member],
    direct: Iterable[NodePair],
    numbers: Mapping[str, int],
    choice: RelayChoice,
    *,
    avoided_links: Set[NodePair] = frozenset(),
    drained: Set[str] = frozenset(),
    gateway_moves: gateway_move.GatewayMoves = MappingProxyType({}),
    renumbered: Set[str] = frozenset(),
) -> dict[str, View]:
    """Return node → view, in the order of *members*.

    *direct* are the pairs of leaves that are linked directly, *numbers* is relay → its number, and *choice* tells which
    relay a leaf takes. The *avoided_links* stay in the views, and are used only where no other path is up. The relays
    in *drained* are marked, so that no node probes through them. During the moves of subnets in *gateway_moves*, some
    relays deliver to another gateway than the rest of the mesh. The *renumbered* nodes may send from each of their
    addresses.
    """
    pairs = tuple(direct)

    def builder_for(some: Mapping[str, Member]) -> ViewBuilder:
        return ViewBuilder.of(mesh, some, pairs, numbers, avoided_links, drained, gateway_moves, choice, renumbered)

    builder = builder_for(members)
    found = {node: _relay(builder, m) if m.is_relay else _leaf(builder, m) for node, m in members.items()}
    # Such a relay sees other gateways, so it has a builder of its own. Moves are rare, and each has one such relay.
    for relay, gateways in gateway_move.relay_overrides(members, gateway_moves).items():
        own = builder_for(gateway_move.with_gateways(members, gateways, gateway_moves))
        found[relay] = _relay(own, own.members[relay], gateways)
    return found


def _view(builder: ViewBuilder, member: Member, interfaces: tuple[Interface, ...], routes: tuple[Route, ...]) -> View:
    return View(
        mesh=builder.mesh.name,
        node=member.node,
        role=member.role,
        addresses=member.addresses,
        networks=_visible(builder, builder.networks, _has_ipv6(builder, member)),
        # A relay that becomes a leaf still answers the probes of relays that have not applied the change.
        forward=member.is_relay or bool(member.subnets or member.standby_subnets or member.trunk_linked_relays),
        mtu=builder.mesh.mtu,
        bfd=builder.mesh.bfd,
        interfaces=interfaces,
        routes=routes,
        drained_relays=tuple(sorted({p.node for i in interfaces for p in i.peers} & builder.drained_relays))
        if builder.drained_relays
        else (),
    )


def _has_ipv6(builder: ViewBuilder, member: Member) -> bool:
    """Whether the node's view has IPv6 prefixes: a host with IPv6 disabled can't add such routes."""
    return len({address_family(a) for a in member.addresses}) == len({address_family(n) for n in builder.networks})


def _visible(builder: ViewBuilder, prefixes: tuple[str, ...], ipv6: bool) -> tuple[str, ...]:
    return prefixes if ipv6 else tuple(p for p in prefixes if address_family(p) == 4)


def _probed(builder: ViewBuilder, member: Member, ipv6: bool) -> tuple[str, tuple[str, ...]]:
    """Return the address at which neighbours probe *member*, and the others from which its packets may come."""
    first, *others = (a for a in member.addresses if ipv6 or address_family(a) == 4)
    return first, tuple(others) if member.node in builder.renumbered else ()


def _access(builder: ViewBuilder, member: Member, peers: Iterable[Peer]) -> Interface:
    return Interface(name=member.interface, kind=Kind.ACCESS, listen_port=member.listen_port, peers=tuple(peers))


def _in_order(builder: ViewBuilder, routes: Iterable[Route]) -> tuple[Route, ...]:
    return tuple(sorted((r for r in routes if r.prefixes), key=lambda r: builder.prefix_key[r.prefixes[0]]))


# --- leaves --------------------------------------------------------------------------------------------


def _leaf(builder: ViewBuilder, leaf: Member) -> View:
    ipv6 = _has_ipv6(builder, leaf)
    neighbours = builder.direct.get(leaf.node, ())
    standby = gateway_move.standby_allowed_ips(leaf, (builder.members[n] for n in neighbours), builder.gateway_moves)
    access = _access(builder, leaf, (_direct_peer(builder, leaf, n, standby.get(n, ()), ipv6) for n in neighbours))
    relays = (*leaf.relays, *leaf.unrouted_relays)
    uplinks = sorted(
        (
            _trunk(builder, leaf, builder.members[relay], Kind.UPLINK)
            if relay in leaf.trunk_linked_relays
            else _uplink(builder, leaf.interface, relay, ipv6)
            for relay in relays
        ),
        key=lambda i: i.name,
    )
    return _view(builder, leaf, (access, *uplinks), _leaf_routes(builder, leaf, ipv6))


def _direct_peer(builder: ViewBuilder, leaf: Member, name: str, standby: tuple[str, ...], ipv6: bool) -> Peer:
    """Return the neighbour *name* as a peer of *leaf*.

    The *standby* subnets are accepted from the neighbour, and are not routed to it. A side to which the other can't
    open a connection, such as one behind NAT, sends keepalives. The other side needs none.
    """
    other = builder.members[name]
    where = tuple(map(str, direct_links.endpoints_for(builder.mesh, leaf, other)))
    keepalive = 0 if direct_links.endpoints_for(builder.mesh, other, leaf) else builder.mesh.keepalive
    # In a full topology each node is a peer of all others. Most of these peers are equal, so they are one object.
    key = (name, where, keepalive, standby, ipv6)
    if key not in builder.peers:
        address, others = _probed(builder, other, ipv6)
        builder.peers[key] = Peer(
            node=name,
            address=address,
            other_addresses=others,
            public_key=other.public_key,
            next_key=other.next_key,
            endpoint=where[0] if where else None,
            other_endpoints=where[1:],
            keepalive=keepalive,
            allowed_ips=_visible(builder, (*other.prefixes, *standby), ipv6),
        )
    return builder.peers[key]


def _uplink(builder: ViewBuilder, stem: str, name: str, ipv6: bool) -> Interface:
    """Return the interface to the relay *name*, for all leaves whose access interface has the name *stem*.

    It has its own socket, on a port that the kernel chooses. So the relay can't open a connection to it, and the leaf
    always sends keepalives.
    """
    # One object for all leaves: a plan of many leaves holds as many uplinks as relays.
    if (stem, name, ipv6) not in builder.uplinks:
        relay = builder.members[name]
        address, others = _probed(builder, relay, ipv6)
        peer = Peer(
            node=name,
            address=address,
            other_addresses=others,
            public_key=relay.public_key,
            next_key=relay.next_key,
            endpoint=None if relay.endpoint is None else str(relay.endpoint),
            keepalive=builder.mesh.keepalive,
            allowed_ips=_visible(builder, builder.all_prefixes, ipv6),
        )
        builder.uplinks[stem, name, ipv6] = Interface(
            name=constants.uplink_name(stem, builder.numbers[name]),
            kind=Kind.UPLINK,
            listen_port=0,
            peers=(peer,),
        )
    return builder.uplinks[stem, name, ipv6]


def _leaf_routes(builder: ViewBuilder, leaf: Member, ipv6: bool) -> tuple[Route, ...]:
    """Return the routes of *leaf*.

    A neighbour or relay is reached by its own link, else by the relays. All other prefixes are reached by the relays,
    in the order that ``relay_choice`` gives for each. Without relays they are unreachable, so that no packet for the
    mesh takes the default route.
    """
    own = (*leaf.subnets, *leaf.standby_subnets)
    direct = builder.direct.get(leaf.node, ())
    # All leaves with the same relays and no links, subnets or faults of their own share their routes.
    shared = not direct and not own and leaf.node not in builder.nodes_with_avoided_links
    key = (leaf.relays, leaf.spread_relays, builder.relay_choice.own_numbers(leaf), ipv6)
    if shared and key in builder.plain_relay_routes:
        return builder.plain_relay_routes[key]
    choice = builder.relay_choice
    others = {name: choice.order(leaf, builder.members[name], choice.families) for name in direct}
    others |= dict.fromkeys(leaf.relays, leaf.relays)
    routes = [_deprioritise_avoided(builder, leaf, _toward(builder, n, order, ipv6)) for n, order in others.items()]
    if key not in builder.subnet_routes:
        builder.subnet_routes[key] = tuple(_relayed(builder, leaf, ipv6))
    # The leaf has another route to its own subnets, and to those of its neighbours.
    covered = {subnet for name in others for subnet in builder.members[name].subnets}
    routes += [_without(route, covered) for route in builder.subnet_routes[key]]
    if own:
        routes = [_without(route, own) for route in routes]
    ordered = _in_order(builder, routes)
    if shared:
        builder.plain_relay_routes[key] = ordered
    return ordered


def _relayed(builder: ViewBuilder, leaf: Member, ipv6: bool) -> Iterator[Route]:
    """Yield the routes of *leaf* to the networks and all subnets by its relays, one for each order of them."""
    order_of = builder.relay_choice.prefixes(leaf)
    for gateway, family, subnets in builder.subnet_groups:
        order_of |= dict.fromkeys(subnets, builder.relay_choice.order(leaf, gateway, (family,)))
    prefixes: dict[RelayOrder, list[str]] = {}
    for prefix in sorted(order_of, key=builder.prefix_key.__getitem__):
        prefixes.setdefault(order_of[prefix], []).append(prefix)
    for relays, some in prefixes.items():
        yield Route(prefixes=_visible(builder, tuple(some), ipv6), via=relays)


def _toward(builder: ViewBuilder, name: str, relays: RelayOrder, ipv6: bool) -> Route:
    """Return the route to the neighbour *name*: by its own link, else by *relays*."""
    key = (name, relays, ipv6)
    if key not in builder.relay_routes:
        prefixes = _visible(builder, builder.members[name].prefixes, ipv6)
        builder.relay_routes[key] = Route(
            prefixes=tuple(sorted(prefixes, key=builder.prefix_key.__getitem__)),
            via=(name, *(relay for relay in relays if relay != name)),
        )
    return builder.relay_routes[key]


def _deprioritise_avoided(builder: ViewBuilder, leaf: Member, route: Route) -> Route:
    """Return *route* of *leaf* to its neighbour ``via[0]``, with that neighbour last if their link is to be avoided."""
    neighbour, *others = route.via
    if node_pair(leaf.node, neighbour) not in builder.avoided_links:
        return route
    return replace(route, via=(*others, neighbour))


def _without(route: Route, prefixes: Collection[str]) -> Route:
    if not prefixes:
        return route
    left = tuple(p for p in route.prefixes if p not in prefixes)
    return Route(prefixes=left, via=route.via, detour=route.detour, from_trunk=route.from_trunk)


# --- relays --------------------------------------------------------------------------------------------


def _relay(builder: ViewBuilder, relay: Member, gateways: Mapping[str, str] = MappingProxyType({})) -> View:
    """Return the view of *relay*; *gateways* is subnet → the gateway to which only this relay delivers it."""
    unrouted = builder.unrouted_leaves_of.get(relay.node, ())
    attached = sorted((*builder.leaves_of[relay.node], *unrouted), key=lambda leaf: leaf.node)
    leaves = [leaf for leaf in attached if relay.node not in leaf.trunk_linked_relays]
    standby = gateway_move.standby_allowed_ips(relay, leaves, builder.gateway_moves)
    access = _access(builder, relay, (_leaf_peer(builder, leaf, standby.get(leaf.node, ())) for leaf in leaves))
    trunks = [_trunk(builder, relay, other) for other in builder.relays if other is not relay]
    trunks += [_trunk(builder, relay, leaf, Kind.UPLINK) for leaf in attached if relay.node in leaf.trunk_linked_relays]
    # Equal plans have equal views, whatever the order in which relays were found: views are compared by digests.
    trunks.sort(key=lambda i: i.name)
    routes = _relay_routes(builder, relay)
    if gateways:
        others = (_without(route, tuple(gateways)) for route in routes)
        routes = _in_order(
            builder,
            (*others, *gateway_move.override_routes(relay.node, builder.members, gateways, builder.gateway_moves)),
        )
    return _view(builder, relay, (access, *trunks), routes)


def _leaf_peer(builder: ViewBuilder, leaf: Member, standby: tuple[str, ...]) -> Peer:
    """Return *leaf* as a peer of its relays: with its own prefixes only, and without an endpoint.

    The leaf opens the link. The *standby* subnets are accepted from it, and are not routed to it.
    """
    key = (leaf.node, (), 0, standby, True)
    if key not in builder.peers:
        address, others = _probed(builder, leaf, True)
        builder.peers[key] = Peer(
            node=leaf.node,
            address=address,
            other_addresses=others,
            public_key=leaf.public_key,
            next_key=leaf.next_key,
            endpoint=None,
            keepalive=0,
            allowed_ips=(*leaf.prefixes, *standby),
        )
    return builder.peers[key]


def _trunk(builder: ViewBuilder, relay: Member, other: Member, kind: Kind = Kind.TRUNK) -> Interface:
    """Return the interface of *relay* to the relay *other*.

    *kind* is UPLINK if one of the two is a leaf that changes its role: then only name and port are those of a trunk.

    A relay listens for the relay with number n at its ``listen_port + n``. It is reached at its endpoint's port plus n.
    Where the endpoint is a forwarded port, the ports after it must be forwarded in the same way.
    """
    where = other.endpoint
    if where is not None:
        port = constants.trunk_port(where.port, builder.numbers[relay.node])
        where = type(where)(host=where.host, port=port)
    address, others = _probed(builder, other, _has_ipv6(builder, relay))
    peer = Peer(
        node=other.node,
        address=address,
        other_addresses=others,
        public_key=other.public_key,
        next_key=other.next_key,
        endpoint=None if where is None else str(where),
        keepalive=0,
        allowed_ips=builder.all_prefixes,
    )
    number = builder.numbers[other.node]
    return Interface(
        name=constants.trunk_name(relay.interface, number),
        kind=kind,
        listen_port=constants.trunk_port(relay.listen_port, number),
        peers=(peer,),
    )


def _relay_routes(builder: ViewBuilder, relay: Member) -> tuple[Route, ...]:
    """Return the routes of *relay*.

    Its own leaves are reached by their link, else by their other relays. Remote leaves are reached by their relays, and
    relays by their trunk. All other addresses are unreachable.

    A packet that came from a trunk is forwarded only to relays later in the leaf's list, so that no packet loops.
    """
    routes = [_own_leaf(builder, relay.node, leaf) for leaf in builder.leaves_of[relay.node]]
    routes += builder.remote_leaves.routes(relay.node)
    for other in builder.relays:
        if other is not relay:
            prefixes = tuple(sorted(other.prefixes, key=builder.prefix_key.__getitem__))
            routes.append(Route(prefixes=prefixes, via=(other.node,), detour=True, from_trunk=(other.node,)))
    own = (*relay.subnets, *relay.standby_subnets)
    if own:
        routes = [_without(route, own) for route in routes]
    # Without this route, a packet for an address that no node has would leave by the default route.
    routes.append(Route(prefixes=builder.networks, via=(), from_trunk=()))
    return _in_order(builder, routes)


def _own_leaf(builder: ViewBuilder, relay: str, leaf: Member) -> Route:
    index = leaf.relays.index(relay)
    later = leaf.relays[index + 1 :]
    return Route(
        prefixes=tuple(sorted(leaf.prefixes, key=builder.prefix_key.__getitem__)),
        via=(leaf.node, *leaf.relays[:index], *later),
        detour=True,
        from_trunk=(leaf.node, *later),
    )
