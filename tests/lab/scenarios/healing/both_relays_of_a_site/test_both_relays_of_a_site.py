"""A site without reachable relays uses another site's, and its own again when they are back."""

from __future__ import annotations

from .... import faults
from ....disruption import PLANNED, broken, link_is, mended, relays_used
from ....mesh import Mesh

RELAYS = ("relay-fra1", "relay-fra2")
PAIRS = {"web1": "app1"}


def test_leaves_get_relay_of_another_site(mesh: Mesh):
    """The master assigns the other site's relay to the leaves, and their traffic uses it."""
    fault = faults.unplugged(mesh.lab.underlay, *RELAYS)
    felt, seen = broken(mesh, PAIRS, fault, lambda: link_is(mesh, "web1", "relay-nyc1", "up"))
    assert relays_used(seen) == {"relay-nyc1"}
    assert felt.longest < PLANNED


def test_return_of_relays_loses_no_packet(mesh: Mesh):
    """All links come up again after the cables are plugged in, and no packet is lost."""
    assert mended(mesh, PAIRS).losing == []
