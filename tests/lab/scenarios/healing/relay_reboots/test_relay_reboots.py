"""Traffic avoids a relay that reboots, and uses it again without a lost packet."""

from __future__ import annotations

from ....disruption import HEALED, broken, first_relay, mended, planned_around, relays_used
from ....mesh import Mesh

PAIRS = {"web1": "app1", "web2": "app2"}
memory: dict[str, str] = {}


def test_traffic_avoids_rebooting_relay(mesh: Mesh):
    """The leaves use another relay, and the master's plan follows."""
    relay = memory["relay"] = first_relay(mesh, "web1")
    fault = mesh.lab.rebooted(relay)
    felt, seen = broken(mesh, PAIRS, fault, planned_around(mesh, [relay], [relay]))
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)


def test_return_of_relay_loses_no_packet(mesh: Mesh):
    """wg-quick and the watcher restore the relay's links, and no packet is lost."""
    assert mended(mesh, PAIRS).losing == []
    assert mesh.faults() == []
