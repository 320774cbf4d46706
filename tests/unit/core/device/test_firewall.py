"""Foreign chains that drop what a relay forwards are found in the output of nft."""

from __future__ import annotations

import json

import pytest

from saltext_wgmesh.core.device import firewall
from tests.nodeviews import relay


def chain(**more):
    """Return one entry of a listing: a base chain of the forward hook that drops, but for *more*."""
    base = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop", "prio": 0}
    return {"chain": {**base, **more}}


def found(*entries):
    listed = firewall.forward_chains(json.dumps({"nftables": [{"metainfo": {}}, *entries]}))
    return [str(c) for c in listed if c.drops]


def rules(*statements):
    """Return a listing of one chain, each of whose rules has these statements."""
    return json.dumps({"nftables": [chain(policy="accept"), *({"rule": {"expr": each}} for each in statements)]})


def test_forward_chains_that_drop_are_found():
    """Chains of other hooks, with another policy or of other families do not count."""
    assert found(chain(), chain(family="inet", name="f")) == ["ip filter FORWARD", "inet filter f"]
    assert found(chain(policy="accept"), chain(hook="input"), chain(family="bridge"), {"chain": {"name": "x"}}) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"nftables": null}', '{"nftables": 5}'])
def test_other_output_is_refused(text):
    """Text that is no listing is an error, and not an empty listing."""
    with pytest.raises(ValueError, match=r"nft|Expecting"):
        firewall.forward_chains(text)


@pytest.mark.parametrize(
    ("statements", "drops"),
    [
        ([[{"accept": None}], [{"drop": None}]], True),
        ([[{"counter": {"packets": 1}}, {"log": None}, {"reject": {"type": "icmpx"}}]], True),
        ([[{"match": {"op": "=="}}, {"drop": None}]], False),
        ([[{"drop": None}], [{"jump": {"target": "x"}}]], False),
        ([], False),
        (["?", None, [], [5]], False),
    ],
    ids=["drop", "reject", "matched", "jump", "empty", "unknown"],
)
def test_last_rule_without_match_decides(statements, drops):
    """A chain that accepts by policy drops all packets if its last rule does, as those of firewalld."""
    assert firewall.ends_in_drop(rules(*statements)) is drops


@pytest.mark.parametrize(
    ("listing", "drops"),
    [
        ("-P FORWARD DROP\n-A FORWARD -i eth0 -j ACCEPT\n", True),
        ("-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n", True),
        ("-P FORWARD ACCEPT\n-A FORWARD -i eth0 -j DROP\n", False),
        ("-P FORWARD ACCEPT\n", False),
        ("", False),
    ],
)
def test_legacy_chain_that_drops_is_found(listing, drops):
    """By its policy, or by a last rule without a match."""
    assert firewall.legacy_drops(listing) is drops


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ('iifname "wg0*"', True),
        ('-i "wg+"', True),
        ("-A FORWARD -i wg0+ -j", True),
        ('iifname { "eth0", "wg0" }', True),
        ('iifname "wg"', False),
        ("ip saddr 10.100.0.0/16 ip daddr 10.100.0.0/16", True),
        ("ip saddr { 10.100.0.0/16, 192.168.7.0/24 }", True),
        ("ip saddr 110.100.0.0/16", False),
    ],
)
def test_rule_for_mesh_is_found(rule, named):
    """A rule with the interface, a wildcard for it, or a network of the mesh was made for the mesh."""
    assert firewall.names_mesh(f"{rule} accept", relay(trunks=(2,))) is named


@pytest.mark.parametrize(
    ("accepted", "way"),
    [
        pytest.param(['iifname "wg0*" oifname "wg0*" accept'], None, id="both ways by a wildcard"),
        pytest.param(
            ['iifname "wg0" accept', 'oifname "wg0" counter packets 0 bytes 0 accept'], None, id="any other end"
        ),
        pytest.param(['iifname "wg0" oifname "wg0-t2" accept'], ("wg0-t2", "wg0"), id="not back"),
        pytest.param(['iifname { "wg0-t2", "wg0-t3" } oifname "wg0" accept'], ("wg0", "wg0-t2"), id="not there"),
        pytest.param(
            ["ct state established,related accept", 'iifname "wg0" oifname "wg0-t2" accept'],
            ("wg0-t2", "wg0"),
            id="state",
        ),
        pytest.param(
            ["ct state established,untracked accept", 'iifname "wg0" oifname "wg0-t2" accept'], None, id="untracked"
        ),
        pytest.param(['iifname "wg0" oifname "wg0-t2" accept', 'oifname "wg0" jump more'], None, id="another chain"),
        pytest.param(['iifname != "eth0" accept', 'iifname "wg0" oifname "wg0-t2" drop'], None, id="all but one"),
    ],
)
def test_rule_of_one_direction_is_found(accepted, way):
    """Packets of the mesh are untracked: an established connection is no way back."""
    assert firewall.one_way("\n".join(f"\t\t{rule}" for rule in accepted), relay(trunks=(2,))) == way


def test_incomplete_chain_is_named_all_the_same():
    """A listing that lacks the name of a chain ends no check."""
    entry = chain()
    del entry["chain"]["table"], entry["chain"]["name"]
    assert found(entry) == ["ip None None"]
