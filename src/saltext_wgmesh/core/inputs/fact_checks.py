"""Checks of facts against each other and against the policy.

Facts are claims. A contradiction costs only the nodes that publish it their place in the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.inputs.converters import name_in_path
from saltext_wgmesh.core.inputs.key_claims import key_disputes
from saltext_wgmesh.core.inputs.node_matching import rules_for
from saltext_wgmesh.core.inputs.prefixes import PrefixSet, host_network
from saltext_wgmesh.core.model.facts import Facts, Rejection
from saltext_wgmesh.core.model.policy import MeshPolicy, Network, NodeRule, Role


def cross_check(mesh: MeshPolicy, facts: Mapping[str, Facts]) -> tuple[Rejection, ...]:
    """Return every contradiction in the facts of the mesh's members, sorted; facts of other nodes are ignored."""
    rules = rules_for(mesh, facts)
    members = {node: facts[node] for node in rules}
    shared = {d.node: d.rejection(is_next=d.key != facts[d.node].public_key) for d in key_disputes(members, {})}
    return tuple(sorted([*shared.values(), *against_policy(mesh, rules, members)]))


def against_policy(mesh: MeshPolicy, rules: Mapping[str, NodeRule], facts: Mapping[str, Facts]) -> Iterator[Rejection]:
    """Yield a rejection of each node whose facts contradict the policy; *rules* and *facts* have the same nodes."""
    gateways: dict[Network, str] = {}
    for rule in mesh.nodes:
        for subnet in rule.routes:
            gateways.setdefault(subnet, rule.pattern)
    used = PrefixSet.of([*mesh.networks, *gateways])
    has_ipv6 = any(network.version == 6 for network in mesh.networks)
    for node, own in facts.items():
        overlaps = _overlaps(own, rules[node], used)
        if overlaps:
            yield _overlapping(mesh, node, overlaps, gateways)
        # A relay without IPv6 would drop the IPv6 packets of all its leaves.
        if has_ipv6 and rules[node].role is Role.RELAY and not own.ipv6:
            yield Rejection(
                node=node,
                reason="IPv6 is disabled on it, and it is a relay of a mesh with an IPv6 network",
                remedy=f"enable IPv6 there, or take the IPv6 network out of wgmesh:{name_in_path(mesh.name)}:network",
            )


def _overlaps(own: Facts, rule: NodeRule, used: PrefixSet) -> list[tuple[Network, Network]]:
    """Return (the node's prefix, the mesh's prefix that it overlaps), without subnets of which it is a gateway."""
    prefixes = [*map(ip_network, own.networks), *(host_network(ip_address(a)) for a in own.underlay)]
    return [(mine, other) for mine in prefixes for other in used.overlapping(mine) if other not in rule.routes]


def _overlapping(
    mesh: MeshPolicy, node: str, overlaps: list[tuple[Network, Network]], gateways: Mapping[Network, str]
) -> Rejection:
    mine, other = overlaps[0]
    more = f", and {len(overlaps) - 1} more such" if len(overlaps) > 1 else ""
    path = f"{constants.PILLAR_POLICY}:{name_in_path(mesh.name)}"
    if other in gateways:
        gateway = name_in_path(gateways[other])
        owner = f"the subnet {other} behind {gateway}"
        remedy = f"list the subnet in the routes of this node too, or take it out of {path}:nodes:{gateway}:routes"
    else:
        owner = f"the mesh's network {other}"
        remedy = f"change {path}:network, or the network that the node is in"
    return Rejection(node=node, reason=f"its own network {mine} overlaps {owner}{more}", remedy=remedy)
