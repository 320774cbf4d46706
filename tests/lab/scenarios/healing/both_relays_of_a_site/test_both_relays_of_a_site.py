"""A site without relays gets another site's, and its own when they are back."""

from __future__ import annotations

from .... import faults
from ....drill import PLANNED, broken, mended, relays_used, says
from ....mesh import Mesh

RELAYS = ("relay-fra1", "relay-fra2")
PAIRS = {"web1": "app1"}


def test_the_leaves_get_another_sites_relay(mesh: Mesh):
    fault = faults.unplugged(mesh.lab.underlay, *RELAYS)
    felt, seen = broken(mesh, PAIRS, fault, lambda: says(mesh, "web1", "relay-nyc1", "up"))
    assert relays_used(seen) == {"relay-nyc1"}
    assert felt.longest < PLANNED


def test_when_they_return_nothing_is_lost(mesh: Mesh):
    assert mended(mesh, PAIRS).losing == []
