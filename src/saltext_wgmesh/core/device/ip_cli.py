"""The texts of iproute2: parse the output of ``ip -json``, and make lines for ``ip -batch``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device.state import MAIN_TABLE, RouteEntry, RuleEntry
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.addresses import address_family, host_prefixes

_DEFAULT_METRIC = 1024
"""IP6_RT_PRIO_USER of <net/ipv6.h>; IPv4 has 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpLink:
    """A network device of any kind."""

    name: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    """With prefix length, in the kernel's order; only of scope global, without temporary and deprecated ones."""


def parse_links(text: str) -> dict[str, IpLink]:
    """Return the devices of ``ip -json address`` by name."""
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
    )


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


def parse_replaceable(text: str) -> tuple[tuple[str, str], ...]:
    """Return prefix and device (or type) of the routes that a route of this program would replace.

    *text* is of ``ip -json route show table all …``. These routes are in the main table and have the default metric.
    """
    return tuple(
        (_prefix(entry), str(entry.get("dev") or entry.get("type")))
        for entry in _entries(text)
        if "table" not in entry and int(entry.get("metric", 0)) == (_DEFAULT_METRIC if _family(entry) == 6 else 0)
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
    """Return ``route <verb> …`` for *route*; *verb* is ``replace`` or ``del``."""
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
