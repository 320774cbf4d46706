"""A leaf gets other relays, and a relay leaves and joins."""

from __future__ import annotations

from dataclasses import replace

from ....disruption import first_relay, relays_used, ways
from ....mesh import Mesh
from ....planned import status
from ..edits import TALKS, changed, edited, holders, policy

MOVED, GONE = "web2", "relay-fra2"
LEAVES = ("web1", "web2", "app1", "app2", "gw1", "laptop", GONE)
"""All leaves, and the relay that becomes a leaf."""


def _moved(mesh: dict) -> None:
    mesh["sites"]["ams"] = {"relays": ["relay-nyc1", GONE]}
    mesh["nodes"] = {MOVED: {"site": "ams"}, **mesh["nodes"]}


def _without(mesh: dict) -> None:
    del mesh["nodes"][GONE]
    mesh["sites"]["fra"]["relays"] = ["relay-fra1", "relay-nyc1"]


def _leaf(mesh: dict) -> None:
    mesh["nodes"][GONE] = {"site": "fra", "endpoint": "203.0.113.11"}
    mesh["sites"]["fra"]["relays"] = ["relay-fra1", "relay-nyc1"]


def _relays(mesh: Mesh, leaf: str) -> list[str]:
    return list(status(mesh.lab.salt, mesh.name)["nodes"][leaf]["relays"])


def test_leaf_moves_to_another_site(mesh: Mesh):
    """The leaf uses the relays of its new site."""
    changed(
        mesh,
        "leaf moved to another site",
        edited(_moved),
        lambda: set(_relays(mesh, MOVED)) == {"relay-nyc1", GONE},
        [MOVED],
    )
    assert first_relay(mesh, MOVED) in {"relay-nyc1", GONE}


def test_leaf_moves_back(mesh: Mesh):
    """The leaf uses a relay of its old site again."""
    changed(mesh, "leaf moved back", policy(), lambda: "relay-fra1" in _relays(mesh, MOVED), [MOVED])


def test_relay_leaves_mesh(mesh: Mesh):
    """The relay forwards nothing, and no other node has it as a peer."""
    rest = replace(mesh, members=tuple(n for n in mesh.members if n != GONE))
    key = mesh.lab.underlay[GONE].run("wg", "show", mesh.name, "public-key").strip()

    def gone() -> bool:
        return not any(key in mesh.lab.underlay[n].run("wg", "show", "all", "peers") for n in rest.members)

    changed(rest, "relay removed", edited(_without), gone, [GONE])
    assert GONE not in relays_used(ways(rest, TALKS))


def test_relay_joins_mesh(mesh: Mesh):
    """More than three nodes have the relay as a peer after it is back in the policy."""
    changed(mesh, "relay added", policy(), lambda: len(holders(mesh, GONE)) > 3, [GONE])


def test_relay_becomes_leaf(mesh: Mesh):
    """The former relay has relays of its own."""
    changed(mesh, "relay becomes a leaf", edited(_leaf), lambda: _relays(mesh, GONE) != [], [GONE], leaves=LEAVES)


def test_leaf_becomes_relay(mesh: Mesh):
    """The former leaf has no relays of its own."""
    changed(mesh, "leaf becomes a relay", policy(), lambda: _relays(mesh, GONE) == [], [GONE], leaves=LEAVES)
