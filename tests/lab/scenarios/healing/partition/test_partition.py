"""Both sides of a partition go on, and nothing is lost when it ends."""

from __future__ import annotations

from .... import faults
from ....drill import broken, mended, says, streaming
from ....mesh import Mesh

INSIDE = {"app1": "app2", "web1": "web2", "laptop": "web1"}
ACROSS = {"web1": "app1"}


def test_each_side_goes_on(mesh: Mesh):
    with streaming(mesh, {"app1": "app2", "web1": "web2"}) as inside:
        broken(
            mesh,
            ACROSS,
            faults.partitioned(mesh.lab.underlay, "nyc-router"),
            lambda: says(mesh, "relay-fra1", "relay-nyc1", "down") and says(mesh, "relay-nyc1", "relay-fra1", "down"),
        )
    lost = inside.losing
    for node in ("app1", "app2", "relay-nyc1") if lost else ():
        print(node, mesh.lab.underlay[node].run("tail", "-n", "40", "/run/wgmesh/watch.log", check=False))
    assert lost == []


def test_when_it_ends_all_is_as_before(mesh: Mesh):
    assert mended(mesh, ACROSS | INSIDE).losing == []
    mesh.settle()
