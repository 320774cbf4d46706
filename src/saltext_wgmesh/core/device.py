"""What a node's kernel holds of a mesh, as values: what is and what should be, in the same types.

Statistics (``PeerStats``) stand apart from configuration (``PeerConfig``), so that a comparison can't trip over a
counter. No type here can hold a private or a preshared key.
"""

from __future__ import annotations

from dataclasses import dataclass

MAIN_TABLE = 254
"""RT_TABLE_MAIN of <linux/rtnetlink.h>."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """One peer of a device, as configured."""

    public_key: str
    endpoint: str | None
    """``host:port``. None in a live device: it has none yet; in a wanted one: whatever it has is right."""
    keepalive: int
    """Seconds; 0 is off."""
    allowed_ips: tuple[str, ...]
    """Canonical prefixes, sorted as text."""
    preshared: str | None = None
    """The identifier of its preshared key (``core.preshared``); None: it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One WireGuard device with its addresses."""

    name: str
    public_key: str
    """Empty: it has no key yet."""
    listen_port: int
    """In a wanted device 0 means any."""
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    """With prefix length; link-local ones are the kernel's own and don't appear."""
    peers: tuple[PeerConfig, ...]
    """In order of their public keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStats:
    """What a live peer counted. Never part of a comparison."""

    device: str
    public_key: str
    endpoint: str | None
    """Where it was last heard, or last set to."""
    handshake_at: int | None
    """Seconds since the epoch; None: never."""
    received: int
    """Bytes."""
    sent: int
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEntry:
    """One route of ours in the kernel."""

    table: int
    prefix: str
    device: str | None
    """None: unreachable."""
    source: str | None
    """The address that the node's own packets get; None: the kernel's choice."""

    @property
    def place(self) -> tuple[int, str]:
        """What at most one route of ours has."""
        return self.table, self.prefix

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.prefix)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RuleEntry:
    """Packets that came in by *device* are looked up in *table*."""

    family: int
    """4 or 6."""
    device: str
    table: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """All that a mesh has in one node's kernel, live or wanted."""

    devices: tuple[Device, ...] = ()
    """In order of their names."""
    routes: tuple[RouteEntry, ...] = ()
    rules: tuple[RuleEntry, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    """Path below /proc/sys and value. In a live state only those that exist."""


def family_of(address: str) -> int:
    """4 or 6, for an address or a prefix."""
    return 6 if ":" in address else 4
