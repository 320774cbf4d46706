"""Traffic of a dead direct link uses a relay, and the link again when it returns."""

from __future__ import annotations

from .... import faults
from ....disruption import HEALED, broken, link, link_is, mended, planned_around, relays_used, ways
from ....mesh import Mesh

PAIRS = {"web1": "web2"}


def test_dead_direct_link_is_relayed(mesh: Mesh):
    """Both directions use a relay of the site."""
    fault = faults.cut(mesh.lab.underlay, "web1", "web2")
    felt, seen = broken(mesh, PAIRS, fault, planned_around(mesh, [link("web1", "web2")]))
    assert felt.longest < HEALED
    assert all(relays_used({pair: way}) & {"relay-fra1", "relay-fra2"} for pair, way in seen.items()), seen


def test_return_of_direct_link_loses_no_packet(mesh: Mesh):
    """The link is used again without a lost packet. A rebalance shortens the wait-to-restore time."""

    def direct() -> bool:
        if not link_is(mesh, "web1", "web2", "up"):
            return False
        mesh.lab.salt.salt_run("wgmesh.rebalance")
        return not relays_used(ways(mesh, PAIRS))

    assert mended(mesh, PAIRS, direct).losing == []
