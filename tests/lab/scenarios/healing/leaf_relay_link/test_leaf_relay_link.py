"""One dead link moves the leaf that has it, and no other."""

from __future__ import annotations

from .... import faults
from ....disruption import HEALED, believed, broken, first_relay, hops, link, mended, planned_around
from ....mesh import Mesh
from ....planned import status

PAIRS = {"web1": "app1", "web2": "app2"}
memory: dict[str, str] = {}


def test_both_directions_use_another_relay(mesh: Mesh):
    """The leaf of the dead link gets another first relay. No other leaf is moved, and the relay is not down."""
    relay = memory["relay"] = first_relay(mesh, "web1")
    fault = faults.cut(mesh.lab.underlay, "web1", relay)
    before = _homes(mesh)
    felt, seen = broken(mesh, PAIRS, fault, planned_around(mesh, [link("web1", relay)]))
    assert felt.longest < HEALED
    assert frozenset(("web1", relay)) not in hops(seen)
    after = _homes(mesh)
    assert relay != after["web1"][0]
    assert {node: homes for node, homes in after.items() if before[node] != homes}.keys() == {"web1"}, believed(mesh)
    assert relay not in status(mesh.lab.salt, mesh.name)["outages"]


def test_return_of_link_loses_no_packet(mesh: Mesh):
    """The link comes up again, and no packet is lost."""
    assert mended(mesh, PAIRS).losing == []


def _homes(mesh: Mesh) -> dict[str, list[str]]:
    nodes = status(mesh.lab.salt, mesh.name)["nodes"]
    return {node: row["relays"] for node, row in nodes.items()}
