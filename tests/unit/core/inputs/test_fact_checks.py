"""Facts that contradict each other or the policy are rejected."""

from __future__ import annotations

from typing import Any

import pytest

from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.inputs.fact_checks import cross_check
from saltext_wgmesh.core.model.facts import Rejection
from tests.unit.harness.mine_facts import by_node, facts_with_key, gateway_mesh, key


def test_facts_without_contradiction_pass() -> None:
    """A gateway may be in its own subnets; nodes of one network, or without any, do not contradict each other."""
    good = by_node(
        facts_with_key("r1", 1, networks=("203.0.113.0/24",)),
        facts_with_key("gw", 2, networks=("192.168.0.0/21", "192.168.8.0/24"), underlay=("192.168.7.1",)),
        facts_with_key("n1", 3, networks=("203.0.113.0/24",), ipv6=False),
        facts_with_key("n2", 4),
    )
    assert cross_check(gateway_mesh(), good) == ()


def test_nodes_with_one_key_are_both_rejected() -> None:
    """Neither node is preferred; a node outside the mesh with the same key changes nothing."""
    found = cross_check(
        gateway_mesh(),
        by_node(
            facts_with_key("n2", 7), facts_with_key("n1", 7), facts_with_key("n3", 8), facts_with_key("stranger", 8)
        ),
    )
    assert found == tuple(
        Rejection(
            node=one,
            reason=f"its public key is also that of {other}",
            remedy=f"give the copy a key of its own: salt {one} wgmesh.replace_key",
        )
        for one, other in (("n1", "n2"), ("n2", "n1"))
    )


def test_rejection_names_three_other_nodes_at_most() -> None:
    """Each node is rejected; a message names three other nodes and counts the rest."""
    found = cross_check(gateway_mesh(), {f"n{i}": facts_with_key(f"n{i}", 7) for i in range(4)})
    assert found[0].reason == "its public key is also that of n1, n2, n3"
    found = cross_check(gateway_mesh(), {f"n{i}": facts_with_key(f"n{i}", 7) for i in range(6)})
    assert [r.reason for r in found] == [
        "its public key is also that of n1, n2, n3 and 2 more",
        "its public key is also that of n0, n2, n3 and 2 more",
        "its public key is also that of n0, n1, n3 and 2 more",
        "its public key is also that of n0, n1, n2 and 2 more",
        "its public key is also that of n0, n1, n2 and 2 more",
        "its public key is also that of n0, n1, n2 and 2 more",
    ]


@pytest.mark.parametrize(
    ("own", "reason", "remedy"),
    [
        (
            {"networks": ("192.168.7.0/25",)},
            "its own network 192.168.7.0/25 overlaps the subnet 192.168.7.0/24 behind gw",
            "list the subnet in the routes of this node too, or take it out of wgmesh:wg0:nodes:gw:routes",
        ),
        (
            {"networks": ("172.16.0.0/12", "192.168.0.0/16")},
            "its own network 192.168.0.0/16 overlaps the subnet 192.168.7.0/24 behind gw, and 1 more such",
            "list the subnet in the routes of this node too, or take it out of wgmesh:wg0:nodes:gw:routes",
        ),
        (
            {"networks": ("10.0.0.0/8",)},
            "its own network 10.0.0.0/8 overlaps the mesh's network 10.100.0.0/16",
            "change wgmesh:wg0:network, or the network that the node is in",
        ),
        (
            {"networks": ("fd00:64::/65",)},
            "its own network fd00:64::/65 overlaps the mesh's network fd00:64::/64",
            "change wgmesh:wg0:network, or the network that the node is in",
        ),
        (
            {"underlay": ("10.100.200.1",)},
            "its own network 10.100.200.1/32 overlaps the mesh's network 10.100.0.0/16",
            "change wgmesh:wg0:network, or the network that the node is in",
        ),
    ],
)
def test_node_in_network_of_mesh_is_rejected(own: dict[str, Any], reason: str, remedy: str) -> None:
    """Only that node is rejected: the gateway of the subnet and all other nodes stay."""
    found = cross_check(
        gateway_mesh(), by_node(facts_with_key("n1", 1, **own), facts_with_key("gw", 2, networks=("192.168.7.0/24",)))
    )
    assert found == (Rejection(node="n1", reason=reason, remedy=remedy),)


def test_gateway_in_subnet_of_other_is_rejected() -> None:
    """Only the subnets in the routes of a node may be its own networks."""
    found = cross_check(
        gateway_mesh("  g2: {routes: [192.168.9.0/24]}\n"),
        by_node(facts_with_key("g2", 1, networks=("192.168.8.0/23",))),
    )
    assert [r.reason for r in found] == [
        "its own network 192.168.8.0/23 overlaps the subnet 192.168.8.0/24 behind gw",
    ]


def test_relay_without_ipv6_in_ipv6_mesh_is_rejected() -> None:
    """The relay could not forward IPv6; in a mesh of IPv4 alone it is accepted."""
    relay = by_node(facts_with_key("r1", 1, ipv6=False))
    assert cross_check(gateway_mesh(), relay) == (
        Rejection(
            node="r1",
            reason="IPv6 is disabled on it, and it is a relay of a mesh with an IPv6 network",
            remedy="enable IPv6 there, or take the IPv6 network out of wgmesh:wg0:network",
        ),
    )
    raw = {"network": "10.100.0.0/16", "nodes": {"r1": {"role": "relay", "endpoint": "203.0.113.10"}}}
    assert cross_check(policy.parse_policy({"wg0": raw}).meshes["wg0"], relay) == ()


def test_next_key_of_another_node_is_rejected() -> None:
    """Two nodes are rejected that share a key, whether it is current or next for either of them."""
    rotating = facts_with_key("n1", 7, next_key=key(8))
    for copy in (facts_with_key("n2", 8), facts_with_key("n2", 9, next_key=key(8))):
        assert [r.node for r in cross_check(gateway_mesh(), by_node(rotating, copy))] == ["n1", "n2"]
    first, second = cross_check(
        gateway_mesh(), by_node(facts_with_key("n1", 7), facts_with_key("n2", 9, next_key=key(7)))
    )
    assert first.reason == "its public key is also that of n2"
    assert second.reason == "its next public key is also that of n1"
