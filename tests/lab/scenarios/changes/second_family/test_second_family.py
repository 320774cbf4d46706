"""The prefixes of a mesh are changed."""

from __future__ import annotations

from ....mesh import Mesh
from ..edits import changed, edited, policy


def _versions(mesh: Mesh) -> set[int]:
    """Return the numbers of addresses that members have."""
    return {len(addresses) for addresses in mesh.overlay().values()}


def test_mesh_loses_ipv6(mesh: Mesh):
    """Every node has one address after the IPv6 prefix is removed, and IPv4 traffic loses no packet."""
    four = Mesh(lab=mesh.lab, name=mesh.name, networks=mesh.networks[:1], members=mesh.members, lan=mesh.lan)
    changed(four, "IPv6 removed", edited(lambda m: m.update(network=m["network"][:1])), lambda: _versions(mesh) == {1})


def test_mesh_gets_ipv6_back(mesh: Mesh):
    """Every node has two addresses after the IPv6 prefix is added."""
    changed(mesh, "IPv6 added", policy(), lambda: _versions(mesh) == {2})
