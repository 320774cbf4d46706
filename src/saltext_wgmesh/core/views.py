"""Members, direct pairs and relay numbers → one view for each node: its interfaces, and where it sends packets.

Most of what views hold is the same for many nodes (a relay as its leaves see it, the routes of all leaves with the
same relays): such a part is made once and shared, so that ten thousand nodes cost little more than their own parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from saltext_wgmesh.core import merge, moves, names, reach
from saltext_wgmesh.core.types import Interface, Kind, Member, MeshPolicy, Peer, Route, View

Homes = tuple[str, ...]


def make(
    mesh: MeshPolicy,
    members: Mapping[str, Member],
    direct: Iterable[tuple[str, str]],
    numbers: Mapping[str, int],
    *,
    cut: Set[tuple[str, str]] = frozenset(),
    drained: Set[str] = frozenset(),
    under_way: moves.Moves = MappingProxyType({}),
) -> dict[str, View]:
    """Node → view, in the order of *members*. *direct* are the pairs of leaves that are linked directly; of the pairs
    in *cut* the link is kept, and not used as long as there is another way; neither are the relays in *drained*.
    Relays amid the move of a subnet, of those *under_way*, deliver it otherwise than the others."""

    def desk_of(some: Mapping[str, Member]) -> _Desk:
        desk = _desk(mesh, some, direct, numbers)
        desk.cut = cut
        desk.drained = drained & {relay.node for relay in desk.relays}
        desk.touched = frozenset(node for pair in cut for node in pair)
        desk.moves = under_way
        for leaf in some.values():
            for relay in leaf.idle:
                desk.idle_at.setdefault(relay, []).append(leaf)
        return desk

    desk = desk_of(members)
    found = {node: _relay(desk, m) if m.is_relay else _leaf(desk, m) for node, m in members.items()}
    for relay, to in moves.apart_at(members, under_way).items():
        own = desk_of(moves.delivering(members, to, under_way))
        found[relay] = _relay(own, own.members[relay], to)
    return found


@dataclass(slots=True, kw_only=True)
class _Desk:
    """What all views are made from, and the parts that were made already."""

    mesh: MeshPolicy
    members: Mapping[str, Member]
    numbers: Mapping[str, int]
    relays: list[Member]
    networks: tuple[str, ...]
    subnets: tuple[str, ...]
    """All that have a gateway, sorted."""
    everything: tuple[str, ...]
    """Networks and subnets: the allowed-ips of uplinks and trunks."""
    direct: dict[str, list[str]]
    leaves_of: dict[str, list[Member]]
    """Relay → its leaves, sorted."""
    foreign: merge.Foreign
    key: merge.Keys
    uplinks: dict[tuple[str, str, bool], Interface] = field(default_factory=dict)
    toward: dict[tuple[str, Homes, bool], Route] = field(default_factory=dict)
    plain: dict[tuple[Homes, bool], tuple[Route, ...]] = field(default_factory=dict)
    peers: dict[tuple[str, str | None, int, tuple[str, ...], bool], Peer] = field(default_factory=dict)
    cut: Set[tuple[str, str]] = frozenset()
    """Pairs, each sorted, whose link is not to be used."""
    touched: Set[str] = frozenset()
    """The nodes in these."""
    idle_at: dict[str, list[Member]] = field(default_factory=dict)
    """Relay → leaves with an idle link to it."""
    drained: Set[str] = frozenset()
    """Relays."""
    moves: moves.Moves = field(default_factory=dict)


def _desk(
    mesh: MeshPolicy, members: Mapping[str, Member], direct: Iterable[tuple[str, str]], numbers: Mapping[str, int]
) -> _Desk:
    key = merge.Keys()
    networks = tuple(sorted((str(n) for n in mesh.networks), key=key.__getitem__))
    subnets = tuple(sorted((s for m in members.values() for s in m.subnets), key=key.__getitem__))
    neighbours: dict[str, list[str]] = {}
    for a, b in direct:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    leaves_of: dict[str, list[Member]] = {m.node: [] for m in members.values() if m.is_relay}
    groups: dict[Homes, list[Member]] = {}
    for member in members.values():
        for relay in member.homes:
            leaves_of[relay].append(member)
        if member.homes:
            groups.setdefault(member.homes, []).append(member)
    return _Desk(
        mesh=mesh,
        members=members,
        numbers=numbers,
        relays=[members[relay] for relay in leaves_of],
        networks=networks,
        subnets=subnets,
        everything=tuple(sorted((*networks, *subnets), key=key.__getitem__)),
        direct={node: sorted(others) for node, others in neighbours.items()},
        leaves_of=leaves_of,
        foreign=merge.foreign(groups, [n for site in mesh.sites.values() for n in site.networks], key),
        key=key,
    )


def _view(desk: _Desk, member: Member, interfaces: tuple[Interface, ...], routes: tuple[Route, ...]) -> View:
    return View(
        mesh=desk.mesh.name,
        node=member.node,
        role=member.role,
        addresses=member.addresses,
        networks=_visible(desk, desk.networks, _has_ipv6(desk, member)),
        # By relays that don't know yet that it is a leaf, it is probed still.
        forward=member.is_relay or bool(member.subnets or member.standby_subnets or member.trunks),
        mtu=desk.mesh.mtu,
        bfd=desk.mesh.bfd,
        interfaces=interfaces,
        routes=routes,
        drained=tuple(sorted({p.node for i in interfaces for p in i.peers} & desk.drained)) if desk.drained else (),
    )


def _has_ipv6(desk: _Desk, member: Member) -> bool:
    """Whether the node is shown IPv6 at all: hosts that disable it can't take such routes."""
    return len({":" in a for a in member.addresses}) == len(desk.networks)


