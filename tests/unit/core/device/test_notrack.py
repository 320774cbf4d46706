"""The table of a relay names exactly the packets that the relay forwards between other nodes."""

from __future__ import annotations

from dataclasses import replace

from saltext_wgmesh.core.device.notrack import notrack_table
from saltext_wgmesh.core.model.view import Route
from tests.nodeviews import leaf, peer, relay

RELAY = relay(leaves=(peer(5, "10.100.0.5/32", "192.168.7.0/24"),), trunks=(2,))


def test_leaf_has_no_table():
    """A leaf has no table, also if it is the gateway of a subnet."""
    assert notrack_table(leaf()) is None
    assert notrack_table(replace(leaf(), forward=True)) is None


def test_relay_untracks_packets_between_others():
    """Packets to the relay itself return first; the rest is untracked if both addresses belong to the mesh."""
    routes = (*RELAY.routes, Route(prefixes=("192.168.7.0/24",), via=("n5",), from_trunk=("n5",)))
    table = notrack_table(replace(RELAY, routes=routes))
    interfaces = ", ".join(f'"{i.name}"' for i in RELAY.interfaces)
    assert table.rules[0] == f"iifname != {{ {interfaces} }} return"
    assert table.rules[1] == f"ip daddr {{ {RELAY.addresses[0]} }} return"
    within = "{ 10.100.0.0/16, 192.168.7.0/24 }"
    assert table.rules[2] == f"ip saddr {within} ip daddr {within} notrack"


def test_own_subnet_of_relay_stays_tracked():
    """A relay has no Route to the subnets behind itself, and may translate addresses there."""
    rules = notrack_table(relay(trunks=(2,))).rules
    assert [rule for rule in rules if "notrack" in rule] == [
        "ip saddr { 10.100.0.0/16 } ip daddr { 10.100.0.0/16 } notrack",
        "ip6 saddr { fd00:64::/64 } ip6 daddr { fd00:64::/64 } notrack",
    ]


def test_changed_table_is_recognised():
    """A listing with all marks is right; one with a rule less, another mark or a foreign rule is not."""
    table = notrack_table(RELAY)
    listing = table.script()
    assert table.is_in(listing)
    lines = listing.splitlines()
    assert not table.is_in("\n".join(line for line in lines if "notrack" not in line))
    assert not table.is_in(listing.replace(table.mark, "0" * 16))
    assert not table.is_in(f'{listing}\naccept comment "foreign"')
    assert not table.is_in("")


def test_table_of_one_view_is_made_once():
    """The watcher compares the table each few seconds: a relay with many leaves must not make it each time."""
    assert notrack_table(relay(trunks=(2,))) is notrack_table(relay(trunks=(2,)))
