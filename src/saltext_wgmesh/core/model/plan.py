"""The plan of one mesh, and the allocations that outlive every plan, as frozen values.

Collections are tuples, or mappings that do not change after construction. Addresses and prefixes are canonical strings
(``10.100.0.7``, ``10.100.0.0/16``), since strings cross every boundary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from saltext_wgmesh.core.model.addresses import host_prefixes
from saltext_wgmesh.core.model.facts import usable_families
from saltext_wgmesh.core.model.policy import Endpoint, Role
from saltext_wgmesh.core.model.view import Kind, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocations:
    """The addresses, relay numbers and relays that nodes have been given.

    The ledger stores them, so that a node that joins or leaves changes nothing for the other nodes.
    """

    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Node → overlay addresses, one per family, and then former ones that the node has still. Nodes that left are
    listed too, until their addresses are released."""
    relay_numbers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Relay → its number from 1, from which interface names and trunk ports are made. Numbers are never reused."""
    relays: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Leaf → its relays in the last plan, first choice first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSocket:
    """The port, endpoint and name of a node's access interface; its other interfaces are derived from them."""

    listen_port: int
    endpoint: Endpoint | None
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node in a plan: its rule, facts and allocations combined."""

    node: str
    role: Role
    site: str | None
    nat: bool
    public_key: str
    listen_port: int
    """The UDP port of its access interface."""
    interface: str
    """The name of its access interface."""
    endpoint: Endpoint | None
    """The policy's endpoint of the access interface; None if the policy gives none."""
    underlay: tuple[str, ...]
    networks: tuple[str, ...] = ()
    """The prefixes of the node's own interfaces."""
    lans: tuple[str, ...] | None = None
    """Those of ``networks`` in which the underlay addresses are; None: not known."""
    addresses: tuple[str, ...]
    """Bare overlay addresses: IPv4 first, then IPv6; only the families that the node has. While a node is renumbered
    it may have two of a family, in any order. It sends from the first, and neighbours probe the first of all."""
    subnets: tuple[str, ...] = ()
    """The subnets of which the node is the active gateway."""
    standby_subnets: tuple[str, ...] = ()
    """The subnets of which the node is a standby gateway."""
    relays: tuple[str, ...] = ()
    """A leaf's relays, first choice first. Empty on relays, and in a mesh without relays."""
    spread_relays: tuple[str, ...] = ()
    """Those of a leaf's relays over which it spreads its packets by destination, sorted; its other relays are backups.
    Empty: it takes its relays in their order for all destinations."""
    unrouted_relays: tuple[str, ...] = ()
    """Relays that a leaf has left and still has a link to; no route uses these links."""
    trunk_linked_relays: tuple[str, ...] = ()
    """Those of a leaf's relays to which its link is a trunk, since the leaf was a relay or is about to be one."""
    next_key: str | None = None
    """The public key that the node is about to run; its neighbours accept both keys. None: there is no second key."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The public keys that the node's neighbours accept, the current key first."""
        return (self.public_key, self.next_key) if self.next_key else (self.public_key,)

    @property
    def families(self) -> frozenset[int]:
        """The address families in which the node may open connections; empty: not known."""
        return usable_families(self.underlay, self.networks)

    @property
    def is_relay(self) -> bool:
        """Whether the node forwards for others."""
        return self.role is Role.RELAY

    @property
    def access_socket(self) -> AccessSocket:
        """The socket of the node's access interface."""
        return AccessSocket(listen_port=self.listen_port, endpoint=self.endpoint, interface=self.interface)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All prefixes that are reached at this node: its host prefixes, and the subnets that it is the gateway of."""
        return (*host_prefixes(self.addresses), *self.subnets)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Link:
    """A WireGuard peering of two nodes; ``a`` is the leaf of an uplink, else the lesser name."""

    a: str
    b: str
    kind: Kind
    """ACCESS for a direct link between leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The planner's output for one mesh."""

    mesh: str
    networks: tuple[str, ...]
    members: Mapping[str, Member]
    """Keyed by node, sorted."""
    links: tuple[Link, ...]
    views: Mapping[str, View]
    """Keyed by node, sorted; one for each member."""
    unplaced: Mapping[str, str]
    """Nodes of the policy with facts that have no place in the plan yet → why, and what to do."""
    allocations: Allocations
    """The allocations after this plan; the next plan starts from them."""
