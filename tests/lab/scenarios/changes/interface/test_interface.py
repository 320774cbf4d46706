"""The interfaces of the whole mesh are renamed."""

from __future__ import annotations

from ....mesh import Mesh
from ..edits import changed, edited, policy, stems


def test_the_interfaces_have_another_name(mesh: Mesh):
    wanted = edited(lambda m: m.update(interface="office0"))
    changed(mesh, "interface", wanted, lambda: stems(mesh) == {"office0"}, mesh.members, remade=True)


def test_they_go_back(mesh: Mesh):
    changed(mesh, "interface back", policy(), lambda: stems(mesh) == {"wg0"}, mesh.members, remade=True)
