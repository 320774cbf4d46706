"""iproute2's texts, as iproute2 6.1 printed them (Debian 12), cut to the fields that matter."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core import iptext
from saltext_wgmesh.core.device import RouteEntry, RuleEntry
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


def test_links() -> None:
    """Addresses that last and reach further than the link, in the kernel's order."""
    links = iptext.parse_links(ADDRESSES)
    assert links["lo"].addresses == ()
    assert links["eth0"].addresses == ("192.0.2.9/24", "192.0.2.1/24", "2001:db8::1/64")
    assert (links["eth0"].up, links["wg0"].up, links["wg0"].mtu) == (True, False, 1420)


def test_routes() -> None:
    """Hosts get their prefix length back, and an unreachable route has no device, whatever IPv6 shows."""
    assert iptext.parse_routes(ROUTES) == (
        route("0.0.0.0/0", "wg0"),
        route("10.100.0.7/32", "wg0", "10.100.0.1"),
        route("::/0", "wg0"),
        route("fd00:64::/64", None),
        route("fd00:64::7/128", "wg0", "fd00:64::1"),
        route("10.100.0.0/16", None, table=870028683),
    )


def test_rules() -> None:
    """Only those of our priority that look at where a packet came in."""
    assert iptext.parse_rules(RULES, 6) == (RuleEntry(family=6, device="wg0-t2", table=870028683),)


def test_default_routes() -> None:
    """The best of IPv4 comes first; other tables, several next hops and unreachable ones are left out."""
    text = """[{"dst":"default","gateway":"2001:db8::fe","dev":"eth2","metric":1,"pref":"medium"},
      {"dst":"default","gateway":"192.0.2.254","dev":"eth1","metric":200},
      {"dst":"default","gateway":"192.0.2.254","dev":"eth0","prefsrc":"192.0.2.9","metric":100},
      {"dst":"default","gateway":"192.0.2.254","dev":"eth3","table":"77"},
      {"type":"unreachable","dst":"default","dev":"lo","metric":4294967295,"pref":"medium"},
      {"dst":"default","metric":50,"nexthops":[]}]"""
    assert iptext.parse_defaults(text) == ((4, "eth0", "192.0.2.9"), (4, "eth1", None), (6, "eth2", None))


def test_routes_whose_place_one_of_ours_would_take() -> None:
    """Those of the main table without a priority of their own; of IPv6 that is 1024."""
    text = """[{"dst":"10.1.0.0/16","gateway":"192.0.2.254","dev":"eth1"},
      {"dst":"10.2.0.0/16","dev":"eth1","metric":100},
      {"dst":"10.3.0.0/16","dev":"eth1","table":"77"},
      {"type":"blackhole","dst":"10.4.0.1"},
      {"dst":"fd00:1::/64","dev":"eth2","metric":1024,"pref":"medium"},
      {"dst":"fd00:2::/64","dev":"eth2","metric":256}]"""
    assert iptext.parse_replaceable(text) == (
        ("10.1.0.0/16", "eth1"),
        ("10.4.0.1/32", "blackhole"),
        ("fd00:1::/64", "eth2"),
    )


def test_advertised_default_routes() -> None:
    """The devices whose router advertised itself."""
    text = """[{"dst":"default","dev":"eth1","protocol":"ra"},{"dst":"default","dev":"eth0","protocol":"static"}]"""
    assert iptext.parse_advertised(text) == ("eth1",)


@pytest.mark.parametrize("text", ["", "\n", "[]", "[{}]"])
def test_nothing_to_show(text: str) -> None:
    """iproute2 has several ways to print nothing."""
    assert iptext.parse_routes(text) == ()
    assert iptext.parse_links(text) == {}


def test_no_json() -> None:
    """An iproute2 without JSON is told by name."""
    with pytest.raises(HostError, match="iproute2 of 2018 or newer is needed"):
        iptext.parse_links("1: lo: <LOOPBACK,UP>")


@pytest.mark.parametrize(
    ("verb", "entry", "line"),
    [
        ("replace", route("10.0.0.0/8", "wg0", "10.1.1.1"), "route replace 10.0.0.0/8 dev wg0 proto 87 src 10.1.1.1"),
        ("del", route("10.0.0.0/8", "wg0", "10.1.1.1"), "route del 10.0.0.0/8 dev wg0 proto 87"),
        ("replace", route("fd00::/8", None, table=7), "route replace unreachable fd00::/8 proto 87 table 7"),
    ],
)
def test_route_lines(verb: str, entry: RouteEntry, line: str) -> None:
    """The main table needs no word; a route is deleted by its place, not by its source."""
    assert " ".join(iptext.route_line(verb, entry)) == line


def test_other_lines() -> None:
    """Rules stand before the main table; IPv6 addresses need no search for duplicates on these devices."""
    rule = RuleEntry(family=4, device="wg0-t2", table=7)
    assert " ".join(iptext.rule_line("add", rule)) == "rule add iif wg0-t2 lookup 7 priority 8700"
    assert " ".join(iptext.address_line("add", "wg0", "fd00::1/128")) == "address add fd00::1/128 dev wg0 nodad"
    assert " ".join(iptext.address_line("del", "wg0", "fd00::1/128")) == "address del fd00::1/128 dev wg0"
