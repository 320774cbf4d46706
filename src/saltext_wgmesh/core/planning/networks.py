"""The networks of a plan: those of the policy, and those in which nodes still have former addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_network

from saltext_wgmesh.core.errors import Problem
from saltext_wgmesh.core.inputs.prefixes import contains, overlap
from saltext_wgmesh.core.model.policy import MeshPolicy, Network


def with_former_networks(mesh: MeshPolicy, former: Sequence[str]) -> MeshPolicy:
    """Return *mesh* as nodes have it while some have addresses in its *former* networks.

    It may have several networks of a family, none of which contains another one: firewalls refuse a set with both.
    Subnets that overlap a former network are left out, so that each address has one meaning.
    """
    if not former:
        return mesh
    old = [ip_network(n) for n in former]
    every = [*mesh.networks, *old]
    outermost = (n for n in every if not any(other != n and contains(other, n) for other in every))
    return replace(
        mesh,
        networks=tuple(dict.fromkeys(outermost)),
        nodes=tuple(replace(rule, routes=_apart(rule.routes, old)) for rule in mesh.nodes),
    )


def _apart(subnets: Iterable[Network], networks: Sequence[Network]) -> tuple[Network, ...]:
    """Return those of *subnets* that overlap none of *networks*."""
    return tuple(s for s in subnets if not any(overlap(s, n) for n in networks))


def subnets_without_gateway(mesh: MeshPolicy) -> list[Problem]:
    """Return a problem for each subnet of a family in which nodes have no address to send from."""
    versions = {n.version for n in mesh.networks}
    return [
        Problem(
            path=f"wgmesh:{mesh.name}:nodes:{rule.pattern}:routes",
            message=f"{subnet} is IPv{subnet.version}, and the mesh has no IPv{subnet.version} network",
            remedy="add one to network, or take the subnet away",
        )
        for rule in mesh.nodes
        for subnet in rule.routes
        if subnet.version not in versions
    ]
