"""The interfaces of the whole mesh are renamed."""

from __future__ import annotations

from ....mesh import Mesh
from ..edits import changed, edited, policy, stems


def test_interfaces_get_another_name(mesh: Mesh):
    """All interfaces and wg-quick files of the mesh are renamed without a lost packet."""
    wanted = edited(lambda m: m.update(interface="office0"))
    changed(mesh, "interface", wanted, lambda: stems(mesh) == {"office0"}, mesh.members)


def test_interfaces_get_old_name_back(mesh: Mesh):
    """All interfaces and wg-quick files return to the old name without a lost packet."""
    changed(mesh, "interface back", policy(), lambda: stems(mesh) == {"wg0"}, mesh.members)
