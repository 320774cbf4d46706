"""A network as data: segments, and machines with their addresses, routes and filters."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An interface on a segment. A machine's ports are named eth0, eth1, … in order."""

    segment: str
    addresses: tuple[str, ...]
    """With prefix length, as in ``10.1.1.5/24``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nat:
    """Address translation and filters of a router at the edge of a site."""

    outside: str
    """The interface towards other sites. Unsolicited packets to the router itself are dropped there."""
    hidden: tuple[str, ...]
    """Prefixes that are masqueraded on the way out. Machines outside cannot open connections into them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """One machine."""

    name: str
    ports: tuple[Port, ...]
    gateway: str | None = None
    """The next hop of the default route."""
    routes: tuple[tuple[str, str], ...] = ()
    """Further routes: prefix and next hop."""
    forward: bool = False
    nat: Nat | None = None

    @property
    def address(self) -> str:
        """The first address of the first port, without prefix length."""
        return str(ip_interface(self.ports[0].addresses[0]).ip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A whole network. Segments are those that the ports name."""

    machines: tuple[MachineSpec, ...]
    master: str
    """The machine of the salt-master."""
    minions: tuple[str, ...]
    """The machines with a salt-minion: its id is the machine's name."""

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments, sorted."""
        return tuple(sorted({port.segment for machine in self.machines for port in machine.ports}))

    def machine(self, name: str) -> MachineSpec:
        """Return the machine of that name."""
        return next(m for m in self.machines if m.name == name)


def host(name: str, segment: str, address: str, gateway: str | None = None) -> MachineSpec:
    """Return a machine with one port that forwards nothing."""
    return MachineSpec(name=name, ports=(Port(segment=segment, addresses=(address,)),), gateway=gateway)


def nat_rules(nat: Nat) -> str:
    """Return the nftables ruleset of a router at the edge of a site."""
    hidden = ", ".join(nat.hidden)
    return f"""
table ip lab {{
    chain passing {{
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        iifname "{nat.outside}" ip daddr {{ {hidden} }} counter drop
    }}
    chain incoming {{
        type filter hook input priority filter; policy accept;
        ct state established,related accept
        iifname "{nat.outside}" meta l4proto {{ tcp, udp }} counter drop
    }}
    chain outgoing {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{nat.outside}" ip saddr {{ {hidden} }} masquerade
    }}
}}
"""