def _visible(desk: _Desk, prefixes: tuple[str, ...], ipv6: bool) -> tuple[str, ...]:
    return prefixes if ipv6 else tuple(p for p in prefixes if ":" not in p)


def _access(desk: _Desk, member: Member, peers: Iterable[Peer]) -> Interface:
    return Interface(name=member.interface, kind=Kind.ACCESS, listen_port=member.listen_port, peers=tuple(peers))


def _in_order(desk: _Desk, routes: Iterable[Route]) -> tuple[Route, ...]:
    return tuple(sorted((r for r in routes if r.prefixes), key=lambda r: desk.key[r.prefixes[0]]))


# --- leaves --------------------------------------------------------------------------------------------


def _leaf(desk: _Desk, leaf: Member) -> View:
    ipv6 = _has_ipv6(desk, leaf)
    near = desk.direct.get(leaf.node, ())
    more = moves.admitted(leaf, (desk.members[other] for other in near), desk.moves)
    access = _access(desk, leaf, (_direct_peer(desk, leaf, other, more.get(other, ()), ipv6) for other in near))
    relays = (*leaf.homes, *leaf.idle)
    uplinks = sorted(
        (
            _trunk(desk, leaf, desk.members[relay], Kind.UPLINK)
            if relay in leaf.trunks
            else _uplink(desk, leaf.interface, relay, ipv6)
            for relay in relays
        ),
        key=lambda i: i.name,
    )
    return _view(desk, leaf, (access, *uplinks), _leaf_routes(desk, leaf, ipv6))


def _direct_peer(desk: _Desk, leaf: Member, name: str, more: tuple[str, ...], ipv6: bool) -> Peer:
    """The neighbour *name* as *leaf* sees it, which takes *more* prefixes from it than it sends there.

    A side that can't be opened to (behind NAT, above all) keeps the link open itself; the other needs no keepalive.
    """
    other = desk.members[name]
    where = reach.endpoint(desk.mesh, leaf, other)
    keepalive = desk.mesh.keepalive if reach.endpoint(desk.mesh, other, leaf) is None else 0
    key = (name, None if where is None else str(where), keepalive, more, ipv6)
    if key not in desk.peers:
        desk.peers[key] = Peer(
            node=name,
            address=other.addresses[0],
            public_key=other.public_key,
            next_key=other.next_key,
            endpoint=key[1],
            keepalive=keepalive,
            allowed_ips=_visible(desk, (*other.prefixes, *more), ipv6),
        )
    return desk.peers[key]


