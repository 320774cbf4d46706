"""The texts of iproute2: parse the output of ``ip -json``, and make lines for ``ip -batch``.

Any program of the node may make routes, rules and devices of any form. An entry that this module cannot read is none of
this program's own, and is left out. Only a text that is no list in JSON is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any, TypeVar

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device.state import MAIN_TABLE, RouteEntry, RuleEntry
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.addresses import address_family, host_prefixes

Entry = Mapping[str, Any]
T = TypeVar("T")

_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"\s*")
_PREFIX = re.compile(r"(\d{1,3}(\.\d{1,3}){3}(/\d{1,2})?|[0-9a-f]*:[0-9a-f:.]*(/\d{1,3})?)", re.ASCII)
_DEVICE = re.compile(r"[^\s/]{1,15}")
_TYPES = {"1": "unicast", "6": "blackhole", "7": "unreachable", "8": "prohibit", "9": "throw"}
"""Types of routes as ``ip -N`` prints them in some versions (RTN_UNICAST and others of <linux/rtnetlink.h>)."""
_ROUTE_DETAILS = ("gateway", "via", "nexthops", "nhid", "encap", "from", "tos")
_DEFAULT_METRIC_6 = 1024
"""The metric of an IPv6 route that is made without one (IP6_RT_PRIO_USER of <linux/ipv6_route.h>)."""
_SELECTORS = frozenset(
    (
        "srclen",
        "dst",
        "dstlen",
        "tos",
        "dsfield",
        "fwmark",
        "fwmask",
        "oif",
        "uid_start",
        "ipproto",
        "sport",
        "sport_start",
        "dport",
        "dport_start",
        "tun_id",
        "flowlabel",
        "l3mdev",
        "goto",
        "action",
        "suppress_prefixlen",
        "suppress_ifgroup",
    )
)
"""Fields that a rule of this program does not have (ip-rule(8))."""


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
    return {link.name: link for link in _all(_link, text)}


def _link(entry: Entry) -> IpLink:
    infos = [info for info in entry.get("addr_info", []) if _is_address(info)]
    addresses = (
        f"{a['local']}/{a['prefixlen']}"
        for a in infos
        # Temporary and deprecated addresses (RFC 8981) go away, and may not be published.
        if a.get("scope") == "global" and not a.get("temporary") and not a.get("deprecated")
    )
    return IpLink(
        name=_device(entry["ifname"]),
        mtu=_integer(entry["mtu"]),
        up="UP" in entry["flags"],
        addresses=tuple(addresses),
        networks=tuple(dict.fromkeys(prefix for a in infos for prefix in _connected(a))),
        kind=_text_or_none(entry.get("linkinfo", {}).get("info_kind")),
        master=_text_or_none(entry.get("master")),
    )


def _is_address(info: Any) -> bool:
    try:
        return bool(_connected(info))
    except _UNREADABLE:
        return False


def _connected(info: Entry) -> tuple[str, ...]:
    """Return the prefixes for which the kernel makes routes of one address."""
    local, length = _text(info["local"]), _integer(info["prefixlen"])
    own = str(ip_interface(f"{local}/{length}").network)
    if "address" not in info:
        return (own,)
    # On a point-to-point address the length is that of the other end (ip-address(8), "peer").
    peer = ip_interface(f"{_text(info['address'])}/{length}").network
    return str(peer), str(ip_network(local))


def parse_routes(text: str) -> tuple[RouteEntry, ...]:
    """Return this program's routes in ``ip -N -json route show table all proto …``, sorted."""
    return tuple(sorted((route for route in each_route(text) if route), key=lambda route: route.key))


def each_route(text: str) -> Iterator[RouteEntry | None]:
    """Yield the routes that ``parse_routes`` returns, one by one and unsorted; None for each that is left out.

    Another program may use this program's route protocol too. Its routes of a form that this program never makes are
    left out.
    """
    return _each(_route, text)


def _route(entry: Entry) -> RouteEntry | None:
    if not _has_own_form(entry):
        return None
    return RouteEntry(
        table=_integer(entry.get("table", MAIN_TABLE)),
        prefix=_prefix(entry),
        # IPv6 shows unreachable routes on "lo".
        device=None if _type(entry) == "unreachable" else _device(entry["dev"]),
        source=_text_or_none(entry.get("prefsrc")),
    )


def _has_own_form(entry: Entry) -> bool:
    """Return whether this program makes routes like *entry*: over one device or unreachable, and without more."""
    if _type(entry) not in ("unicast", "unreachable") or any(name in entry for name in _ROUTE_DETAILS):
        return False
    return entry.get("metric", 0) in ((0, _DEFAULT_METRIC_6) if _family(entry) == 6 else (0,))


