"""Whose key is deleted is out, everywhere and for good."""

from __future__ import annotations

from dataclasses import replace

from .... import faults
from ....drill import says, streaming
from ....mesh import Mesh, failures
from ....wait import wait_until

NODE = "web2"
AWAY = "relay-fra2"
"""It has the node as a leaf."""
PAIRS = {"web1": "app1"}
memory: dict[str, object] = {}


def test_all_others_drop_it(mesh: Mesh):
    """Without another command, and without a packet lost between the others. One of them is away meanwhile."""
    rest = replace(mesh, members=tuple(n for n in mesh.members if n != NODE))
    memory["addresses"] = mesh.overlay()[NODE]
    memory["key"] = key = mesh.lab.underlay[NODE].run("wg", "show", mesh.name, "public-key").strip()
    with faults.unplugged(mesh.lab.underlay, AWAY):
        wait_until(lambda: says(mesh, "web1", AWAY, "down"), 10, f"{AWAY} to be away", every=0.2)
        with streaming(rest, PAIRS) as felt:
            mesh.lab.salt.delete_key(NODE)
            wait_until(lambda: _holders(rest, key) == {AWAY}, 60, "the others to drop it", every=0.5)
        assert felt.losing == []
    wait_until(lambda: not _holders(rest, key), 180, f"{AWAY} to drop it too", every=1.0)
    assert (
        not mesh.lab.underlay["web1"]
        .run("ping", "-c", "3", "-w", "2", mesh.overlay()[NODE][0], check=False)
        .count("bytes from")
    )


def test_its_address_is_reserved(mesh: Mesh):
    """Nothing of it is in the plan."""
    told = mesh.lab.salt.salt_run("wgmesh.status", live=False)[mesh.name]
    assert NODE not in told["nodes"]


def test_a_node_that_uses_the_id_again_inherits_the_address_alone(mesh: Mesh):
    """A fresh machine with new keys joins by its acceptance alone."""
    salt, machine = mesh.lab.salt, mesh.lab.underlay[NODE]
    salt.kill([NODE])
    # Until then it asked to be accepted again, with its old key.
    salt.delete_key(NODE)
    machine.run("sh", "-c", f"rm -rf {machine.folder}/salt/pki /var/lib/wgmesh /etc/wireguard/*")
    mesh.lab.underlay.lose_power(NODE)
    salt.start_minion(NODE)
    salt.accept_keys([NODE])
    mesh.settle(deadline=90)
    assert mesh.overlay()[NODE] == memory["addresses"]
    assert machine.run("wg", "show", mesh.name, "public-key").strip() != memory["key"]
    assert mesh.faults() == []
    assert failures(mesh.apply(), mesh.members) == []


def _holders(mesh: Mesh, key: str) -> set[str]:
    """The members that have a peer with this public key."""
    return {n for n in mesh.members if key in mesh.lab.underlay[n].run("wg", "show", "all", "peers")}
