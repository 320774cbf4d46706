"""The port of the whole mesh is changed."""

from __future__ import annotations

from ....mesh import Mesh
from ..edits import changed, edited, policy, ports


def test_mesh_listens_on_another_port(mesh: Mesh):
    """All nodes change their listen port without a lost packet or session."""
    changed(mesh, "listen_port", edited(lambda m: m.update(listen_port=51920)), lambda: ports(mesh) == {51920}, ())


def test_mesh_listens_on_old_port_again(mesh: Mesh):
    """All nodes return to the old port without a lost packet or session."""
    changed(mesh, "listen_port back", policy(), lambda: ports(mesh) == {51820}, ())
