"""A relay that reboots is left, and taken up again without a lost packet."""

from __future__ import annotations

from ....drill import HEALED, broken, first_relay, mended, planned_around, relays_used
from ....mesh import Mesh

PAIRS = {"web1": "app1", "web2": "app2"}
memory: dict[str, str] = {}


def test_traffic_goes_by_another_relay(mesh: Mesh):
    relay = memory["relay"] = first_relay(mesh, "web1")
    fault = mesh.lab.rebooted(relay)
    felt, seen = broken(mesh, PAIRS, fault, planned_around(mesh, [relay], [relay]))
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)


def test_it_is_back_before_its_minion_and_nothing_is_lost(mesh: Mesh):
    assert mended(mesh, PAIRS).losing == []
    assert mesh.faults() == []
