"""The part of a plan that one node needs, as a frozen value with its form on the wire.

Addresses and prefixes are canonical strings (``10.100.0.7``, ``10.100.0.0/16``), since strings cross every boundary.
``View.from_dict`` checks what comes from outside.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.model.policy import Bfd, Role

PSK_ID_PATTERN = r"[0-9a-f]{16}"
"""Regular expression of an identifier that stands for a preshared key (``core.keys.psk``)."""

MAX_BFD_INTERVAL = 60_000
"""Milliseconds. The field of a packet could have more (RFC 5880 section 4.1)."""
_MAX_16_BITS = 65_535
_PREFIX_PATTERN = r"[0-9A-Fa-f:.]+/[0-9]{1,3}"
_DEVICE_PATTERN = rf"(?!\.\.?$)[!-.0-~]{{1,{constants.IFNAMSIZ}}}"
"""Regular expression of an interface's name: printable ASCII without slash and space, and neither ``.`` nor ``..``."""


class Kind(enum.Enum):
    """The kind of an interface of the mesh: access interface, uplink or trunk (see the glossary)."""

    ACCESS = "access"
    UPLINK = "uplink"
    TRUNK = "trunk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One peer of one interface.

    The peer's node is also the name of the link, since a node has at most one link to each other node.
    """

    node: str
    address: str
    """The peer's overlay address, which BFD uses; of a family that both nodes have."""
    public_key: str
    endpoint: str | None
    """``host:port``; None: the peer opens the connection."""
    keepalive: int
    """Seconds; 0 is off."""
    allowed_ips: tuple[str, ...]
    next_key: str | None = None
    """A second public key that the peer may start to run at any moment; None: there is none."""
    other_endpoints: tuple[str, ...] = ()
    """More places at which the peer may be reached. They are tried in turn while the link is down."""
    other_addresses: tuple[str, ...] = ()
    """More addresses of the peer from which its packets may come, while it is renumbered."""
    psk_ids: tuple[str, ...] = ()
    """Identifiers of the preshared keys of each key in the view's ``keys`` with each key of the peer, in that order.
    Empty: there are no preshared keys."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All public keys that the peer may run, the current key first."""
        return (self.public_key, self.next_key) if self.next_key else (self.public_key,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One WireGuard interface of a node."""

    name: str
    kind: Kind
    listen_port: int
    """0: the kernel chooses a port."""
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a node sends packets for some prefixes: to the first neighbour whose link is up.

    A packet takes the Route with the longest matching prefix. ``from_trunk`` is for packets that arrived on a trunk;
    ``via`` is for the node's own packets and for those that arrived on any other interface.
    """

    prefixes: tuple[str, ...]
    via: tuple[str, ...]
    """Neighbours (peer nodes) in order. Empty, without ``detour``: the prefixes are unreachable."""
    detour: bool = False
    """On a relay: whether every other trunk follows after ``via``, in the order of the view's interfaces."""
    from_trunk: tuple[str, ...] | None = None
    """On a relay: the neighbours for packets from a trunk, in order; empty: unreachable. None on leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The part of a plan that one node needs; the master sends a node nothing else of the plan."""

    mesh: str
    node: str
    role: Role
    addresses: tuple[str, ...]
    """Bare overlay addresses; the node sets them, as host prefixes, on every interface of the mesh."""
    networks: tuple[str, ...]
    """The mesh's networks."""
    forward: bool
    """Whether the node must forward packets, as relays and gateways of subnets do."""
    mtu: int
    bfd: Bfd
    interfaces: tuple[Interface, ...]
    """The access interface first, then by name."""
    routes: tuple[Route, ...]
    """In order of their first prefix."""
    drained_relays: tuple[str, ...] = ()
    """The neighbours that are drained relays, sorted: the node sends nothing through them, not even probes."""
    activate_key: str | None = None
    """The node's own public key that it must run from now on, since all its neighbours accept it. None: the node keeps
    its current key."""
    keys: tuple[str, ...] = ()
    """The node's own public keys, if its peers have preshared keys: a preshared key belongs to two public keys."""

    def as_dict(self) -> dict[str, Any]:
        """Return this view as plain JSON values, in the order of the dataclasses; ``from_dict`` is the inverse."""
        return {
            "schema": constants.VIEW_SCHEMA,
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
                            **({"other_endpoints": list(p.other_endpoints)} if p.other_endpoints else {}),
                            **({"other_addresses": list(p.other_addresses)} if p.other_addresses else {}),
                            **({"psk_ids": list(p.psk_ids)} if p.psk_ids else {}),
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
            "drained_relays": list(self.drained_relays),
            **({"activate_key": self.activate_key} if self.activate_key else {}),
            **({"keys": list(self.keys)} if self.keys else {}),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> View:
        """Return the view that ``as_dict`` wrote. Additional keys are ignored.

        Raises ViewError for anything else.
        """
        if not isinstance(raw, Mapping) or raw.get("schema") != constants.VIEW_SCHEMA:
            found = raw.get("schema") if isinstance(raw, Mapping) else type(raw).__name__
            raise ViewError(
                f"the view in this node's pillar is of schema {found!r}, not {constants.VIEW_SCHEMA}: "
                "install the same version of saltext-wgmesh on master and minions"
            )
        try:
            return cls(
                mesh=_text(raw["mesh"]),
                node=_text(raw["node"]),
                role=Role(raw["role"]),
                addresses=_own_addresses(raw["addresses"]),
                networks=tuple(_network(each) for each in raw["networks"]),
                forward=bool(raw["forward"]),
                mtu=_number(raw["mtu"], 0, _MAX_16_BITS),
                bfd=Bfd(
                    interval=_number(raw["bfd"]["interval"], 1, MAX_BFD_INTERVAL),
                    multiplier=_number(raw["bfd"]["multiplier"], 1, 255),
                ),
                interfaces=tuple(_interface(i) for i in raw["interfaces"]),
                routes=tuple(_route(r) for r in raw["routes"]),
                drained_relays=_texts(raw.get("drained_relays", ())),
                activate_key=_optional(raw.get("activate_key")),
                keys=_texts(raw.get("keys", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ViewError(f"the view in this node's pillar is damaged ({error!r}): converge again") from error

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON in hex: two views are equal if and only if their digests are."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _psk_id(value: Any) -> str:
    # The node uses the identifier as a file name, so that nothing else may pass.
    if not re.fullmatch(PSK_ID_PATTERN, _text(value)):
        raise ValueError(f"{value!r} is no identifier of a preshared key")
    return str(value)


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_text(v) for v in values)


def _number(value: Any, low: int, high: int) -> int:
    if not low <= int(value) <= high:
        raise ValueError(f"a number is not from {low} to {high}")
    return int(value)


def _address(value: Any) -> str:
    ipaddress.ip_address(_text(value))
    return str(value)


def _own_addresses(values: Any) -> tuple[str, ...]:
    if not values:
        raise ValueError("the node has no address")
    return tuple(_address(value) for value in values)


def _network(value: Any) -> str:
    ipaddress.ip_network(_text(value))
    return str(value)


def _prefixes(values: Any) -> tuple[str, ...]:
    # The kernel reads them in full: there are thousands, and they only must not be words of a command.
    if not all(re.fullmatch(_PREFIX_PATTERN, _text(value)) for value in values):
        raise ValueError("a prefix is none")
    return tuple(values)


def _device(value: Any) -> str:
    # The node uses it as the name of a file, too.
    if not re.fullmatch(_DEVICE_PATTERN, _text(value)):
        raise ValueError(f"{value!r} is no name of an interface")
    return str(value)


def _interface(raw: Mapping[str, Any]) -> Interface:
    return Interface(
        name=_device(raw["name"]),
        kind=Kind(raw["kind"]),
        listen_port=_number(raw["listen_port"], 0, _MAX_16_BITS),
        peers=tuple(
            Peer(
                node=_text(p["node"]),
                address=_address(p["address"]),
                public_key=_text(p["public_key"]),
                endpoint=None if p["endpoint"] is None else _text(p["endpoint"]),
                keepalive=_number(p["keepalive"], 0, _MAX_16_BITS),
                allowed_ips=_prefixes(p["allowed_ips"]),
                next_key=_optional(p.get("next_key")),
                other_endpoints=_texts(p.get("other_endpoints", ())),
                other_addresses=tuple(_address(each) for each in p.get("other_addresses", ())),
                psk_ids=tuple(_psk_id(name) for name in p.get("psk_ids", ())),
            )
            for p in raw["peers"]
        ),
    )


def _route(raw: Mapping[str, Any]) -> Route:
    from_trunk = raw["from_trunk"]
    return Route(
        prefixes=_prefixes(raw["prefixes"]),
        via=_texts(raw["via"]),
        detour=bool(raw["detour"]),
        from_trunk=None if from_trunk is None else _texts(from_trunk),
    )
