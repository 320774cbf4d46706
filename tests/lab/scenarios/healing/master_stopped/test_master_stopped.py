"""Without a master the mesh heals all the same, and a master that comes back disturbs nothing."""

from __future__ import annotations

from .... import faults
from ....drill import HEALED, broken, first_relay, mended, planned_around, relays_used, says, streaming
from ....mesh import Mesh
from ....planned import await_links, status
from ....wait import wait_until

PAIRS = {"web1": "app1", "app2": "web2"}
DIRECT = {"web1": "web2"}


def test_without_a_master_traffic_takes_another_relay(mesh: Mesh):
    """And a cut direct link is relayed; both are over before the master is back, so it finds nothing to move."""
    before = status(mesh.lab.salt, mesh.name)
    links = mesh.links()
    mesh.lab.salt.stop_master()
    relay = first_relay(mesh, "web1")
    felt, seen = broken(
        mesh, PAIRS, faults.unplugged(mesh.lab.underlay, relay), lambda: says(mesh, "web1", relay, "down")
    )
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)
    felt, seen = broken(
        mesh, DIRECT, faults.cut(mesh.lab.underlay, "web1", "web2"), lambda: says(mesh, "web1", "web2", "down")
    )
    assert felt.longest < HEALED
    assert relays_used(seen)
    with streaming(mesh, PAIRS | DIRECT) as quiet:
        await_links(mesh.lab.salt, mesh.name, set(mesh.members), deadline=60)
        mesh.lab.salt.start_master()
        mesh.lab.salt.await_minions()
        after = mesh.settle()
    assert quiet.losing == []
    assert {n: row["addresses"] for n, row in after["nodes"].items()} == {
        n: row["addresses"] for n, row in before["nodes"].items()
    }
    assert mesh.links() == links
    assert mesh.faults() == []


def test_a_master_that_comes_back_amid_a_fault_plans_around_it(mesh: Mesh):
    relay = first_relay(mesh, "web1")
    mesh.lab.salt.stop_master()
    with faults.unplugged(mesh.lab.underlay, relay):
        wait_until(lambda: says(mesh, "web1", relay, "down"), 10, "web1 to notice", every=0.2)
        with streaming(mesh, PAIRS) as felt:
            mesh.lab.salt.start_master()
            wait_until(planned_around(mesh, [relay], [relay]), 90, "the plan to follow", every=1.0)
        assert felt.losing == []
    assert mended(mesh, PAIRS).losing == []
