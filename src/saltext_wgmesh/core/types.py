"""The values that the layers hand each other: policy, facts, register, plan, view.

All are frozen; collections are tuples, or mappings that nobody changes after construction. Addresses
and prefixes inside plans and views are canonical strings (``10.100.0.7``, ``10.100.0.0/16``), since that is
what crosses every boundary; in the policy they are ``ipaddress`` objects, since there they are compared.
What comes from outside is checked where it enters: ``policy.parse``, ``facts.parse``, ``View.from_dict``.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core import names
from saltext_wgmesh.core.errors import ViewError

IDENTIFIER = r"[0-9a-f]{16}"
"""What stands for a preshared key (``core.preshared``), as a regular expression."""
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Topology(enum.Enum):
    """Which pairs are linked directly where the underlay allows it; all others go by relays."""

    FULL = "full"
    """All pairs; every relay is an uplink of every leaf."""
    PARTIAL = "partial"
    """Pairs within a site, between two nodes with an endpoint, and those of ``links``."""
    HUB = "hub"
    """Only those of ``links``."""


class Role(enum.Enum):
    """Whether a node forwards for others."""

    RELAY = "relay"
    LEAF = "leaf"


class Kind(enum.Enum):
    """What an interface of the mesh is for (glossary: access interface, uplink, trunk)."""

    ACCESS = "access"
    UPLINK = "uplink"
    TRUNK = "trunk"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Endpoint:
    """Where a WireGuard socket can be reached in the underlay. Prints as ``wg`` takes it."""

    host: str
    """An IPv4 or IPv6 address, or a DNS name."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# --- policy --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Bfd:
    """How fast a dead link is found out (RFC 5880 section 6.8.1)."""

    interval: int = names.DEFAULT_BFD_INTERVAL
    """Milliseconds between packets: DesiredMinTxInterval and RequiredMinRxInterval."""
    multiplier: int = names.DEFAULT_BFD_MULTIPLIER
    """DetectMult: how many packets in a row must be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Nodes that reach each other in the underlay and share relays."""

    name: str
    relays: tuple[str, ...] = ()
    """Node ids, in no order of preference; may be relays that stand at other sites. Empty: any relay of the mesh."""
    direct: bool = True
    """Whether leaves of the site link directly (partial topology)."""
    networks: tuple[Network, ...] = ()
    """Blocks from which the site's nodes get their addresses, so that others can route the site by one prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRule:
    """One entry of ``nodes``: what holds for each minion id that its pattern matches first."""

    pattern: str
    """A minion id or a glob (``fnmatch``, case-sensitive)."""
    role: Role = Role.LEAF
    site: str | None = None
    """None: at no site."""
    endpoint: Endpoint | None = None
    """None: reachable only by those who share the underlay with it (same site, ``links``, topology full)."""
    addresses: tuple[Address, ...] = ()
    """Explicit overlay addresses, at most one a family; only on a rule without wildcards."""
    nat: bool = False
    """Behind a NAT of its own: nobody can open a connection to it; it keeps its own open."""
    absent: bool = False
    """Whom it matches is no member, whatever comes after it."""
    routes: tuple[Network, ...] = ()
    """Subnets behind the node. One subnet on several nodes: gateways in the order of the rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPolicy:
    """One mesh, as the operator wants it."""

    name: str
    interface: str
    """The name of its access interface, and what those of the others begin with."""
    networks: tuple[Network, ...]
    """At most one IPv4 and one IPv6 network."""
    listen_port: int = names.DEFAULT_LISTEN_PORT
    topology: Topology = Topology.PARTIAL
    mtu: int = names.DEFAULT_MTU
    keepalive: int = names.DEFAULT_KEEPALIVE
    bfd: Bfd = field(default_factory=Bfd)
    prune_guard: int = names.DEFAULT_PRUNE_GUARD
    """Percent of the nodes, or direct links, that may go at once without the operator's word."""
    sites: Mapping[str, Site] = field(default_factory=lambda: MappingProxyType({}))
    nodes: tuple[NodeRule, ...]
    """In the operator's order: the first that matches counts."""
    links: tuple[tuple[str, str], ...] = ()
    """Extra direct links, each pair sorted. A pair of a leaf and a relay is one more uplink."""
    rotate_after: int = 0
    """Seconds in which each node gets another key once; 0: only when somebody asks for it."""
    preshared_keys: bool = False
    """Whether each pair of neighbours has a preshared key of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The pillar's ``wgmesh`` key."""

    meshes: Mapping[str, MeshPolicy]


# --- facts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a node says of itself, after validation. Nothing here grants it anything."""

    node: str
    public_key: str
    """Base64 of 32 bytes."""
    salt_key: str
    """Fingerprint of the minion key under which it was published: a re-used id inherits nothing."""
    underlay: tuple[str, ...] = ()
    """Its underlay addresses, that of its default route first."""
    networks: tuple[str, ...] = ()
    """Prefixes that its own interfaces (not the mesh's) are in."""
    ipv6: bool = True
    """Whether IPv6 is enabled on it."""
    next_key: str | None = None
    """The public key that it is about to run instead; None: no other is at hand."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All that are this node's."""
        return (self.public_key, self.next_key) if self.next_key else (self.public_key,)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Rejection:
    """A node's facts that were not believed, and why."""

    node: str
    reason: str
    do: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}; {self.do}"


