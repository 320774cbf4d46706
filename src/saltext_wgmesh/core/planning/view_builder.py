"""The values from which the views of one plan are made, computed once for all nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from saltext_wgmesh.core.model.pairs import NodePair
from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.core.model.view import Interface, Peer, Route
from saltext_wgmesh.core.planning import route_aggregation
from saltext_wgmesh.core.planning.relay_assignment import RelayOrder
from saltext_wgmesh.core.planning.relay_choice import RelayChoice
from saltext_wgmesh.core.transition import gateway_move


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewBuilder:
    """The values from which all views are made, and a memo of the parts that several views share."""

    mesh: MeshPolicy
    members: Mapping[str, Member]
    numbers: Mapping[str, int]
    relays: list[Member]
    networks: tuple[str, ...]
    all_prefixes: tuple[str, ...]
    """Networks and subnets, sorted: the allowed-ips of uplinks and trunks."""
    direct: dict[str, list[str]]
    """Leaf → the leaves that it is linked to directly, sorted."""
    leaves_of: dict[str, list[Member]]
    """Relay → its leaves, sorted."""
    unrouted_leaves_of: dict[str, list[Member]]
    """Relay → the leaves with an unrouted link to it."""
    remote_leaves: route_aggregation.RemoteLeaves
    relay_choice: RelayChoice
    subnet_groups: list[tuple[Member, int, list[str]]]
    """The subnets in the groups of ``RelayChoice.subnet_groups``."""
    prefix_key: route_aggregation.PrefixSortKeys
    avoided_links: Set[NodePair]
    nodes_with_avoided_links: Set[str]
    drained_relays: Set[str]
    gateway_moves: gateway_move.GatewayMoves
    renumbered: Set[str]
    """Nodes that send from former addresses, or did so a step ago."""
    # Memos: a part is made when the first view needs it.
    uplinks: dict[tuple[str, str, bool], Interface] = field(default_factory=dict)
    relay_routes: dict[tuple[str, RelayOrder, bool], Route] = field(default_factory=dict)
    subnet_routes: dict[tuple[object, ...], tuple[Route, ...]] = field(default_factory=dict)
    plain_relay_routes: dict[tuple[object, ...], tuple[Route, ...]] = field(default_factory=dict)
    peers: dict[tuple[str, tuple[str, ...], int, tuple[str, ...], bool], Peer] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        mesh: MeshPolicy,
        members: Mapping[str, Member],
        direct: Iterable[NodePair],
        numbers: Mapping[str, int],
        avoided_links: Set[NodePair],
        drained: Set[str],
        gateway_moves: gateway_move.GatewayMoves,
        choice: RelayChoice,
        renumbered: Set[str],
    ) -> ViewBuilder:
        """Return a builder with all values computed and its memos empty."""
        key = route_aggregation.PrefixSortKeys()
        networks = tuple(sorted((str(n) for n in mesh.networks), key=key.__getitem__))
        gateway_of = {subnet: member for member in members.values() for subnet in member.subnets}
        leaves_of, unrouted_leaves_of = _leaves_by_relay(members)
        return cls(
            mesh=mesh,
            members=members,
            numbers=numbers,
            relays=[members[relay] for relay in leaves_of],
            networks=networks,
            all_prefixes=tuple(sorted((*networks, *gateway_of), key=key.__getitem__)),
            direct=_neighbours(direct),
            leaves_of=leaves_of,
            unrouted_leaves_of=unrouted_leaves_of,
            remote_leaves=route_aggregation.remote_leaves(_groups(members), choice.blocks, key),
            relay_choice=choice,
            subnet_groups=choice.subnet_groups(gateway_of),
            prefix_key=key,
            avoided_links=avoided_links,
            nodes_with_avoided_links=frozenset(node for pair in avoided_links for node in pair),
            drained_relays=drained & leaves_of.keys(),
            gateway_moves=gateway_moves,
            renumbered=renumbered,
        )


def _neighbours(direct: Iterable[NodePair]) -> dict[str, list[str]]:
    """Return leaf → the leaves that it is linked to directly, sorted."""
    neighbours: dict[str, list[str]] = {}
    for a, b in direct:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    return {node: sorted(others) for node, others in neighbours.items()}


def _leaves_by_relay(members: Mapping[str, Member]) -> tuple[dict[str, list[Member]], dict[str, list[Member]]]:
    """Return relay → its leaves, for every relay, and relay → the leaves with an unrouted link to it."""
    leaves_of: dict[str, list[Member]] = {m.node: [] for m in members.values() if m.is_relay}
    unrouted_leaves_of: dict[str, list[Member]] = {}
    for member in members.values():
        for relay in member.relays:
            leaves_of[relay].append(member)
        for relay in member.unrouted_relays:
            unrouted_leaves_of.setdefault(relay, []).append(member)
    return leaves_of, unrouted_leaves_of


def _groups(members: Mapping[str, Member]) -> dict[RelayOrder, list[Member]]:
    """Return relays → the leaves that have exactly these relays in this order."""
    groups: dict[RelayOrder, list[Member]] = {}
    for member in members.values():
        if member.relays:
            groups.setdefault(member.relays, []).append(member)
    return groups
