"""The state of a mesh in one node's kernel: live and desired state have the same types.

Statistics (``PeerStats``) are apart from configuration (``PeerConfig``), so that no counter takes part in a
comparison. No type here can hold a private or a preshared key.
"""

from __future__ import annotations

from dataclasses import dataclass

from saltext_wgmesh.core.model.addresses import address_family

MAIN_TABLE = 254
"""RT_TABLE_MAIN of <linux/rtnetlink.h>."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """One peer of a device, as configured."""

    public_key: str
    endpoint: str | None
    """``host:port``. None in a live device: it has none yet; in a desired one: any endpoint is right."""
    keepalive: int
    """Seconds; 0 is off."""
    allowed_ips: tuple[str, ...]
    """Canonical prefixes, sorted as text."""
    psk_id: str | None = None
    """The identifier of its preshared key (``core.keys.psk``); None: it has no preshared key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One WireGuard device with its addresses."""

    name: str
    public_key: str
    """Empty: it has no key yet."""
    listen_port: int
    """In a desired device 0 means any."""
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    """With prefix length; without link-local addresses, which the kernel assigns by itself."""
    peers: tuple[PeerConfig, ...]
    """In order of their public keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStats:
    """The counters of a live peer. Never part of a comparison."""

    device: str
    public_key: str
    endpoint: str | None
    """The source of its last valid packet, or the last one that was set."""
    handshake_at: int | None
    """Seconds since the epoch; None: never."""
    received: int
    """Bytes."""
    sent: int
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEntry:
    """One route of this program in the kernel."""

    table: int
    prefix: str
    device: str | None
    """None: unreachable."""
    source: str | None
    """The source address of the node's own packets; None: the kernel chooses."""

    @property
    def key(self) -> tuple[int, str]:
        """Table and prefix, which identify a route of this program."""
        return self.table, self.prefix

    @property
    def family(self) -> int:
        """4 or 6."""
        return address_family(self.prefix)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RuleEntry:
    """A policy rule: packets that came in by *device* are looked up in *table*."""

    family: int
    """4 or 6."""
    device: str
    table: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelState:
    """The whole state of a mesh in one node's kernel, live or desired."""

    devices: tuple[Device, ...] = ()
    """In order of their names."""
    routes: tuple[RouteEntry, ...] = ()
    rules: tuple[RuleEntry, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    """Path below /proc/sys and value. In a live state only those that exist."""
