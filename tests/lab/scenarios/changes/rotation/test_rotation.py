"""Nodes get new keys without a disturbance."""

from __future__ import annotations

import pytest

from ....disruption import PLANNED, steady
from ....lossless import undisturbed
from ....mesh import Mesh, failures
from ....wait import wait_until
from ..edits import TALKS, known_keys, public_keys

KEY_FILES = "/etc/wireguard /var/lib/wgmesh /run/wgmesh"
LOST = "web2"


def _private(mesh: Mesh, node: str) -> str:
    return mesh.lab.underlay[node].run("wg", "show", mesh.name, "private-key").strip()


def _is_kept(mesh: Mesh, node: str, private: str) -> bool:
    """Return whether a file of the node still holds its old private key, which is put on no command line."""
    found = mesh.lab.underlay[node].run("sh", "-c", f"grep -rlF -f - {KEY_FILES} || true", stdin=private)
    return bool(found.strip())


@pytest.mark.parametrize("target", ["web1", "relay-fra1", "*"], ids=["leaf", "relay", "all nodes"])
def test_keys_are_rotated(mesh: Mesh, target: str):
    """All nodes know the new keys of the rotated nodes. No node, these included, has an old one."""
    named = set(mesh.members) if target == "*" else {target}
    before = public_keys(mesh)
    private = {node: _private(mesh, node) for node in named}
    with undisturbed(mesh, f"rotate {target}", talks=TALKS, concerned=named):
        mesh.lab.salt.salt_run("wgmesh.rotate", target, timeout=300)
        old = {before[node] for node in named}
        wait_until(lambda: not old & known_keys(mesh), 8 * PLANNED, "the old keys to be gone", every=1.0)
        mesh.settle(deadline=2 * PLANNED)
    after = public_keys(mesh)
    assert {node for node in mesh.members if after[node] != before[node]} == named
    assert [node for node, key in private.items() if _is_kept(mesh, node, key)] == []
    assert mesh.faults() == []


def test_lost_key_file_is_replaced(mesh: Mesh):
    """The key file is deleted while the interfaces are up. The formula makes a new key, which the mesh then uses."""
    machine = mesh.lab.underlay[LOST]
    machine.run("rm", "/etc/wireguard/wgmesh.key")
    assert failures(mesh.lab.salt.salt([LOST], "state.apply", "wgmesh", timeout=90), [LOST]) == []
    published = mesh.lab.salt.salt(LOST, "wgmesh.public_key")[LOST]

    def healed() -> bool:
        return public_keys(mesh)[LOST] == published

    wait_until(healed, 2 * PLANNED, "the node to run with the key that it has", every=0.5)
    mesh.settle(deadline=2 * PLANNED)
    steady(mesh, TALKS)
    assert "400" in machine.run("stat", "-c", "%a", "/etc/wireguard/wgmesh.key") or "600" in machine.run(
        "stat", "-c", "%a", "/etc/wireguard/wgmesh.key"
    )
    assert mesh.faults() == []
