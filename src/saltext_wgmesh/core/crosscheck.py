"""Facts held against each other and against the policy: what a node claims can't cost another node anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network

from saltext_wgmesh.core import names
from saltext_wgmesh.core.fields import name_in_path
from saltext_wgmesh.core.prefixes import PrefixSet, host_network
from saltext_wgmesh.core.rules import rules_for
from saltext_wgmesh.core.types import Facts, MeshPolicy, Network, NodeRule, Rejection, Role


def crosscheck(mesh: MeshPolicy, facts: Mapping[str, Facts]) -> tuple[Rejection, ...]:
    """Every contradiction in the facts of the mesh's members, sorted; facts of other nodes don't matter to it."""
    rules = rules_for(mesh, facts)
    members = {node: facts[node] for node in rules}
    keys = {node: own.keys for node, own in members.items()}
    return tuple(sorted([*shared_keys(keys, {}), *against_policy(mesh, rules, members)]))


def shared_keys(
    published: Mapping[str, tuple[str, ...]], ran_with: Mapping[str, tuple[str, ...]]
) -> Iterator[Rejection]:
    """A rejection of each node that publishes a key, present or next, which another publishes, or ran with; both are
    node → keys."""
    owners: dict[str, list[str]] = {}
    for node in sorted({*published, *ran_with}):
        for key in {key for keys in (published, ran_with) for key in keys.get(node, ())}:
            owners.setdefault(key, []).append(node)
    for node, keys in published.items():
        count, key = max((len(owners[key]) - 1, key) for key in keys)
        if count:
            listed = ", ".join([name_in_path(other) for other in owners[key][:4] if other != node][:3])
            more = f" and {count - 3} more" if count > 3 else ""
            which = "public" if key == keys[0] else "next public"
            yield Rejection(
                node=node,
                reason=f"its {which} key is also that of {listed}{more}",
                do=f"find out which of them is the copy, delete {names.KEY_FILE} there and apply the state again",
            )


def against_policy(mesh: MeshPolicy, rules: Mapping[str, NodeRule], facts: Mapping[str, Facts]) -> Iterator[Rejection]:
    """A rejection of each node whose facts can't be true in a mesh of this policy; *rules* has the same nodes."""
    behind: dict[Network, str] = {}
    for rule in mesh.nodes:
        for subnet in rule.routes:
            behind.setdefault(subnet, rule.pattern)
    taken = PrefixSet.of([*mesh.networks, *behind])
    has_ipv6 = any(network.version == 6 for network in mesh.networks)
    for node, own in facts.items():
        found = _overlaps(own, rules[node], taken)
        if found:
            yield _overlapping(mesh, node, found, behind)
        if has_ipv6 and rules[node].role is Role.RELAY and not own.ipv6:
            yield Rejection(
                node=node,
                reason="IPv6 is disabled on it, and it is a relay of a mesh with an IPv6 network",
                do=f"enable IPv6 there, or take the IPv6 network out of wgmesh:{name_in_path(mesh.name)}:network",
            )


def _overlaps(own: Facts, rule: NodeRule, taken: PrefixSet) -> list[tuple[Network, Network]]:
    """(the node's own prefix, the mesh's prefix that it touches) for all but the subnets whose gateway it is."""
    prefixes = [*map(ip_network, own.networks), *(host_network(ip_address(a)) for a in own.underlay)]
    return [(mine, other) for mine in prefixes for other in taken.touched_by(mine) if other not in rule.routes]


def _overlapping(
    mesh: MeshPolicy, node: str, found: list[tuple[Network, Network]], behind: Mapping[Network, str]
) -> Rejection:
    mine, other = found[0]
    more = f", and {len(found) - 1} more such" if len(found) > 1 else ""
    path = f"{names.POLICY_KEY}:{name_in_path(mesh.name)}"
    if other in behind:
        gateway = name_in_path(behind[other])
        whose = f"the subnet {other} behind {gateway}"
        do = f"list the subnet in the routes of this node too, or take it out of {path}:nodes:{gateway}:routes"
    else:
        whose = f"the mesh's network {other}"
        do = f"change {path}:network, or the network that the node is in"
    return Rejection(node=node, reason=f"its own network {mine} overlaps {whose}{more}", do=do)