def _uplink(desk: _Desk, stem: str, name: str, ipv6: bool) -> Interface:
    """The interface towards the relay *name*, of every leaf whose access interface is called *stem*.

    Its socket is its own, on a port that the kernel chooses, so the relay can never open to it: always keepalive.
    """
    if (stem, name, ipv6) not in desk.uplinks:
        relay = desk.members[name]
        peer = Peer(
            node=name,
            address=relay.addresses[0],
            public_key=relay.public_key,
            next_key=relay.next_key,
            endpoint=None if relay.endpoint is None else str(relay.endpoint),
            keepalive=desk.mesh.keepalive,
            allowed_ips=_visible(desk, desk.everything, ipv6),
        )
        desk.uplinks[stem, name, ipv6] = Interface(
            name=names.uplink_name(stem, desk.numbers[name]),
            kind=Kind.UPLINK,
            listen_port=0,
            peers=(peer,),
        )
    return desk.uplinks[stem, name, ipv6]


def _leaf_routes(desk: _Desk, leaf: Member, ipv6: bool) -> tuple[Route, ...]:
    """Neighbours and relays by their own link, else by the relays in order; all the rest by the relays in order.

    Without relays the rest is unreachable, so that no packet for the mesh leaves by the default route.
    """
    own = (*leaf.subnets, *leaf.standby_subnets)
    near = (*desk.direct.get(leaf.node, ()), *leaf.homes)
    shared = len(near) == len(leaf.homes) and not own and leaf.node not in desk.touched
    if shared and (leaf.homes, ipv6) in desk.plain:
        return desk.plain[leaf.homes, ipv6]
    routes = [_around(desk, leaf, _toward(desk, name, leaf.homes, ipv6)) for name in near]
    if own:
        routes = [_without(route, own) for route in routes]
    covered = {*own, *(s for name in near for s in desk.members[name].subnets)}
    rest = tuple(p for p in desk.everything if p not in covered)
    routes.append(Route(prefixes=_visible(desk, rest, ipv6), via=leaf.homes))
    ordered = _in_order(desk, routes)
    if shared:
        desk.plain[leaf.homes, ipv6] = ordered
    return ordered


def _toward(desk: _Desk, name: str, homes: Homes, ipv6: bool) -> Route:
    """To a neighbour by its own link, else by the relays of *homes*."""
    key = (name, homes, ipv6)
    if key not in desk.toward:
        prefixes = _visible(desk, desk.members[name].prefixes, ipv6)
        desk.toward[key] = Route(
            prefixes=tuple(sorted(prefixes, key=desk.key.__getitem__)),
            via=(name, *(h for h in homes if h != name)),
        )
    return desk.toward[key]


def _around(desk: _Desk, leaf: Member, route: Route) -> Route:
    """*route* of *leaf* towards its neighbour ``via[0]``, with that neighbour last if their link is cut."""
    neighbour, *others = route.via
    if (min(leaf.node, neighbour), max(leaf.node, neighbour)) not in desk.cut:
        return route
    return replace(route, via=(*others, neighbour))


def _without(route: Route, prefixes: tuple[str, ...]) -> Route:
    left = tuple(p for p in route.prefixes if p not in prefixes)
    return Route(prefixes=left, via=route.via, detour=route.detour, from_trunk=route.from_trunk)


# --- relays --------------------------------------------------------------------------------------------


