"""The operator's policy as frozen values: meshes, sites and node rules.

Addresses and networks are ``ipaddress`` objects here, since the planner compares them. ``inputs.policy`` parses and
checks the pillar; code behind it can rely on every value being valid.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range
from types import MappingProxyType

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.pairs import NodePair

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRange:
    """The addresses from ``first`` to ``last``, both included and of one family."""

    first: Address
    last: Address

    def __str__(self) -> str:
        if self.first == self.last:
            return str(self.first)
        prefixes = list(summarize_address_range(self.first, self.last))
        return str(prefixes[0]) if len(prefixes) == 1 else f"{self.first}-{self.last}"


class Topology(enum.Enum):
    """Which pairs of nodes are linked directly where the underlay allows it; all other pairs use relays."""

    FULL = "full"
    """All pairs; every leaf has an uplink to every relay."""
    PARTIAL = "partial"
    """Pairs within a site, pairs of two nodes with an endpoint, and the pairs of ``links``."""
    HUB = "hub"
    """Only the pairs of ``links``."""


class Role(enum.Enum):
    """Whether a node forwards for others."""

    RELAY = "relay"
    LEAF = "leaf"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Endpoint:
    """Where a WireGuard socket is reached in the underlay; its text form is the one that ``wg`` accepts."""

    host: str
    """An IPv4 or IPv6 address, or a DNS name."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if address_family(self.host) == 6 else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bfd:
    """How fast a dead link is detected (RFC 5880 section 6.8.1)."""

    interval: int = constants.DEFAULT_BFD_INTERVAL
    """Milliseconds between packets: DesiredMinTxInterval and RequiredMinRxInterval."""
    multiplier: int = constants.DEFAULT_BFD_MULTIPLIER
    """DetectMult: the number of packets in a row that must be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A group of nodes that reach each other in the underlay and share relays."""

    name: str
    relays: tuple[str, ...] = ()
    """Node ids, in no order of preference; relays of other sites are allowed. Empty: any relay of the mesh."""
    direct: bool = True
    """Whether leaves of the site link directly (partial topology)."""
    networks: tuple[Network, ...] = ()
    """Blocks from which the site's nodes get their addresses, so that other nodes can route the site by one prefix."""
    reserved: tuple[AddressRange, ...] = ()
    """Ranges within the blocks of which no node gets an address but by its rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRule:
    """One entry of ``nodes``: the rule for each minion id that its pattern is the first to match."""

    pattern: str
    """A minion id or a glob (``fnmatch``, case-sensitive)."""
    role: Role = Role.LEAF
    site: str | None = None
    """None: the node is at no site."""
    endpoint: Endpoint | None = None
    """None: only nodes that share the underlay can open a connection (same site, ``links``, topology full)."""
    addresses: tuple[Address, ...] = ()
    """Explicit overlay addresses, at most one per family; only on a rule without wildcards."""
    nat: bool = False
    """Whether the node is behind a NAT of its own: other nodes can't open a connection to it, so it keeps its own
    connections open."""
    absent: bool = False
    """Whether a node that the pattern matches is not a member, whatever later rules say."""
    routes: tuple[Network, ...] = ()
    """Subnets behind the node. If several nodes have the same subnet they are its gateways, in the order of the
    rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortLimit:
    """How far the numbers of a mesh's relays may grow, since trunks have the ports after the access interface's."""

    number: int
    """The highest number."""
    reason: str
    """The user of the next port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPolicy:
    """The operator's policy of one mesh."""

    name: str
    interface: str
    """The name of the access interface, and the prefix of the names of all other interfaces."""
    networks: tuple[Network, ...]
    """At most one IPv4 and one IPv6 network."""
    reserved: tuple[AddressRange, ...] = ()
    """Ranges within the networks of which no node gets an address but by its rule."""
    listen_port: int = constants.DEFAULT_LISTEN_PORT
    topology: Topology = Topology.PARTIAL
    mtu: int = constants.DEFAULT_MTU
    keepalive: int = constants.DEFAULT_KEEPALIVE
    bfd: Bfd = field(default_factory=Bfd)
    prune_guard: int = constants.DEFAULT_PRUNE_GUARD
    """Percent of the nodes, or of the direct links, that one run may remove without the operator's approval."""
    sites: Mapping[str, Site] = field(default_factory=lambda: MappingProxyType({}))
    nodes: tuple[NodeRule, ...]
    """In the operator's order: the first rule that matches a node counts."""
    links: tuple[NodePair, ...] = ()
    """Additional direct links. A pair of a leaf and a relay is an additional uplink."""
    rotate_after: int = 0
    """Seconds within which each node gets a new key once; 0: only on request."""
    preshared_keys: bool = False
    """Whether each pair of neighbours has its own preshared key."""
    port_limit: PortLimit | None = None
    """The limit that BFD's ports and the endpoints at one host set. None: the mesh has no trunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The value of the pillar key ``wgmesh``: all meshes."""

    meshes: Mapping[str, MeshPolicy]
