"""The mesh heals without a master, and a master that returns disturbs nothing."""

from __future__ import annotations

from .... import faults
from ....disruption import HEALED, broken, first_relay, link_is, mended, planned_around, relays_used, streaming
from ....mesh import Mesh
from ....planned import await_links, status
from ....wait import wait_until

PAIRS = {"web1": "app1", "app2": "web2"}
DIRECT = {"web1": "web2"}


def test_traffic_is_rerouted_without_master(mesh: Mesh):
    """A dead relay and a cut direct link are avoided. Both are over before the master returns, which moves nothing."""
    before = status(mesh.lab.salt, mesh.name)
    links = mesh.links()
    mesh.lab.salt.stop_master()
    relay = first_relay(mesh, "web1")
    felt, seen = broken(
        mesh, PAIRS, faults.unplugged(mesh.lab.underlay, relay), lambda: link_is(mesh, "web1", relay, "down")
    )
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)
    felt, seen = broken(
        mesh, DIRECT, faults.cut(mesh.lab.underlay, "web1", "web2"), lambda: link_is(mesh, "web1", "web2", "down")
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


def test_master_started_during_fault_plans_around(mesh: Mesh):
    """A master that is started while a relay is dead plans around it, and no packet is lost."""
    relay = first_relay(mesh, "web1")
    mesh.lab.salt.stop_master()
    with faults.unplugged(mesh.lab.underlay, relay):
        wait_until(lambda: link_is(mesh, "web1", relay, "down"), 10, "web1 to notice", every=0.2)
        with streaming(mesh, PAIRS) as felt:
            mesh.lab.salt.start_master()
            wait_until(planned_around(mesh, [relay], [relay]), 90, "the plan to follow", every=1.0)
        assert felt.losing == []
    assert mended(mesh, PAIRS).losing == []