def _relay(desk: _Desk, relay: Member, to: Mapping[str, str] = MappingProxyType({})) -> View:
    """The relay's view; *to* are subnets that it alone delivers to the gateway named there."""
    idle = desk.idle_at.get(relay.node, ())
    attached = sorted((*desk.leaves_of[relay.node], *idle), key=lambda leaf: leaf.node)
    leaves = [leaf for leaf in attached if relay.node not in leaf.trunks]
    more = moves.admitted(relay, leaves, desk.moves)
    access = _access(desk, relay, (_leaf_peer(desk, leaf, more.get(leaf.node, ())) for leaf in leaves))
    trunks = [_trunk(desk, relay, other) for other in desk.relays if other is not relay]
    trunks += [_trunk(desk, relay, leaf, Kind.UPLINK) for leaf in attached if relay.node in leaf.trunks]
    trunks.sort(key=lambda i: i.name)
    routes = _relay_routes(desk, relay)
    if to:
        others = (_without(route, tuple(to)) for route in routes)
        routes = _in_order(desk, (*others, *moves.routes(relay.node, desk.members, to, desk.moves)))
    return _view(desk, relay, (access, *trunks), routes)


def _leaf_peer(desk: _Desk, leaf: Member, more: tuple[str, ...]) -> Peer:
    """A leaf as each of its relays sees it: only itself and what is behind it, and it opens the link. The relay takes
    *more* prefixes from it than it sends there."""
    key = (leaf.node, None, 0, more, True)
    if key not in desk.peers:
        desk.peers[key] = Peer(
            node=leaf.node,
            address=leaf.addresses[0],
            public_key=leaf.public_key,
            next_key=leaf.next_key,
            endpoint=None,
            keepalive=0,
            allowed_ips=(*leaf.prefixes, *more),
        )
    return desk.peers[key]


def _trunk(desk: _Desk, relay: Member, other: Member, kind: Kind = Kind.TRUNK) -> Interface:
    """The interface of *relay* towards the relay *other*; an uplink in all but its name and port, if one of the two
    forwards for nobody.

    A relay hears the relay with number n at its ``listen_port + n``. Where its endpoint is a forwarded port, the
    ports after that must be forwarded alike: it is reached at the endpoint's port plus n.
    """
    where = other.endpoint
    if where is not None:
        port = names.trunk_port(where.port, desk.numbers[relay.node])
        where = type(where)(host=where.host, port=port)
    peer = Peer(
        node=other.node,
        address=other.addresses[0],
        public_key=other.public_key,
        next_key=other.next_key,
        endpoint=None if where is None else str(where),
        keepalive=0,
        allowed_ips=desk.everything,
    )
    number = desk.numbers[other.node]
    return Interface(
        name=names.trunk_name(relay.interface, number),
        kind=kind,
        listen_port=names.trunk_port(relay.listen_port, number),
        peers=(peer,),
    )


def _relay_routes(desk: _Desk, relay: Member) -> tuple[Route, ...]:
    """Own leaves by their link, else by their other relays; foreign leaves by theirs; relays by their trunk.

    From a trunk, only relays that stand later in a leaf's list come next, so that no packet can loop. What belongs
    to no member is unreachable.
    """
    routes = [_own_leaf(desk, relay.node, leaf) for leaf in desk.leaves_of[relay.node]]
    routes += desk.foreign.routes(relay.node)
    for other in desk.relays:
        if other is not relay:
            prefixes = tuple(sorted(other.prefixes, key=desk.key.__getitem__))
            routes.append(Route(prefixes=prefixes, via=(other.node,), detour=True, from_trunk=(other.node,)))
    own = (*relay.subnets, *relay.standby_subnets)
    if own:
        routes = [_without(route, own) for route in routes]
    routes.append(Route(prefixes=desk.networks, via=(), from_trunk=()))
    return _in_order(desk, routes)


def _own_leaf(desk: _Desk, relay: str, leaf: Member) -> Route:
    place = leaf.homes.index(relay)
    later = leaf.homes[place + 1 :]
    return Route(
        prefixes=tuple(sorted(leaf.prefixes, key=desk.key.__getitem__)),
        via=(leaf.node, *leaf.homes[:place], *later),
        detour=True,
        from_trunk=(leaf.node, *later),
    )
