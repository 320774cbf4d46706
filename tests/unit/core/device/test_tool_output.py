"""Whatever ``ip``, ``wg`` and ``nft`` print, a parser of their output returns values or raises its one error.

Other programs of a node make routes, rules and devices of any form, and versions of the tools differ.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device import firewall, ip_cli, notrack, underlay_devices, wg_cli
from saltext_wgmesh.core.device.state import RouteEntry, RuleEntry
from saltext_wgmesh.core.errors import HostError
from tests.nodeviews import key, relay

TABLE = constants.trunk_table("wg0")
OWN_ROUTES = [
    {"dst": "10.100.0.7", "dev": "wg0", "scope": "link", "prefsrc": "10.100.0.1", "flags": []},
    {"type": "unreachable", "dst": "10.100.0.0/16", "table": str(TABLE), "flags": []},
    {"dst": "fd00:64::7", "dev": "wg0", "metric": 1024, "flags": [], "pref": "medium"},
]
OWN_RULE = {"priority": 8700, "src": "all", "iif": "wg0-t2", "table": str(TABLE)}
OWN_LINK = {"ifname": "wg0", "flags": ["UP"], "mtu": 1420, "addr_info": [{"local": "10.1.0.1", "prefixlen": 32}]}

FIELDS = re.findall(
    r"\S+",
    "ifname flags mtu addr_info local prefixlen address scope temporary linkinfo master table type dst dev prefsrc "
    "protocol metric pref gateway via nexthops priority src iif not fwmark action goto chain family name hook policy "
    "nftables",
)
WORDS = re.findall(
    r"\S+",
    "default local unreachable blackhole prohibit unicast 7 main all 10.0.0.0/8 10.0.0.0/33 fd00::1 wg0 lo ra 87 "
    "forward drop ip inet \x1b[2J a/b",
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=8),
    max_leaves=8,
)
ENTRIES = st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=10) | VALUES, max_size=4)
DEEP = "[" * 20_000
TEXTS = (
    st.binary(max_size=60).map(lambda data: data.decode(errors="replace"))
    | st.text(max_size=40)
    | VALUES.map(json.dumps)
    | ENTRIES.map(json.dumps)
    | ENTRIES.map(lambda entries: json.dumps({"nftables": entries}))
    | st.sampled_from([DEEP, f"[{'9' * 5000}]", '[{"mtu": 1e999}]', "null", "7", '"x"', "{}", '{"a": 1}'])
)

PARSERS: dict[str, Callable[[str], object]] = {
    "links": ip_cli.parse_links,
    "routes": ip_cli.parse_routes,
    "main routes": lambda text: list(ip_cli.each_main_route(text)),
    "rules": lambda text: ip_cli.parse_rules(text, 4),
    "defaults": ip_cli.parse_defaults,
    "advertised": ip_cli.parse_advertised,
    "underlay": lambda text: underlay_devices.underlay_devices(ip_cli.parse_links(text), ["eth0"]),
    "dump": wg_cli.parse_dump,
    "chains": lambda text: [firewall.chain_fault(c, relay()) for c in firewall.forward_chains(text)],
    "rules of a chain": firewall.ends_in_drop,
    "rules of iptables-legacy": firewall.legacy_drops,
    "rules of a table": lambda text: firewall.names_mesh(text, relay()),
    "notrack table": lambda text: (notrack.notrack_table(relay()) or pytest.fail("no table")).is_in(text),
}


@pytest.mark.parametrize("parser", PARSERS)
@given(text=TEXTS)
@settings(deadline=None, max_examples=40)
def test_any_text_gives_values_or_error(parser: str, text: str) -> None:
    """No other exception ends the caller; text of ``nft`` that is no listing is a ValueError, as its caller expects."""
    try:
        parsed = PARSERS[parser](text)
    except ValueError:
        assert parser in ("chains", "rules of a chain")
    except HostError:
        assert parser not in ("chains", "notrack table")
        assert not parser.startswith("rules of")
    else:
        hash(repr(parsed))


@given(before=ENTRIES, after=ENTRIES)
@settings(deadline=None, max_examples=40)
def test_foreign_entries_hide_no_own_one(before: list[object], after: list[object]) -> None:
    """What this program made is returned, whatever entries of other programs stand around it."""

    def among(*own: object) -> str:
        return json.dumps([*before, *own, *after])

    own = ip_cli.parse_routes(json.dumps(OWN_ROUTES))
    assert len(own) == 3
    assert set(own) <= set(ip_cli.parse_routes(among(*OWN_ROUTES)))
    rule = RuleEntry(family=4, device="wg0-t2", table=TABLE)
    assert rule in ip_cli.parse_rules(among(OWN_RULE), 4)
    assert "wg0" in ip_cli.parse_links(among(OWN_LINK))


@pytest.mark.parametrize(
    "other",
    [
        {"type": "blackhole", "dst": "10.1.0.0/16"},
        {"type": "prohibit", "dst": "10.1.0.0/16", "table": str(TABLE)},
        {"type": "8", "dst": "10.1.0.0/16"},
        {"type": "throw", "dst": "10.1.0.0/16", "table": "7"},
        {"type": "blackhole", "dst": "fd01::/64", "dev": "lo", "metric": 1024, "pref": "medium"},
        {"dst": "10.1.0.0/16", "dev": "wg0", "table": "vpn"},
        {"dst": "10.1.0.0/16", "nexthops": [{"dev": "eth0"}, {"dev": "wg0"}]},
        {"dst": "10.1.0.0/16", "dev": "wg0", "metric": 5},
        {"dst": "10.1.0.0/16", "dev": "wg0", "tos": "0x04"},
        {"dst": "10.1.0.0/16", "dev": "wg0", "gateway": "10.1.0.1"},
        {"dst": "10.1.0.0/16", "dev": "wg0", "via": {"family": "inet6", "host": "fe80::1"}},
        {"dst": "fd01::/64", "dev": "wg0", "metric": 7, "pref": "medium"},
        {"dst": "100", "dev": "wg0"},
        {"dst": "10.1.0.0/16\nlink del wg0", "dev": "wg0"},
    ],
)
def test_routes_of_other_forms_are_foreign(other: dict[str, object]) -> None:
    """They have the protocol of this program, and this program never makes such routes."""
    assert ip_cli.parse_routes(json.dumps([other, *OWN_ROUTES])) == ip_cli.parse_routes(json.dumps(OWN_ROUTES))
    assert not any(r.is_ours for r in ip_cli.each_main_route(json.dumps([{**other, "protocol": "87"}])))


@pytest.mark.parametrize("unreachable", ["unreachable", "7"])
def test_unreachable_route_is_own_in_words_and_numbers(unreachable: str) -> None:
    """Some versions of ``ip -N`` print types as numbers."""
    text = json.dumps([{"type": unreachable, "dst": "10.1.0.0/16", "protocol": "87"}])
    assert ip_cli.parse_routes(text) == (RouteEntry(table=254, prefix="10.1.0.0/16", device=None, source=None),)
    assert [r.is_ours for r in ip_cli.each_main_route(text)] == [True]


@pytest.mark.parametrize(
    "more",
    [
        {"src": "10.0.0.0", "srclen": 8},
        {"not": None},
        {"fwmark": "0x1"},
        {"oif": "wg0"},
        {"dst": "10.0.0.1"},
        {"ipproto": "udp"},
        {"uid_start": 3, "uid_end": 5},
        {"action": "blackhole"},
        {"tos": "0x04"},
        {"goto": 9000},
    ],
)
def test_rule_that_selects_by_more_is_foreign(more: dict[str, object]) -> None:
    """It does not stand for the rule of this program, which has to be added."""
    assert ip_cli.parse_rules(json.dumps([{**OWN_RULE, **more}]), 4) == ()


@given(st.lists(st.lists(st.text(max_size=12) | st.just(key(7)), max_size=10).map("\t".join), max_size=4))
@settings(deadline=None, max_examples=40)
def test_any_dump_gives_devices_or_host_error(lines: list[str]) -> None:
    """The lines have the separators of ``wg show all dump``."""
    with contextlib.suppress(HostError):
        wg_cli.parse_dump("\n".join(lines))


def test_error_of_dump_repeats_no_secret() -> None:
    """A line that is damaged may hold a key."""
    with pytest.raises(HostError) as caught:
        wg_cli.parse_dump(f"wg0\t{key(1)}\t{key(2)}\tport\toff")
    assert key(1) not in str(caught.value)
    assert caught.value.__cause__ is None
