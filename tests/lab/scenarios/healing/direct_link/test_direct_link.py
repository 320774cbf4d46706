"""A dead direct link is relayed, and direct again when it returns."""

from __future__ import annotations

from .... import faults
from ....drill import HEALED, broken, link, mended, planned_around, relays_used, says, ways
from ....mesh import Mesh

PAIRS = {"web1": "web2"}


def test_it_is_relayed(mesh: Mesh):
    fault = faults.cut(mesh.lab.underlay, "web1", "web2")
    felt, seen = broken(mesh, PAIRS, fault, planned_around(mesh, [link("web1", "web2")]))
    assert felt.longest < HEALED
    assert all(relays_used({pair: way}) & {"relay-fra1", "relay-fra2"} for pair, way in seen.items()), seen


def test_when_it_returns_it_is_direct_and_nothing_is_lost(mesh: Mesh):
    """The operator does not wait until it has been good for long enough."""

    def direct() -> bool:
        if not says(mesh, "web1", "web2", "up"):
            return False
        mesh.lab.salt.salt_run("wgmesh.rebalance")
        return not relays_used(ways(mesh, PAIRS))

    assert mended(mesh, PAIRS, direct).losing == []
