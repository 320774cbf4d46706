"""The texts of iproute2, as version 6.1 of Debian 12 prints them, reduced to the fields that matter."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.device import ip_cli
from saltext_wgmesh.core.device.state import RouteEntry, RuleEntry
from saltext_wgmesh.core.errors import HostError

ADDRESSES = """[
{"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"addr_info":[
  {"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"},
  {"family":"inet6","local":"::1","prefixlen":128,"scope":"host"}]},
{"ifname":"eth0","flags":["BROADCAST","UP"],"mtu":1500,"addr_info":[
  {"family":"inet","local":"192.0.2.9","prefixlen":24,"scope":"global"},
  {"family":"inet","local":"192.0.2.1","prefixlen":24,"scope":"global"},
  {"family":"inet6","local":"2001:db8::a","prefixlen":64,"scope":"global","temporary":true},
  {"family":"inet6","local":"2001:db8::b","prefixlen":64,"scope":"global","deprecated":true},
  {"family":"inet6","local":"2001:db8::1","prefixlen":64,"scope":"global"},
  {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]},
{},
{"ifname":"wg0","flags":["POINTOPOINT"],"mtu":1420,"addr_info":[]}]"""

ROUTES = """[
{"type":"unreachable","dst":"10.100.0.0/16","table":"870028683","flags":[]},
{"dst":"10.100.0.7","dev":"wg0","scope":"link","prefsrc":"10.100.0.1","flags":[]},
{"dst":"default","dev":"wg0","scope":"link","flags":[]},
{"dst":"fd00:64::7","dev":"wg0","prefsrc":"fd00:64::1","metric":1024,"flags":[],"pref":"medium"},
{"type":"unreachable","dst":"fd00:64::/64","dev":"lo","metric":1024,"flags":[],"pref":"medium"},
{"dst":"default","dev":"wg0","metric":1024,"flags":[],"pref":"medium"}]"""

RULES = """[
{"priority":0,"src":"all","table":"local"},
{"priority":8700,"src":"all","iif":"wg0-t2","table":"870028683"},
{"priority":8700,"src":"all","table":"main"},
{"priority":8701,"src":"all","iif":"wg0-t2","table":"870028683"}]"""


def route(prefix: str, device: str | None, source: str | None = None, table: int = 254) -> RouteEntry:
    return RouteEntry(table=table, prefix=prefix, device=device, source=source)


def test_parse_links_keeps_permanent_global_addresses() -> None:
    """Temporary, deprecated and link-local addresses are left out; the order is the kernel's."""
    links = ip_cli.parse_links(ADDRESSES)
    assert links["lo"].addresses == ()
    assert links["eth0"].addresses == ("192.0.2.9/24", "192.0.2.1/24", "2001:db8::1/64")
    assert links["eth0"].up
    assert not links["wg0"].up
    assert links["wg0"].mtu == 1420


def test_parse_routes_completes_prefixes() -> None:
    """Hosts get their prefix length, and an unreachable route has no device, although IPv6 prints "lo"."""
    assert ip_cli.parse_routes(ROUTES) == (
        route("0.0.0.0/0", "wg0"),
        route("10.100.0.7/32", "wg0", "10.100.0.1"),
        route("::/0", "wg0"),
        route("fd00:64::/64", None),
        route("fd00:64::7/128", "wg0", "fd00:64::1"),
        route("10.100.0.0/16", None, table=870028683),
    )


def test_parse_rules_keeps_own_priority() -> None:
    """Only rules of the program's priority that match the incoming interface are returned."""
    assert ip_cli.parse_rules(RULES, 6) == (RuleEntry(family=6, device="wg0-t2", table=870028683),)


def test_parse_defaults_best_ipv4_first() -> None:
    """Routes of other tables, with several next hops and unreachable ones are left out."""
    text = """[{"dst":"default","gateway":"2001:db8::fe","dev":"eth2","metric":1,"pref":"medium"},
      {"dst":"default","gateway":"192.0.2.254","dev":"eth1","metric":200},
      {"dst":"default","gateway":"192.0.2.254","dev":"eth0","prefsrc":"192.0.2.9","metric":100},
      {"dst":"default","gateway":"192.0.2.254","dev":"eth3","table":"77"},
      {"type":"unreachable","dst":"default","dev":"lo","metric":4294967295,"pref":"medium"},
      {"dst":"default","metric":50,"nexthops":[]}]"""
    assert ip_cli.parse_defaults(text) == ((4, "eth0", "192.0.2.9"), (4, "eth1", None), (6, "eth2", None))


