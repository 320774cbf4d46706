"""What this node's kernel holds now."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from saltext_wgmesh.core import names
from saltext_wgmesh.core.device import MAIN_TABLE, Device, NodeState, PeerStats, RouteEntry, RuleEntry
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.iptext import Link, parse_advertised, parse_links, parse_replaceable, parse_routes, parse_rules
from saltext_wgmesh.core.wgtext import Dumped, parse_dump
from saltext_wgmesh.minion.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at the whole node, of all meshes; three to five short commands."""

    links: dict[str, Link]
    wireguard: dict[str, Dumped]
    """May hold devices of other network namespaces: userspace sockets lie in the file system."""
    routes: tuple[RouteEntry, ...]
    """All of our protocol."""
    rules: tuple[RuleEntry, ...]
    """All of our priority; none if they were not asked for."""

    def stats(self, devices: Iterable[str]) -> tuple[PeerStats, ...]:
        """The counters of the peers of *devices*."""
        return tuple(s for d in devices if d in self.links and d in self.wireguard for s in self.wireguard[d].stats)


def snapshot(host: Host, *, rules: bool = True) -> Snapshot:
    """The node as it is now; *rules* False saves two commands where there can be none."""
    families = ((4, 6) if host.has_ipv6 else (4,)) if rules else ()
    return Snapshot(
        links=parse_links(host.run("ip", "-json", "address")),
        wireguard=parse_dump(host.run("wg", "show", "all", "dump")),
        routes=parse_routes(
            host.run("ip", "-json", "route", "show", "table", "all", "proto", str(names.ROUTE_PROTOCOL))
        ),
        rules=tuple(
            rule
            for family in families
            for rule in parse_rules(
                host.run("ip", f"-{family}", "-json", "rule", "show", "priority", str(names.RULE_PRIORITY)), family
            )
        ),
    )


def routed(host: Host) -> dict[str, str]:
    """Prefix → device, of the routes in the main table that people made and that ours would take the place of."""
    made = [host.run("ip", "-json", "route", "show", "table", "all", "proto", proto) for proto in ("boot", "static")]
    return {prefix: device for text in made for prefix, device in parse_replaceable(text)}


def running_keys(host: Host, interfaces: Collection[str]) -> frozenset[str]:
    """The public keys that those of *interfaces* run that are there."""
    if not interfaces:
        return frozenset()
    devices = parse_dump(host.run("wg", "show", "all", "dump"))
    return frozenset(d.public_key for name, d in devices.items() if name in interfaces and d.public_key)


def advertised(host: Host) -> tuple[str, ...]:
    """The devices by which the kernel itself took an IPv6 default route from a router's advertisements."""
    if not host.has_ipv6:
        return ()
    devices = parse_advertised(host.run("ip", "-6", "-json", "route", "show", "default"))
    return tuple(d for d in devices if host.sysctl(f"net/ipv6/conf/{d}/accept_ra") not in (None, "0"))


def live(
    host: Host,
    seen: Snapshot,
    mesh: str,
    interfaces: Collection[str],
    prefixes: Collection[str],
    sysctls: Iterable[str],
) -> NodeState:
    """The part of *seen* that is *mesh*'s: its *interfaces* with what runs over them, its table, and the
    unreachable routes for its *prefixes*; and the kernel settings *sysctls*."""
    table = names.trunk_table(mesh)
    present = sorted(name for name in interfaces if name in seen.links)
    values = ((key, host.sysctl(key)) for key in sysctls)
    return NodeState(
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
            f"{name} exists but 'wg' does not know it: it is no WireGuard device, or its wireguard-go is gone; "
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
