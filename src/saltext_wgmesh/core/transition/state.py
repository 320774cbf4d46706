"""The transitional state between two plans, and its form in the ledger.

A plan in transition has links, addresses and sockets only because the plan before it had them. The next steps remove
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.model.addresses import read_addresses
from saltext_wgmesh.core.model.pairs import NodePair, node_pair
from saltext_wgmesh.core.model.plan import AccessSocket
from saltext_wgmesh.core.model.policy import Endpoint
from saltext_wgmesh.core.transition.gateway_move import GatewayMove, moves_as_dict, moves_from_dict

RelaysByLeaf = Mapping[str, tuple[str, ...]]
"""Leaf → relays."""


def _none() -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChange:
    """A node that becomes a leaf or a relay: until then it is a leaf with these relays."""

    socket: AccessSocket
    """The socket of its access interface until the change is over."""
    relays: tuple[str, ...]
    """Its relays, in order of preference."""
    unrouted_relays: tuple[str, ...] = ()
    """Relays to which it has a link that no route uses."""
    trunk_linked_relays: tuple[str, ...] = ()
    """The relays of both lists to which its link is a trunk."""

    def without(self, relays: Set[str]) -> RoleChange:
        """Return the same change without *relays*."""
        lists = (self.relays, self.unrouted_relays, self.trunk_linked_relays)
        routed, unrouted, trunk_linked = (tuple(r for r in listed if r not in relays) for listed in lists)
        return replace(self, relays=routed, unrouted_relays=unrouted, trunk_linked_relays=trunk_linked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """The parts of a plan that it has only because the plan before had them."""

    previous_relays: RelaysByLeaf = field(default_factory=_none)
    """Leaf → relays that it had, in the order that other nodes know. The leaf uses them where its new relays are down;
    the next steps remove them or change their order."""
    unrouted_relays: RelaysByLeaf = field(default_factory=_none)
    """Leaf → relays to which it has a link that no route uses."""
    previous_direct_links: frozenset[NodePair] = frozenset()
    """Direct links between leaves that are removed next."""
    previous_sockets: Mapping[str, AccessSocket] = field(default_factory=lambda: MappingProxyType({}))
    """Node → the socket that it keeps until the nodes before it have moved."""
    dual_addresses: Mapping[str, tuple[str, ...]] = field(default_factory=_none)
    """Node → all its addresses, until they are those that it is to have. It sends from the first of each family."""
    former_networks: tuple[str, ...] = ()
    """Networks that the policy has replaced, and in which nodes still have addresses."""
    waiting_nodes: frozenset[str] = frozenset()
    """Nodes that join after others have left their former addresses."""
    gateway_moves: Mapping[str, GatewayMove] = field(default_factory=lambda: MappingProxyType({}))
    """Subnet → its move from one gateway to another."""
    unproven_relays: frozenset[str] = frozenset()
    """New relays that some neighbour does not hear yet."""
    role_changes: Mapping[str, RoleChange] = field(default_factory=lambda: MappingProxyType({}))
    """Node → its change from relay to leaf, or from leaf to relay."""

    def __bool__(self) -> bool:
        return self != NO_TRANSITION

    def links(self) -> list[NodePair]:
        """Return the links that only this transition keeps, sorted."""
        uplinks = {
            node_pair(leaf, relay)
            for relays_of in (self.previous_relays, self.unrouted_relays)
            for leaf, relays in relays_of.items()
            for relay in relays
        }
        return sorted(uplinks | self.previous_direct_links)

    def nodes(self, members: Iterable[str], relays: Iterable[str]) -> frozenset[str]:
        """Return the nodes whose link reports the next step needs.

        *members* and *relays* are those of the published plan.
        """
        # A relay reports its links to all neighbours, so the relays alone can confirm a new socket or a new relay.
        reporting_relays = relays if self.previous_sockets or self.unproven_relays else ()
        # Any node may send to an address or a subnet.
        everyone = members if self.dual_addresses or self.gateway_moves else ()
        changing_role = {
            n for node, change in self.role_changes.items() for n in (node, *change.relays, *change.unrouted_relays)
        }
        in_direct_links = {n for pair in self.previous_direct_links for n in pair}
        # The report of one end is enough for a link, so the relays of these leaves need not be asked too.
        leaves = {*self.previous_relays, *self.unrouted_relays}
        return frozenset({*everyone, *leaves, *in_direct_links, *reporting_relays, *changing_role})

    def describe(self) -> list[str]:
        """Return what the next step waits for, sorted.

        Links are written as ``a--b``. Nodes are listed that keep their previous socket, have former addresses or wait
        for them, are unproven relays, or change their role. Networks are those of former addresses. Subnets are those
        that move to another gateway. Each is named once.
        """
        links = ("--".join(pair) for pair in self.links())
        return sorted(
            {
                *links,
                *self.previous_sockets,
                *self.dual_addresses,
                *self.former_networks,
                *self.waiting_nodes,
                *self.gateway_moves,
                *self.unproven_relays,
                *self.role_changes,
            }
        )


NO_TRANSITION = Transition()


def relays_in_order(relays: Sequence[str], previous: Sequence[str]) -> tuple[str, ...]:
    """Return a leaf's new *relays* and its *previous* relays, in the order in which a packet to the leaf tries them."""
    return (*(r for r in relays if r not in previous), *previous)


