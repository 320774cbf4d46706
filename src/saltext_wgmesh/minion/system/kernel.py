"""The present state of this node's kernel: devices, peers, addresses, routes, rules and settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device.ip_cli import (
    IpLink,
    MainRoute,
    each_main_route,
    parse_advertised,
    parse_inverted_rules,
    parse_links,
    parse_routes,
    parse_rules,
)
from saltext_wgmesh.core.device.state import MAIN_TABLE, Device, KernelState, PeerStats, RouteEntry, RuleEntry
from saltext_wgmesh.core.device.wg_cli import Dumped, parse_dump
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.system.host import Host

ALL_ROUTES = ("ip", "-N", "-json", "route", "show", "table", "all")
"""Lists the routes of both families, of every program. ``-N``: an administrator may have named a table or protocol."""
OWN_ROUTES = (*ALL_ROUTES, "proto", str(constants.ROUTE_PROTOCOL))
"""Lists those with this program's protocol."""


def own_rules(family: int) -> tuple[str, ...]:
    """Return the command that lists the rules with this program's priority."""
    return ("ip", "-N", f"-{family}", "-json", "rule", "show", "priority", str(constants.RULE_PRIORITY))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole node at one moment, with all its meshes; it costs three to five short commands."""

    links: dict[str, IpLink]
    wireguard: dict[str, Dumped]
    """May hold devices of other network namespaces: sockets of wireguard-go lie in the file system."""
    routes: tuple[RouteEntry, ...]
    """All with our route protocol."""
    rules: tuple[RuleEntry, ...]
    """All with our rule priority; empty if the snapshot was taken without rules."""
    refused_rules: frozenset[RuleEntry] = frozenset()
    """Those that the kernel does not take, because of rules of other programs."""

    def stats(self, devices: Iterable[str]) -> tuple[PeerStats, ...]:
        """Return the counters of the peers of *devices*."""
        return tuple(s for d in devices if d in self.links and d in self.wireguard for s in self.wireguard[d].stats)


def snapshot(host: Host, *, rules: bool = True) -> Snapshot:
    """Return the node as it is now. *rules* False saves two commands where there can be no rules."""
    families = ((4, 6) if host.has_ipv6 else (4,)) if rules else ()
    listed = [(family, host.run(*own_rules(family))) for family in families]
    return Snapshot(
        links=parse_links(host.run("ip", "-json", "address")),
        wireguard=parse_dump(host.run("wg", "show", "all", "dump")),
        routes=parse_routes(host.run(*OWN_ROUTES)),
        rules=tuple(rule for family, text in listed for rule in parse_rules(text, family)),
        refused_rules=frozenset(rule for family, text in listed for rule in parse_inverted_rules(text, family)),
    )


def foreign_routes(host: Host, devices: Collection[str], prefixes: Collection[str]) -> dict[str, str]:
    """Return prefix → device of the routes for *prefixes* in the main table that this program did not make.

    *devices* are the mesh's own: a route by another device is foreign, whichever program made it. The kernel makes one
    for each network of the node. The metric does not matter. With an equal one, a route of the mesh replaces the
    foreign route, and with another one only one of the two has an effect.
    """
    return foreign_among(each_main_route(host.run(*ALL_ROUTES)), devices, prefixes)


def foreign_among(
    routes: Iterable[MainRoute | None], devices: Collection[str], prefixes: Collection[str]
) -> dict[str, str]:
    """Return those of *routes* that ``foreign_routes`` returns: prefix → device."""
    return {
        route.prefix: route.by
        for route in routes
        if route and route.prefix in prefixes and route.device not in devices and not route.is_ours
    }


def running_keys(host: Host, interfaces: Collection[str]) -> frozenset[str]:
    """Return the public keys that *interfaces* run. Interfaces that don't exist are passed over."""
    if not interfaces:
        return frozenset()
    devices = parse_dump(host.run("wg", "show", "all", "dump"))
    return frozenset(d.public_key for name, d in devices.items() if name in interfaces and d.public_key)


def ra_default_devices(host: Host) -> tuple[str, ...]:
    """Return the devices with an IPv6 default route that the kernel took from router advertisements (RFC 4861)."""
    if not host.has_ipv6:
        return ()
    devices = parse_advertised(host.run("ip", "-6", "-json", "route", "show", "default"))
    return tuple(d for d in devices if host.sysctl(f"net/ipv6/conf/{d}/accept_ra") not in (None, "0"))


def mesh_state(
    host: Host,
    seen: Snapshot,
    mesh: str,
    interfaces: Collection[str],
    prefixes: Collection[str],
    sysctls: Iterable[str],
) -> KernelState:
    """Return the part of *seen* that belongs to *mesh*, with the present values of the kernel settings *sysctls*.

    That is its *interfaces*, the routes over them, its routing table with its rules, and the unreachable routes for its
    *prefixes*, which name no interface.
    """
    table = constants.trunk_table(mesh)
    present = sorted(name for name in interfaces if name in seen.links)
    values = ((key, host.sysctl(key)) for key in sysctls)
    return KernelState(
        devices=tuple(_device(seen, name) for name in present),
        routes=tuple(r for r in seen.routes if _is_ours(r, table, interfaces, prefixes)),
        rules=tuple(rule for rule in seen.rules if rule.table == table),
        sysctls=tuple((key, value) for key, value in values if value is not None),
    )


def _is_ours(route: RouteEntry, table: int, interfaces: Collection[str], prefixes: Collection[str]) -> bool:
    if route.table != MAIN_TABLE:
        return route.table == table
    return route.prefix in prefixes if route.device is None else route.device in interfaces


def _device(seen: Snapshot, name: str) -> Device:
    link, wireguard = seen.links[name], seen.wireguard.get(name)
    if wireguard is None:
        raise HostError(
            f"{name} exists but 'wg' does not list it: it is no WireGuard device, or its wireguard-go has ended; "
            f"remove it with 'ip link del {name}' and apply again"
        )
    return Device(
        name=name,
        public_key=wireguard.public_key,
        listen_port=wireguard.listen_port,
        mtu=link.mtu,
        up=link.up,
        addresses=tuple(sorted(link.addresses)),
        peers=wireguard.peers,
    )
