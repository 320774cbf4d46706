"""iproute2's texts: what ``ip -json`` prints, and the lines that ``ip -batch`` takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core import names
from saltext_wgmesh.core.device import MAIN_TABLE, RouteEntry, RuleEntry
from saltext_wgmesh.core.errors import HostError

_DEFAULT_METRIC = 1024
"""IP6_RT_PRIO_USER of <net/ipv6.h>; IPv4 has 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network device of any kind."""

    name: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    """With prefix length, of scope global only, without temporary and deprecated ones, in the kernel's order."""


def parse_links(text: str) -> dict[str, Link]:
    """The devices of ``ip -json address`` by name."""
    return {entry["ifname"]: _link(entry) for entry in _entries(text)}


def _link(entry: Mapping[str, Any]) -> Link:
    addresses = (
        f"{a['local']}/{a['prefixlen']}"
        for a in entry.get("addr_info", [])
        if a.get("scope") == "global" and "local" in a and not a.get("temporary") and not a.get("deprecated")
    )
    return Link(
        name=entry["ifname"],
        mtu=int(entry["mtu"]),
        up="UP" in entry["flags"],
        addresses=tuple(addresses),
    )


def parse_routes(text: str) -> tuple[RouteEntry, ...]:
    """The routes of ``ip -json route show table all proto …`` (one family or both), sorted."""
    return tuple(sorted((_route(entry) for entry in _entries(text)), key=lambda route: route.place))


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
    """Prefix and device (or kind) of the routes of ``ip -json route show table all …`` that lie in the main table and
    have the priority that a route gets which names none: a route of ours would take the place of such a one."""
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
    return f"{dst}/128" if ":" in dst else f"{dst}/32"


def parse_rules(text: str, family: int) -> tuple[RuleEntry, ...]:
    """Our rules out of ``ip -<family> -json rule``, sorted."""
    return tuple(
        sorted(
            RuleEntry(family=family, device=entry["iif"], table=int(entry["table"]))
            for entry in _entries(text)
            if entry["priority"] == names.RULE_PRIORITY and "iif" in entry and str(entry["table"]).isdecimal()
        )
    )


def parse_defaults(text: str) -> tuple[tuple[int, str, str | None], ...]:
    """Family, device and preferred source of the main table's default routes, IPv4 before IPv6, best first.

    *text* is of ``ip -json route show table all default``: one command for both families.
    """
    found = [
        (_family(entry), int(entry.get("metric", 0)), entry["dev"], entry.get("prefsrc"))
        for entry in _entries(text)
        if "dev" in entry and "table" not in entry and "type" not in entry
    ]
    return tuple((family, device, source) for family, _, device, source in sorted(found, key=lambda f: f[:2]))


def _family(entry: Mapping[str, Any]) -> int:
    # Only IPv6 routes have a router preference (RFC 4191).
    return 6 if "pref" in entry or ":" in f"{entry.get('gateway', '')}{entry['dst']}" else 4


def parse_advertised(text: str) -> tuple[str, ...]:
    """The devices whose default route in ``ip -6 -json route show default`` comes from router advertisements."""
    return tuple(sorted({entry["dev"] for entry in _entries(text) if entry.get("protocol") == "ra" and "dev" in entry}))


def _entries(text: str) -> Iterable[Mapping[str, Any]]:
    try:
        # Nothing to show is no text at all in some versions; some print an empty object for a filtered entry.
        entries = json.loads(text) if text.strip() else []
    except ValueError as error:
        raise HostError(f"'ip -json' printed no JSON ({error}): iproute2 of 2018 or newer is needed") from error
    return [entry for entry in entries if entry]


def route_line(verb: str, route: RouteEntry) -> tuple[str, ...]:
    """``route <verb> …`` for *route*, verb being ``replace`` or ``del``."""
    where = ("dev", route.device) if route.device else ()
    source = ("src", route.source) if route.source and verb != "del" else ()
    table = () if route.table == MAIN_TABLE else ("table", str(route.table))
    kind = () if route.device else ("unreachable",)
    return ("route", verb, *kind, route.prefix, *where, "proto", str(names.ROUTE_PROTOCOL), *source, *table)


def rule_line(verb: str, rule: RuleEntry) -> tuple[str, ...]:
    """``rule <verb> …`` for *rule*, verb being ``add`` or ``del``."""
    return ("rule", verb, "iif", rule.device, "lookup", str(rule.table), "priority", str(names.RULE_PRIORITY))


def address_line(verb: str, device: str, address: str) -> tuple[str, ...]:
    """``address <verb> …``; an address of a point-to-point device has nobody to ask for duplicates."""
    nodad = ("nodad",) if ":" in address and verb == "add" else ()
    return ("address", verb, address, "dev", device, *nodad)