# --- in the ledger -------------------------------------------------------------------------------------


def transition_as_dict(transition: Transition) -> dict[str, Any]:
    """Return plain values for the ledger; ``transition_from_dict`` is the inverse."""
    return {
        "previous_relays": {leaf: list(relays) for leaf, relays in transition.previous_relays.items()},
        "unrouted_relays": {leaf: list(relays) for leaf, relays in transition.unrouted_relays.items()},
        "previous_direct_links": [list(pair) for pair in sorted(transition.previous_direct_links)],
        "previous_sockets": {n: _socket_as_list(socket) for n, socket in transition.previous_sockets.items()},
        "dual_addresses": {node: list(addresses) for node, addresses in transition.dual_addresses.items()},
        "former_networks": list(transition.former_networks),
        "waiting_nodes": sorted(transition.waiting_nodes),
        "gateway_moves": moves_as_dict(transition.gateway_moves),
        "unproven_relays": sorted(transition.unproven_relays),
        "role_changes": {
            node: [
                _socket_as_list(change.socket),
                list(change.relays),
                list(change.unrouted_relays),
                list(change.trunk_linked_relays),
            ]
            for node, change in transition.role_changes.items()
        },
    }


def transition_from_dict(raw: Mapping[str, Any]) -> Transition:
    """Return the transition that ``transition_as_dict`` wrote; an empty mapping is none."""

    def lists(key: str) -> Mapping[str, tuple[str, ...]]:
        return MappingProxyType({node: tuple(names) for node, names in raw.get(key, {}).items()})

    dual = {node: read_addresses(listed) for node, listed in raw.get("dual_addresses", {}).items()}
    sockets = {node: _socket(*listed) for node, listed in raw.get("previous_sockets", {}).items()}
    return Transition(
        previous_relays=lists("previous_relays"),
        unrouted_relays=lists("unrouted_relays"),
        previous_direct_links=frozenset((a, b) for a, b in raw.get("previous_direct_links", ())),
        previous_sockets=MappingProxyType(sockets),
        dual_addresses=MappingProxyType(dual),
        former_networks=tuple(str(ip_network(each)) for each in raw.get("former_networks", ())),
        waiting_nodes=frozenset(raw.get("waiting_nodes", ())),
        gateway_moves=MappingProxyType(moves_from_dict(raw.get("gateway_moves", {}))),
        unproven_relays=frozenset(raw.get("unproven_relays", ())),
        role_changes=MappingProxyType({n: _role_change(*listed) for n, listed in raw.get("role_changes", {}).items()}),
    )


def _role_change(
    socket: list[Any], relays: Sequence[str], unrouted: Sequence[str], trunk_linked: Sequence[str]
) -> RoleChange:
    return RoleChange(
        socket=_socket(*socket),
        relays=tuple(relays),
        unrouted_relays=tuple(unrouted),
        trunk_linked_relays=tuple(trunk_linked),
    )


def _socket_as_list(socket: AccessSocket) -> list[Any]:
    endpoint = socket.endpoint
    return [socket.listen_port, socket.interface, endpoint and [endpoint.host, endpoint.port]]


def _socket(listen_port: int, interface: str, endpoint: list[Any] | None) -> AccessSocket:
    where = Endpoint(host=endpoint[0], port=endpoint[1]) if endpoint else None
    return AccessSocket(listen_port=listen_port, endpoint=where, interface=interface)
