"""A relay vanishes: its leaves take another, keep it, and lose nothing when it returns."""

from __future__ import annotations

from .... import faults
from ....drill import HEALED, broken, first_relay, mended, planned_around, relays_used
from ....mesh import Mesh
from ....planned import status

PAIRS = {"web1": "app1", "web2": "app2"}
memory: dict[str, str] = {}


def test_its_leaves_take_another_relay_and_the_plan_follows(mesh: Mesh):
    relay = memory["relay"] = first_relay(mesh, "web1")
    fault = faults.unplugged(mesh.lab.underlay, relay)
    felt, seen = broken(mesh, PAIRS, fault, planned_around(mesh, [relay], [relay]))
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)


def test_every_leaf_has_two_relays_that_live(mesh: Mesh):
    """By the plan that was made while it was down, which still stands."""
    nodes = status(mesh.lab.salt, mesh.name)["nodes"]
    homes = {node: row["relays"] for node, row in nodes.items() if row["relays"]}
    assert all(len(relays) == 2 and memory["relay"] != relays[0] for relays in homes.values()), homes


def test_when_it_returns_nothing_is_lost_and_nobody_moves_back(mesh: Mesh):
    assert mended(mesh, PAIRS).losing == []
    assert first_relay(mesh, "web1") != memory["relay"]