def _type(entry: Entry) -> str:
    kind = str(entry.get("type", "unicast"))
    return _TYPES.get(kind, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class MainRoute:
    """A route of the main table, whichever program made it."""

    prefix: str
    device: str | None
    """None: it has no device, or several."""
    by: str
    """Its device, else its type, for a message."""
    is_ours: bool
    """Whether it has the route protocol of this program, and a form that this program makes."""


def each_main_route(text: str) -> Iterator[MainRoute | None]:
    """Yield the routes of the main table in ``ip -N -json route show table all``, of every protocol and metric; None
    for each route of another table."""
    return _each(_main_route, text)


def _main_route(entry: Entry) -> MainRoute | None:
    if "table" in entry:
        return None
    kind = _type(entry)
    # IPv6 shows a route without a device on "lo".
    device = _device(entry["dev"]) if kind == "unicast" and "dev" in entry else None
    return MainRoute(
        prefix=_prefix(entry),
        device=device,
        by=device or ("several devices" if kind == "unicast" else kind),
        is_ours=str(entry.get("protocol")) == str(constants.ROUTE_PROTOCOL) and _has_own_form(entry),
    )


def _prefix(entry: Entry) -> str:
    dst = _text(entry["dst"])
    if dst == "default":
        return "::/0" if _family(entry) == 6 else "0.0.0.0/0"
    if not _PREFIX.fullmatch(dst):
        raise ValueError("no prefix of IPv4 or IPv6")
    return dst if "/" in dst else host_prefixes((dst,))[0]


def parse_rules(text: str, family: int) -> tuple[RuleEntry, ...]:
    """Return this program's rules in ``ip -N -<family> -json rule``, sorted.

    A rule of another program with the same priority is left out if it selects packets by more than the device.
    """
    return tuple(sorted(_all(lambda entry: None if "not" in entry else _rule(entry, family), text)))


def parse_inverted_rules(text: str, family: int) -> frozenset[RuleEntry]:
    """Return the rules that the kernel does not take, since a rule of another program differs by ``not`` alone.

    The kernel compares all else (fib_nl_newrule). *text* is as above.
    """
    return frozenset(_all(lambda entry: _rule(entry, family) if "not" in entry else None, text))


def _rule(entry: Entry, family: int) -> RuleEntry | None:
    if entry["priority"] != constants.RULE_PRIORITY or entry.get("src", "all") != "all" or _SELECTORS & entry.keys():
        return None
    return RuleEntry(family=family, device=_device(entry["iif"]), table=_integer(entry["table"]))


def parse_defaults(text: str) -> tuple[tuple[int, str, str | None], ...]:
    """Return family, device and preferred source of the main table's default routes, IPv4 before IPv6, best first.

    *text* is of ``ip -json route show table all default``: one command for both families.
    """
    routes = _all(_default, text)
    return tuple((family, device, source) for family, _, device, source in sorted(routes, key=lambda r: r[:2]))


def _default(entry: Entry) -> tuple[int, int, str, str | None] | None:
    # Entries without a type are unicast; multipath entries have no single device.
    if "dev" not in entry or "table" in entry or "type" in entry:
        return None
    source = _text_or_none(entry.get("prefsrc"))
    return _family(entry), _integer(entry.get("metric", 0)), _device(entry["dev"]), source


def _family(entry: Entry) -> int:
    # Only IPv6 routes have a router preference (RFC 4191).
    return 6 if "pref" in entry else address_family(f"{entry.get('gateway', '')}{entry['dst']}")


def parse_advertised(text: str) -> tuple[str, ...]:
    """Return the devices whose default route in ``ip -6 -json route show default`` is of router advertisements."""
    devices = _all(lambda entry: _device(entry["dev"]) if entry.get("protocol") == "ra" else None, text)
    return tuple(sorted(set(devices)))


def _all(parse: Callable[[Entry], T | None], text: str) -> Iterator[T]:
    """Yield what *parse* makes of each entry, without None and without the entries that it cannot read."""
    return (parsed for parsed in _each(parse, text) if parsed is not None)


def _each(parse: Callable[[Entry], T | None], text: str) -> Iterator[T | None]:
    """Yield what *parse* makes of each entry, and None for each that it cannot read.

    HostError if *text* is no list in JSON. Entries are read one by one: the watcher looks for packets in between.
    """
    for entry in _entries(text):
        try:
            # Some versions print an empty object for a filtered entry.
            yield parse(entry) if isinstance(entry, dict) and entry else None
        except _UNREADABLE:
            yield None


def _entries(text: str) -> Iterator[Any]:
    at = _skip_space(text, 0)
    # Without entries some versions print no text at all.
    if at == len(text):
        return
    try:
        if text[at] != "[":
            raise ValueError("no list")
        at = _skip_space(text, at + 1)
        if text[at] != "]":
            while True:
                entry, at = _DECODER.raw_decode(text, at)
                yield entry
                at = _skip_space(text, at)
                if text[at] != ",":
                    break
                at = _skip_space(text, at + 1)
        if text[at] != "]" or text[at + 1 :].strip():
            raise ValueError(f"the list ends at character {at}")
    except (ValueError, LookupError, RecursionError) as error:
        raise HostError(f"'ip -json' printed no JSON ({error}): iproute2 of 2019 or newer is needed") from error


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _integer(value: Any) -> int:
    # Some fields are numbers and others are numbers as text. A name, as of a table, is neither.
    if isinstance(value, (int, str)):
        return int(value)
    raise TypeError("no number")


def _device(value: Any) -> str:
    name = _text(value)
    if not _DEVICE.fullmatch(name) or not name.isprintable():
        raise ValueError("no name of a device that can be shown")
    return name


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
