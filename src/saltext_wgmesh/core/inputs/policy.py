"""The pillar's ``wgmesh`` key → Policy, or one PolicyError that lists every problem in it.

This module reads each value by itself. ``policy_checks`` then checks the values against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import NoPolicyError, PolicyError, Problem
from saltext_wgmesh.core.inputs import policy_checks, port_checks
from saltext_wgmesh.core.inputs.converters import (
    InvalidValue,
    Problems,
    Section,
    choice,
    duration,
    entries,
    flag,
    integer,
    kind,
    name,
    name_in_path,
    pattern,
    quoted,
    text,
)
from saltext_wgmesh.core.inputs.endpoints import endpoint
from saltext_wgmesh.core.inputs.prefixes import address, address_range, routable_network
from saltext_wgmesh.core.model.policy import Address, Bfd, MeshPolicy, Network, NodeRule, Policy, Role, Site, Topology

V = TypeVar("V", bound=Address | Network)

MESH_KEYS = (
    "interface",
    "network",
    "reserved",
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
"""As the value of a mesh: the mesh is removed. So an operator can remove the only mesh too.
As the value of a node: the node is not a member, even if a later glob matches it."""
BFD_KEYS = ("interval", "multiplier")
SITE_KEYS = ("relays", "direct", "network", "reserved")
NODE_KEYS = ("role", "site", "endpoint", "address", "nat", "routes")
MAX_MTU = 9000
MIN_ROTATION_PERIOD = 60
"""Seconds. With a shorter period, a fleet would rotate keys all the time."""
_MIN_MTU = {4: 576, 6: 1280}
"""Bytes by family: packets of this size pass every host and link unfragmented (RFC 791; RFC 8200 section 5)."""


def parse_policy(raw: object) -> Policy:
    """Return the policy that *raw* spells, the value of the pillar key ``wgmesh``, without meshes that are ``absent``.

    An empty policy is an error: a pillar that fails to render must not remove a running mesh.

    Raises PolicyError with every problem in *raw*.
    """
    problems = Problems()
    # The most likely mistake gets one message of its own instead of one for each key.
    if isinstance(raw, Mapping) and {"network", "nodes"} <= raw.keys():
        remedy = "write the name of a mesh between them and wgmesh, as in wgmesh: {wg0: {network: ..., nodes: ...}}"
        raise PolicyError(
            [Problem(path=constants.PILLAR_POLICY, message="has network and nodes, but no mesh", remedy=remedy)]
        )
    pairs = entries(constants.PILLAR_POLICY, raw, text, problems)
    read = [_mesh(mesh_name, value, problems) for mesh_name, value in pairs if value != ABSENT]
    meshes = [mesh for mesh in read if mesh]
    if not pairs and not problems.found:
        remedy = "give the master's own id ('salt-run config.get id') this pillar key, with a mesh below it"
        raise NoPolicyError([Problem(path=constants.PILLAR_POLICY, message="has no mesh", remedy=remedy)])
    absent = {mesh_name for mesh_name, value in pairs if value == ABSENT}
    policy_checks.check_tables({mesh_name for mesh_name, _ in pairs} - absent, absent, problems)
    policy_checks.check_policy(meshes, problems)
    if problems.found:
        raise PolicyError(problems.found)
    limited = port_checks.with_port_limits(sorted(meshes, key=lambda m: m.name))
    return Policy(meshes=MappingProxyType({mesh.name: mesh for mesh in limited}))


def _mesh(mesh_name: str, raw: object, problems: Problems) -> MeshPolicy | None:
    path = policy_checks.mesh_path(mesh_name)
    mesh = Section.open(path, raw, MESH_KEYS, problems)
    if problems.has_problem_at(path):
        return None
    networks = _one_a_family(mesh, "network", mesh.read_list("network", routable_network))
    if not networks and not problems.has_problem_at(f"{path}:network"):
        problems.add(f"{path}:network", "is missing", "write the prefix from which nodes get their addresses")
    port = mesh.read("listen_port", integer(1, 65535), constants.DEFAULT_LISTEN_PORT)
    # The smallest MTU follows from the families of the mesh, so the networks are read first.
    min_mtu = max((_MIN_MTU[n.version] for n in networks), default=_MIN_MTU[4])
    return MeshPolicy(
        name=mesh_name,
        interface=mesh.read("interface", text, mesh_name),
        networks=networks,
        reserved=mesh.read_list("reserved", address_range),
        listen_port=port,
        topology=mesh.read("topology", choice(Topology), Topology.PARTIAL),
        mtu=mesh.read("mtu", integer(min_mtu, MAX_MTU), constants.DEFAULT_MTU),
        keepalive=mesh.read("keepalive", integer(0, 65535), constants.DEFAULT_KEEPALIVE),
        bfd=_bfd(mesh),
        prune_guard=mesh.read("prune_guard", integer(0, 100), constants.DEFAULT_PRUNE_GUARD),
        sites=MappingProxyType(_sites(mesh)),
        nodes=_nodes(mesh, port),
        links=tuple(sorted(set(mesh.read_list("links", _link)))),
        rotate_after=mesh.read("rotate_after", duration(MIN_ROTATION_PERIOD), 0),
        preshared_keys=mesh.read("preshared_keys", flag, False),
    )


def _bfd(mesh: Section) -> Bfd:
    bfd = Section.open(f"{mesh.path}:bfd", mesh.values.get("bfd"), BFD_KEYS, mesh.problems)
    return Bfd(
        interval=bfd.read("interval", integer(10, 60_000), constants.DEFAULT_BFD_INTERVAL),
        # An eight-bit field, and zero is not a multiplier (RFC 5880 section 4.1).
        multiplier=bfd.read("multiplier", integer(1, 255), constants.DEFAULT_BFD_MULTIPLIER),
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
            reserved=site.read_list("reserved", address_range),
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
    """Return both ends in alphabetical order."""
    if not isinstance(raw, (list, tuple)) or len(raw) != 2:
        found = f"{len(raw)} entries" if isinstance(raw, (list, tuple)) else f"{kind(raw)} ({quoted(raw)})"
        raise InvalidValue(f"a link is a pair of nodes, not {found}", "write a list of pairs: [[db1, web1]]")
    first, second = sorted(name(end) for end in raw)
    return first, second


def _one_a_family(section: Section, key: str, found: tuple[V, ...]) -> tuple[V, ...]:
    """Return the first value of each family in *found*, IPv4 first; for a second one of a family, add a problem."""
    families: dict[int, V] = {}
    for value in found:
        if value.version in families:
            message = f"{families[value.version]} and {value} are both IPv{value.version}"
            section.problems.add(f"{section.path}:{key}", message, "keep one a family")
        families.setdefault(value.version, value)
    return tuple(families[version] for version in sorted(families))
