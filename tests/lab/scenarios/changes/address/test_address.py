"""A leaf gets another overlay address."""

from __future__ import annotations

from ....mesh import Mesh
from ....planned import status
from ..edits import changed, edited, policy

MOVED, ADDRESS = "web2", "10.100.200.200"
TALKS = {"web1": "app1", "app2": "gw1"}


def _moved(mesh: dict) -> None:
    mesh["nodes"] = {MOVED: {"site": "fra", "address": ADDRESS}, **mesh["nodes"]}


def _addresses(mesh: Mesh) -> list[str]:
    return list(status(mesh.lab.salt, mesh.name)["nodes"][MOVED]["addresses"])


def _changed(mesh: Mesh, name: str, wanted: dict, address: str) -> None:
    others = [node for node in mesh.members if node != MOVED and not node.startswith("relay")]

    def has() -> bool:
        found = [a for a in _addresses(mesh) if "." in a]
        return found == [address]

    changed(mesh, name, wanted, has, [MOVED], leaves=others, talks=TALKS)


def test_leaf_address_changes_and_returns(mesh: Mesh):
    """Traffic between unchanged addresses loses no packet. Afterwards every node reaches the leaf's new address."""
    before = next(a for a in _addresses(mesh) if "." in a)
    _changed(mesh, "address changed", edited(_moved), ADDRESS)
    back = edited(lambda m: m.update(nodes={MOVED: {"site": "fra", "address": before}, **m["nodes"]}))
    _changed(mesh, "address changed back", back, before)
    _changed(mesh, "address as it was", policy(), before)
