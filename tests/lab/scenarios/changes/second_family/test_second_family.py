"""The prefixes of a mesh are changed."""

from __future__ import annotations

from ....mesh import Mesh
from ..edits import changed, edited, policy


def _versions(mesh: Mesh) -> set[int]:
    """How many addresses the members have."""
    return {len(addresses) for addresses in mesh.overlay().values()}


def test_a_mesh_without_ipv6(mesh: Mesh):
    four = Mesh(lab=mesh.lab, name=mesh.name, networks=mesh.networks[:1], members=mesh.members, lan=mesh.lan)
    changed(four, "IPv6 removed", edited(lambda m: m.update(network=m["network"][:1])), lambda: _versions(mesh) == {1})


def test_a_mesh_with_ipv6_again(mesh: Mesh):
    changed(mesh, "IPv6 added", policy(), lambda: _versions(mesh) == {2})
