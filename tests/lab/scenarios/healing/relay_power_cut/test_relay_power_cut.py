"""A relay loses power: its leaves use another, keep it, and lose no packet when it returns."""

from __future__ import annotations

from .... import faults
from ....disruption import HEALED, broken, first_relay, mended, planned_around, relays_used
from ....mesh import Mesh
from ....planned import status

PAIRS = {"web1": "app1", "web2": "app2"}
memory: dict[str, str] = {}


def test_leaves_of_dead_relay_use_another(mesh: Mesh):
    """The leaves use another relay by themselves, and the master's plan follows."""
    relay = memory["relay"] = first_relay(mesh, "web1")
    fault = faults.unplugged(mesh.lab.underlay, relay)
    felt, seen = broken(mesh, PAIRS, fault, planned_around(mesh, [relay], [relay]))
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)


def test_every_leaf_has_two_live_relays(mesh: Mesh):
    """The published plan, made while the relay was down, gives each leaf two relays, and not the dead one first."""
    nodes = status(mesh.lab.salt, mesh.name)["nodes"]
    homes = {node: row["relays"] for node, row in nodes.items() if row["relays"]}
    assert all(len(relays) == 2 and memory["relay"] != relays[0] for relays in homes.values()), homes


def test_return_of_relay_moves_no_leaf(mesh: Mesh):
    """The return of the relay loses no packet and moves no leaf back."""
    assert mended(mesh, PAIRS).losing == []
    assert first_relay(mesh, "web1") != memory["relay"]
