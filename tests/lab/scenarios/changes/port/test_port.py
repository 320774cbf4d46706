"""The port of the whole mesh is changed."""

from __future__ import annotations

from ....mesh import Mesh
from ..edits import changed, edited, policy, ports


def test_the_mesh_listens_on_another_port(mesh: Mesh):
    changed(mesh, "listen_port", edited(lambda m: m.update(listen_port=51920)), lambda: ports(mesh) == {51920}, ())


def test_it_goes_back(mesh: Mesh):
    changed(mesh, "listen_port back", policy(), lambda: ports(mesh) == {51820}, ())