# --- register ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """What must outlive every plan, so that joins and leaves move nobody else. Kept in the ledger."""

    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Node → overlay addresses, one a family; also of nodes that left, until they are released."""
    numbers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Relay → its number from 1, from which interface names and trunk ports are made; never reused."""
    homes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Leaf → the relays it had, first choice first."""


# --- plan ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a node's access interface is heard, and what it is called; its other interfaces follow from it."""

    listen_port: int
    endpoint: Endpoint | None
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node in a plan: its rule, facts and register entry brought together."""

    node: str
    role: Role
    site: str | None
    nat: bool
    public_key: str
    listen_port: int
    """Of its access interface."""
    interface: str
    """The name of its access interface."""
    endpoint: Endpoint | None
    """The policy's endpoint of the access interface; None if the policy gives none."""
    underlay: tuple[str, ...]
    addresses: tuple[str, ...]
    """Bare overlay addresses: IPv4 first, then IPv6; only the families that the node has. Two of a family while the
    second is about to go."""
    subnets: tuple[str, ...] = ()
    """The subnets whose active gateway it is."""
    standby_subnets: tuple[str, ...] = ()
    """The subnets for which it would be next."""
    homes: tuple[str, ...] = ()
    """A leaf's relays, first choice first. Empty on relays, and in a mesh without relays."""
    idle: tuple[str, ...] = ()
    """Relays that a leaf has left, to which it has a link still; no route leads there."""
    trunks: tuple[str, ...] = ()
    """Of a leaf's relays, those to which its link is a trunk: it was a relay, or is about to be one."""
    next_key: str | None = None
    """The public key that it is about to run; its neighbours take both."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All that its neighbours take."""
        return (self.public_key, self.next_key) if self.next_key else (self.public_key,)

    @property
    def is_relay(self) -> bool:
        """True if it forwards for others."""
        return self.role is Role.RELAY

    @property
    def place(self) -> Place:
        """Where it is heard."""
        return Place(listen_port=self.listen_port, endpoint=self.endpoint, interface=self.interface)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Host prefixes and active subnets: all that is reached at this node."""
        return (*host_prefixes(self.addresses), *self.subnets)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Link:
    """Two ends of a WireGuard peering; ``a`` is the leaf of an uplink, else the lesser name."""

    a: str
    b: str
    kind: Kind
    """ACCESS for a direct link between leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One peer of one interface. Its node is also the name of the link: a node has at most one to each other."""

    node: str
    address: str
    """Its overlay address, to which its end of the link is probed; of the family that all nodes of the mesh have."""
    public_key: str
    endpoint: str | None
    """``host:port``; None: it opens the connection."""
    keepalive: int
    """Seconds; 0 is off."""
    allowed_ips: tuple[str, ...]
    next_key: str | None = None
    """A second public key of the node, which it may begin to run at any moment."""
    preshared: tuple[str, ...] = ()
    """Identifiers of preshared keys: for each of the view's ``keys`` that with each of the peer's; empty: none."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All that the node may run, the one that it ran last first."""
        return (self.public_key, self.next_key) if self.next_key else (self.public_key,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One WireGuard interface of a node."""

    name: str
    kind: Kind
    listen_port: int
    """0: any; the kernel chooses."""
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a node sends packets for some prefixes: to the first neighbour whose link is up.

    A packet for a prefix takes the Route with the longest matching prefix. ``via`` holds for the node's own
    packets and for those that came in by anything but a trunk; ``from_trunk`` for those that came by one.
    """

    prefixes: tuple[str, ...]
    via: tuple[str, ...]
    """Neighbours (peer nodes) in order. Empty, and no detour: unreachable."""
    detour: bool = False
    """On a relay: after ``via``, every other trunk, in the order of the view's interfaces."""
    from_trunk: tuple[str, ...] | None = None
    """On a relay: the neighbours for packets from a trunk; empty: unreachable. None on leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The part of a plan that one node needs, and all that it is ever told."""

    mesh: str
    node: str
    role: Role
    addresses: tuple[str, ...]
    """Bare; the node puts them, as host prefixes, on every interface of the mesh."""
    networks: tuple[str, ...]
    """The mesh's networks."""
    forward: bool
    """Whether the node must forward packets: relays, and gateways of subnets."""
    mtu: int
    bfd: Bfd
    interfaces: tuple[Interface, ...]
    """The access interface first, then by name."""
    routes: tuple[Route, ...]
    """In order of their first prefix."""
    drained: tuple[str, ...] = ()
    """The relays among the neighbours that nobody is to depend on, sorted: not even probes are sent through them."""
    turn_to: str | None = None
    """The public key of its own that the node is to run from now on, since all its neighbours take it; None: the key
    that it has."""
    keys: tuple[str, ...] = ()
    """The node's own public keys, where its peers have preshared keys: these are of two public keys."""

    def as_dict(self) -> dict[str, Any]:
        """This view as plain JSON values, sorted as in the dataclasses; ``from_dict`` is its inverse."""
        return {
            "schema": names.VIEW_SCHEMA,
            "mesh": self.mesh,
            "node": self.node,
            "role": self.role.value,
            "addresses": list(self.addresses),
            "networks": list(self.networks),
            "forward": self.forward,
            "mtu": self.mtu,
            "bfd": {"interval": self.bfd.interval, "multiplier": self.bfd.multiplier},
            "interfaces": [
                {
                    "name": i.name,
                    "kind": i.kind.value,
                    "listen_port": i.listen_port,
                    "peers": [
                        {
                            "node": p.node,
                            "address": p.address,
                            "public_key": p.public_key,
                            "endpoint": p.endpoint,
                            "keepalive": p.keepalive,
                            "allowed_ips": list(p.allowed_ips),
                            **({"next_key": p.next_key} if p.next_key else {}),
                            **({"preshared": list(p.preshared)} if p.preshared else {}),
                        }
                        for p in i.peers
                    ],
                }
                for i in self.interfaces
            ],
            "routes": [
                {
                    "prefixes": list(r.prefixes),
                    "via": list(r.via),
                    "detour": r.detour,
                    "from_trunk": None if r.from_trunk is None else list(r.from_trunk),
                }
                for r in self.routes
            ],
            "drained": list(self.drained),
            **({"turn_to": self.turn_to} if self.turn_to else {}),
            **({"keys": list(self.keys)} if self.keys else {}),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> View:
        """The view that ``as_dict`` wrote; ViewError for anything else. Further keys are ignored."""
        if not isinstance(raw, Mapping) or raw.get("schema") != names.VIEW_SCHEMA:
            found = raw.get("schema") if isinstance(raw, Mapping) else type(raw).__name__
            raise ViewError(
                f"the view in this node's pillar is of schema {found!r}, not {names.VIEW_SCHEMA}: "
                "install the same version of saltext-wgmesh on master and minions"
            )
        try:
            return cls(
                mesh=_text(raw["mesh"]),
                node=_text(raw["node"]),
                role=Role(raw["role"]),
                addresses=_texts(raw["addresses"]),
                networks=_texts(raw["networks"]),
                forward=bool(raw["forward"]),
                mtu=int(raw["mtu"]),
                bfd=Bfd(interval=int(raw["bfd"]["interval"]), multiplier=int(raw["bfd"]["multiplier"])),
                interfaces=tuple(_interface(i) for i in raw["interfaces"]),
                routes=tuple(_route(r) for r in raw["routes"]),
                drained=_texts(raw.get("drained", ())),
                turn_to=_optional(raw.get("turn_to")),
                keys=_texts(raw.get("keys", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ViewError(f"the view in this node's pillar is damaged ({error!r}): converge again") from error

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex: two views are the same exactly if their digests are."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The planner's output for one mesh."""

    mesh: str
    networks: tuple[str, ...]
    members: Mapping[str, Member]
    """By node, sorted."""
    links: tuple[Link, ...]
    views: Mapping[str, View]
    """By node, sorted; one for each member."""
    left_out: Mapping[str, str]
    """Nodes of the policy with facts that could not be placed yet → why, and what to do."""
    register: Register
    """As it must be kept for the next plan."""


def host_prefixes(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Each bare address as a prefix of its full length."""
    return tuple(f"{a}/128" if ":" in a else f"{a}/32" for a in addresses)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _identifier(value: Any) -> str:
    """It becomes the name of a file."""
    if not re.fullmatch(IDENTIFIER, _text(value)):
        raise ValueError(f"{value!r} is no identifier of a preshared key")
    return str(value)


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_text(v) for v in values)


def _interface(raw: Mapping[str, Any]) -> Interface:
    return Interface(
        name=_text(raw["name"]),
        kind=Kind(raw["kind"]),
        listen_port=int(raw["listen_port"]),
        peers=tuple(
            Peer(
                node=_text(p["node"]),
                address=_text(p["address"]),
                public_key=_text(p["public_key"]),
                endpoint=None if p["endpoint"] is None else _text(p["endpoint"]),
                keepalive=int(p["keepalive"]),
                allowed_ips=_texts(p["allowed_ips"]),
                next_key=_optional(p.get("next_key")),
                preshared=tuple(_identifier(name) for name in p.get("preshared", ())),
            )
            for p in raw["peers"]
        ),
    )


def _route(raw: Mapping[str, Any]) -> Route:
    from_trunk = raw["from_trunk"]
    return Route(
        prefixes=_texts(raw["prefixes"]),
        via=_texts(raw["via"]),
        detour=bool(raw["detour"]),
        from_trunk=None if from_trunk is None else _texts(from_trunk),
    )