def test_main_routes_keep_every_metric_and_protocol() -> None:
    """Routes of the main table are returned, whichever program made them, with the device or the type."""
    text = """[{"dst":"10.1.0.0/16","gateway":"192.0.2.254","dev":"eth1"},
      {"dst":"10.2.0.0/16","dev":"eth1","protocol":"kernel","scope":"link","metric":100},
      {"dst":"10.3.0.0/16","dev":"eth1","table":"77"},
      {"type":"blackhole","dst":"10.4.0.1"},
      {"dst":"10.5.0.0/16","dev":"wg0","protocol":"87"},
      {"type":"unreachable","dst":"fd00:1::/64","dev":"lo","metric":1024,"pref":"medium"},
      {"dst":"fd00:2::/64","metric":256,"nexthops":[]}]"""
    assert [(r.prefix, r.device, r.by, r.is_ours) for r in ip_cli.each_main_route(text) if r] == [
        ("10.1.0.0/16", "eth1", "eth1", False),
        ("10.2.0.0/16", "eth1", "eth1", False),
        ("10.4.0.1/32", None, "blackhole", False),
        ("10.5.0.0/16", "wg0", "wg0", True),
        ("fd00:1::/64", None, "unreachable", False),
        ("fd00:2::/64", None, "several devices", False),
    ]


def test_parse_links_has_networks_of_all_addresses() -> None:
    """The kernel has a route for each: of another scope, deprecated, or of the other end of a point-to-point link."""
    text = """[{"ifname":"eth0","flags":["UP"],"mtu":1500,"master":"br0","linkinfo":{"info_kind":"veth"},"addr_info":[
      {"local":"192.0.2.9","prefixlen":24,"scope":"global"},
      {"local":"10.5.0.1","prefixlen":16,"scope":"link"},
      {"local":"2001:db8::1","prefixlen":64,"scope":"global","deprecated":true},
      {"local":"10.9.0.1","address":"10.8.0.0","prefixlen":24,"scope":"global"}]}]"""
    link = ip_cli.parse_links(text)["eth0"]
    assert (link.kind, link.master) == ("veth", "br0")
    assert link.networks == ("192.0.2.0/24", "10.5.0.0/16", "2001:db8::/64", "10.8.0.0/24", "10.9.0.1/32")


def test_parse_advertised_keeps_router_advertisements() -> None:
    """The devices with a default route of router advertisements are returned."""
    text = """[{"dst":"default","dev":"eth1","protocol":"ra"},{"dst":"default","dev":"eth0","protocol":"static"}]"""
    assert ip_cli.parse_advertised(text) == ("eth1",)


@pytest.mark.parametrize("text", ["", "\n", "[]", "[{}]"])
def test_parse_empty_output_has_no_entries(text: str) -> None:
    """iproute2 has several ways to print an empty list."""
    assert ip_cli.parse_routes(text) == ()
    assert ip_cli.parse_links(text) == {}


def test_parse_without_json_raises_host_error() -> None:
    """The error names iproute2 if it has no JSON output."""
    with pytest.raises(HostError, match="iproute2 of 2019 or newer is needed"):
        ip_cli.parse_links("1: lo: <LOOPBACK,UP>")


@pytest.mark.parametrize(
    ("verb", "entry", "line"),
    [
        ("replace", route("10.0.0.0/8", "wg0", "10.1.1.1"), "route replace 10.0.0.0/8 dev wg0 proto 87 src 10.1.1.1"),
        ("del", route("10.0.0.0/8", "wg0", "10.1.1.1"), "route del 10.0.0.0/8 dev wg0 proto 87"),
        ("replace", route("fd00::/8", None, table=7), "route replace unreachable fd00::/8 proto 87 table 7"),
    ],
)
def test_route_line_omits_main_table(verb: str, entry: RouteEntry, line: str) -> None:
    """The main table is the default; a route is deleted by table and prefix, without its source."""
    assert " ".join(ip_cli.route_line(verb, entry)) == line


def test_rule_and_address_lines() -> None:
    """Rules come before the main table; IPv6 addresses get no duplicate address detection."""
    rule = RuleEntry(family=4, device="wg0-t2", table=7)
    assert " ".join(ip_cli.rule_line("add", rule)) == "rule add iif wg0-t2 lookup 7 priority 8700"
    assert " ".join(ip_cli.address_line("add", "wg0", "fd00::1/128")) == "address add fd00::1/128 dev wg0 nodad"
    assert " ".join(ip_cli.address_line("del", "wg0", "fd00::1/128")) == "address del fd00::1/128 dev wg0"
