"""The texts of iproute2: parse the output of ``ip -json``, and make lines for ``ip -batch``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device.state import MAIN_TABLE, RouteEntry, RuleEntry
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.addresses import address_family, host_prefixes


@dataclass(frozen=True, slots=True, kw_only=True)
class IpLink:
    """A network device of any kind."""

    name: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    """With prefix length, in the kernel's order; only of scope global, without temporary and deprecated ones."""
    networks: tuple[str, ...] = ()
    """The prefixes of all its addresses, of any scope and age: the kernel has a route for each."""
    kind: str | None = None
    """The kernel's type of a virtual device, such as ``bridge``; None: hardware, or not asked for."""
    master: str | None = None
    """The bridge or bond of which the device is a port."""


def parse_links(text: str) -> dict[str, IpLink]:
    """Return the devices of ``ip -json address`` by name; only with ``-details`` they have a kind."""
    return {entry["ifname"]: _link(entry) for entry in _entries(text)}


def _link(entry: Mapping[str, Any]) -> IpLink:
    addresses = (
        f"{a['local']}/{a['prefixlen']}"
        for a in entry.get("addr_info", [])
        # Temporary and deprecated addresses (RFC 8981) go away, and may not be published.
        if a.get("scope") == "global" and "local" in a and not a.get("temporary") and not a.get("deprecated")
    )
    return IpLink(
        name=entry["ifname"],
        mtu=int(entry["mtu"]),
        up="UP" in entry["flags"],
        addresses=tuple(addresses),
        networks=tuple(dict.fromkeys(prefix for a in entry.get("addr_info", []) for prefix in _connected(a))),
        kind=entry.get("linkinfo", {}).get("info_kind"),
        master=entry.get("master"),
    )


def _connected(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the prefixes for which the kernel makes routes of one address."""
    if "local" not in info:
        return ()
    if "address" not in info:
        return (str(ip_interface(f"{info['local']}/{info['prefixlen']}").network),)
    # On a point-to-point address the length is that of the other end (ip-address(8), "peer").
    peer = ip_interface(f"{info['address']}/{info['prefixlen']}").network
    return str(peer), str(ip_network(info["local"]))


def parse_routes(text: str) -> tuple[RouteEntry, ...]:
    """Return the routes of ``ip -json route show table all proto …`` (one family or both), sorted."""
    return tuple(sorted(each_route(text), key=lambda route: route.key))


def each_route(text: str) -> Iterator[RouteEntry]:
    """Yield the routes that ``parse_routes`` returns, one by one and unsorted."""
    return (_route(entry) for entry in _entries(text))


def _route(entry: Mapping[str, Any]) -> RouteEntry:
    table = entry.get("table", "main")
    return RouteEntry(
        table=MAIN_TABLE if table == "main" else int(table),
        prefix=_prefix(entry),
        # IPv6 shows unreachable routes on "lo".
        device=None if entry.get("type") == "unreachable" else entry["dev"],
        source=entry.get("prefsrc"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MainRoute:
    """A route of the main table, whichever program made it."""

    prefix: str
    device: str | None
    """None: it has no device, or several."""
    by: str
    """Its device, else its type, for a message."""
    is_ours: bool
    """Whether it has the route protocol of this program."""


def each_main_route(text: str) -> Iterator[MainRoute]:
    """Yield the routes of the main table in ``ip -json route show table all``, of every protocol and metric."""
    return (_main_route(entry) for entry in _entries(text) if "table" not in entry)


def _main_route(entry: Mapping[str, Any]) -> MainRoute:
    kind = str(entry.get("type", "unicast"))
    # IPv6 shows a route without a device on "lo".
    device = entry.get("dev") if kind == "unicast" else None
    return MainRoute(
        prefix=_prefix(entry),
        device=device,
        by=str(device or ("several devices" if kind == "unicast" else kind)),
        is_ours=str(entry.get("protocol")) == str(constants.ROUTE_PROTOCOL),
    )


def _prefix(entry: Mapping[str, Any]) -> str:
    dst = str(entry["dst"])
    if dst == "default":
        return "::/0" if _family(entry) == 6 else "0.0.0.0/0"
    if "/" in dst:
        return dst
    return host_prefixes((dst,))[0]


def parse_rules(text: str, family: int) -> tuple[RuleEntry, ...]:
    """Return this program's rules in ``ip -<family> -json rule``, sorted."""
    return tuple(
        sorted(
            RuleEntry(family=family, device=entry["iif"], table=int(entry["table"]))
            for entry in _entries(text)
            if entry["priority"] == constants.RULE_PRIORITY and "iif" in entry and str(entry["table"]).isdecimal()
        )
    )


def parse_defaults(text: str) -> tuple[tuple[int, str, str | None], ...]:
    """Return family, device and preferred source of the main table's default routes, IPv4 before IPv6, best first.

    *text* is of ``ip -json route show table all default``: one command for both families.
    """
    routes = [
        (_family(entry), int(entry.get("metric", 0)), entry["dev"], entry.get("prefsrc"))
        for entry in _entries(text)
        # Entries without a type are unicast; multipath entries have no single device.
        if "dev" in entry and "table" not in entry and "type" not in entry
    ]
    return tuple((family, device, source) for family, _, device, source in sorted(routes, key=lambda r: r[:2]))


def _family(entry: Mapping[str, Any]) -> int:
    # Only IPv6 routes have a router preference (RFC 4191).
    return 6 if "pref" in entry else address_family(f"{entry.get('gateway', '')}{entry['dst']}")


def parse_advertised(text: str) -> tuple[str, ...]:
    """Return the devices whose default route in ``ip -6 -json route show default`` is of router advertisements."""
    return tuple(sorted({entry["dev"] for entry in _entries(text) if entry.get("protocol") == "ra" and "dev" in entry}))


def _entries(text: str) -> Iterable[Mapping[str, Any]]:
    try:
        # Without entries some versions print no text at all; some print an empty object for a filtered entry.
        entries = json.loads(text) if text.strip() else []
    except ValueError as error:
        raise HostError(f"'ip -json' printed no JSON ({error}): iproute2 of 2018 or newer is needed") from error
    return filter(None, entries)


def route_line(verb: str, route: RouteEntry) -> tuple[str, ...]:
    """Return ``route <verb> …`` for *route*; *verb* is ``add``, ``replace`` or ``del``."""
    device = ("dev", route.device) if route.device else ()
    source = ("src", route.source) if route.source and verb != "del" else ()
    table = () if route.table == MAIN_TABLE else ("table", str(route.table))
    kind = () if route.device else ("unreachable",)
    return ("route", verb, *kind, route.prefix, *device, "proto", str(constants.ROUTE_PROTOCOL), *source, *table)


def rule_line(verb: str, rule: RuleEntry) -> tuple[str, ...]:
    """Return ``rule <verb> …`` for *rule*; *verb* is ``add`` or ``del``."""
    return ("rule", verb, "iif", rule.device, "lookup", str(rule.table), "priority", str(constants.RULE_PRIORITY))


def address_line(verb: str, device: str, address: str) -> tuple[str, ...]:
    """Return ``address <verb> …``, without duplicate address detection: a point-to-point device can't do it."""
    nodad = ("nodad",) if verb == "add" and address_family(address) == 6 else ()
    return ("address", verb, address, "dev", device, *nodad)
