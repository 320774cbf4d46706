"""Traffic is routed around a dead trunk."""

from __future__ import annotations

from .... import faults
from ....disruption import HEALED, broken, first_relay, hops, link, mended, planned_around
from ....mesh import Mesh

PAIRS = {"web1": "app1", "web2": "app2"}


def test_traffic_avoids_dead_trunk(mesh: Mesh):
    """Traffic between the two relays' leaves takes a path without the dead trunk."""
    near, far = first_relay(mesh, "web1"), first_relay(mesh, "app1")
    assert near != far
    fault = faults.cut(mesh.lab.underlay, near, far)
    felt, seen = broken(mesh, PAIRS, fault, planned_around(mesh, [link(near, far)]))
    assert felt.longest < HEALED
    assert frozenset((near, far)) not in hops(seen)


def test_return_of_trunk_loses_no_packet(mesh: Mesh):
    """The trunk comes up again, and no packet is lost."""
    assert mended(mesh, PAIRS).losing == []
