"""The pillar's ``wgmesh`` key → Policy, or one PolicyError that lists all that is wrong with it.

This file reads each value by itself; ``conflicts`` then looks at what the values mean together.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from saltext_wgmesh.core import conflicts, names
from saltext_wgmesh.core.endpoints import endpoint
from saltext_wgmesh.core.errors import PolicyError, Problem
from saltext_wgmesh.core.fields import (
    Problems,
    Section,
    Wrong,
    choice,
    duration,
    entries,
    flag,
    integer,
    kind,
    name,
    name_in_path,
    pattern,
    shown,
    text,
)
from saltext_wgmesh.core.prefixes import address, routable_network
from saltext_wgmesh.core.rules import rule_for, rules_for
from saltext_wgmesh.core.types import Address, Bfd, MeshPolicy, Network, NodeRule, Policy, Role, Site, Topology

__all__ = ["parse", "rule_for", "rules_for"]

V = TypeVar("V", bound=Address | Network)

MESH_KEYS = (
    "interface",
    "network",
    "listen_port",
    "topology",
    "sites",
    "nodes",
    "links",
    "mtu",
    "keepalive",
    "bfd",
    "prune_guard",
    "rotate_after",
    "preshared_keys",
)
ABSENT = "absent"
"""In the place of a mesh: there shall be none of that name. So the only mesh can be taken out of the policy too.
In the place of a node: it is no member, though a glob that comes later matches it."""
BFD_KEYS = ("interval", "multiplier")
SITE_KEYS = ("relays", "direct", "network")
NODE_KEYS = ("role", "site", "endpoint", "address", "nat", "routes")
LARGEST_MTU = 9000
SHORTEST_ROTATION = 60
"""Seconds: below that a fleet would be at nothing else."""
_SMALLEST_MTU = {4: 576, 6: 1280}
"""What every host must take in one piece: RFC 791, RFC 8200 section 5."""


def parse(raw: object) -> Policy:
    """The policy that *raw*, the value of the pillar key ``wgmesh``, spells; PolicyError with every problem in it.

    An empty policy is an error, since it must change nothing on a mesh that runs. A mesh that is ``absent`` is not in
    it.
    """
    problems = Problems()
    if isinstance(raw, Mapping) and {"network", "nodes"} <= raw.keys():
        do = "write the name of a mesh between them and wgmesh, as in wgmesh: {wg0: {network: ..., nodes: ...}}"
        raise PolicyError([Problem(where=names.POLICY_KEY, what="has network and nodes, but no mesh", do=do)])
    pairs = entries(names.POLICY_KEY, raw, text, problems)
    read = [_mesh(mesh_name, value, problems) for mesh_name, value in pairs if value != ABSENT]
    meshes = [mesh for mesh in read if mesh]
    if not pairs and not problems.found:
        do = "give the master's own id ('salt-run config.get id') this pillar key, with a mesh below it"
        problems.add(names.POLICY_KEY, "has no mesh", do)
    conflicts.check(meshes, problems)
    if problems.found:
        raise PolicyError(problems.found)
    return Policy(meshes=MappingProxyType({mesh.name: mesh for mesh in sorted(meshes, key=lambda m: m.name)}))


def _mesh(mesh_name: str, raw: object, problems: Problems) -> MeshPolicy | None:
    path = conflicts.mesh_path(mesh_name)
    mesh = Section.open(path, raw, MESH_KEYS, problems)
    if problems.at(path):
        return None
    networks = _one_a_family(mesh, "network", mesh.read_list("network", routable_network))
    if not networks and not problems.at(f"{path}:network"):
        problems.add(f"{path}:network", "is missing", "write the prefix from which nodes get their addresses")
    port = mesh.read("listen_port", integer(1, 65535), names.DEFAULT_LISTEN_PORT)
    smallest = max((_SMALLEST_MTU[n.version] for n in networks), default=_SMALLEST_MTU[4])
    return MeshPolicy(
        name=mesh_name,
        interface=mesh.read("interface", text, mesh_name),
        networks=networks,
        listen_port=port,
        topology=mesh.read("topology", choice(Topology), Topology.PARTIAL),
        mtu=mesh.read("mtu", integer(smallest, LARGEST_MTU), names.DEFAULT_MTU),
        keepalive=mesh.read("keepalive", integer(0, 65535), names.DEFAULT_KEEPALIVE),
        bfd=_bfd(mesh),
        prune_guard=mesh.read("prune_guard", integer(0, 100), names.DEFAULT_PRUNE_GUARD),
        sites=MappingProxyType(_sites(mesh)),
        nodes=_nodes(mesh, port),
        links=tuple(sorted(set(mesh.read_list("links", _link)))),
        rotate_after=mesh.read("rotate_after", duration(SHORTEST_ROTATION), 0),
        preshared_keys=mesh.read("preshared_keys", flag, False),
    )


def _bfd(mesh: Section) -> Bfd:
    bfd = Section.open(f"{mesh.path}:bfd", mesh.values.get("bfd"), BFD_KEYS, mesh.problems)
    return Bfd(
        interval=bfd.read("interval", integer(10, 60_000), names.DEFAULT_BFD_INTERVAL),
        # An eight-bit field, and zero is not a multiplier (RFC 5880 section 4.1).
        multiplier=bfd.read("multiplier", integer(1, 255), names.DEFAULT_BFD_MULTIPLIER),
    )


def _sites(mesh: Section) -> dict[str, Site]:
    path = f"{mesh.path}:sites"
    sites = {}
    for site_name, raw in sorted(entries(path, mesh.values.get("sites"), name, mesh.problems)):
        site = Section.open(f"{path}:{name_in_path(site_name)}", raw, SITE_KEYS, mesh.problems)
        sites[site_name] = Site(
            name=site_name,
            relays=site.read_list("relays", name),
            direct=site.read("direct", flag, True),
            networks=_one_a_family(site, "network", site.read_list("network", routable_network)),
        )
    return sites


def _nodes(mesh: Section, port: int) -> tuple[NodeRule, ...]:
    path = f"{mesh.path}:nodes"
    pairs = entries(path, mesh.values.get("nodes"), pattern, mesh.problems)
    return tuple(
        NodeRule(pattern=key, absent=True)
        if raw == ABSENT
        else _rule(Section.open(f"{path}:{name_in_path(key)}", raw, NODE_KEYS, mesh.problems), key, port)
        for key, raw in pairs
    )


def _rule(node: Section, key: str, port: int) -> NodeRule:
    return NodeRule(
        pattern=key,
        role=node.read("role", choice(Role), Role.LEAF),
        site=node.read("site", name, None),
        endpoint=node.read("endpoint", endpoint(port), None),
        addresses=_one_a_family(node, "address", node.read_list("address", address)),
        nat=node.read("nat", flag, False),
        routes=node.read_list("routes", routable_network),
    )


def _link(raw: object) -> tuple[str, str]:
    """Both ends in alphabetical order."""
    if not isinstance(raw, (list, tuple)) or len(raw) != 2:
        found = f"{len(raw)} entries" if isinstance(raw, (list, tuple)) else f"{kind(raw)} ({shown(raw)})"
        raise Wrong(f"a link is a pair of nodes, not {found}", "write a list of pairs: [[db1, web1]]")
    first, second = sorted(name(end) for end in raw)
    return first, second


def _one_a_family(section: Section, key: str, found: tuple[V, ...]) -> tuple[V, ...]:
    """*found*, IPv4 first; of a family that is there twice, the first, and a problem."""
    families: dict[int, V] = {}
    for value in found:
        if value.version in families:
            what = f"{families[value.version]} and {value} are both IPv{value.version}"
            section.problems.add(f"{section.path}:{key}", what, "keep one a family")
        families.setdefault(value.version, value)
    return tuple(families[version] for version in sorted(families))
