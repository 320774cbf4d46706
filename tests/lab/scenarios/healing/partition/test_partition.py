"""Both sides of a partition work within themselves, and no packet is lost when it ends."""

from __future__ import annotations

from .... import faults
from ....disruption import broken, link_is, mended, streaming
from ....mesh import Mesh

INSIDE = {"app1": "app2", "web1": "web2", "laptop": "web1"}
ACROSS = {"web1": "app1"}


def test_traffic_within_each_side_continues(mesh: Mesh):
    """Pairs within one side lose no packet while the relays report their trunk down."""
    with streaming(mesh, {"app1": "app2", "web1": "web2"}) as inside:
        broken(
            mesh,
            ACROSS,
            faults.partitioned(mesh.lab.underlay, "nyc-router"),
            lambda: (
                link_is(mesh, "relay-fra1", "relay-nyc1", "down") and link_is(mesh, "relay-nyc1", "relay-fra1", "down")
            ),
        )
    lost = inside.losing
    for node in ("app1", "app2", "relay-nyc1") if lost else ():
        print(node, mesh.lab.underlay[node].run("tail", "-n", "40", "/run/wgmesh/watch.log", check=False))
    assert lost == []


def test_end_of_partition_loses_no_packet(mesh: Mesh):
    """All pairs reach each other again without a lost packet, and the mesh settles."""
    assert mended(mesh, ACROSS | INSIDE).losing == []
    mesh.settle()
