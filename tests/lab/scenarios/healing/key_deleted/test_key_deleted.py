"""A node whose key is deleted is removed from the mesh, everywhere and for good."""

from __future__ import annotations

from dataclasses import replace

from .... import faults
from ....disruption import link_is, streaming
from ....mesh import Mesh, failures
from ....wait import wait_until

NODE = "web2"
AWAY = "relay-fra2"
"""A relay that has the node as a leaf."""
PAIRS = {"web1": "app1"}
memory: dict[str, object] = {}


def test_deleted_node_is_removed_everywhere(mesh: Mesh):
    """All members remove the node without a further command or a lost packet. One that is down does so afterwards."""
    rest = replace(mesh, members=tuple(n for n in mesh.members if n != NODE))
    memory["addresses"] = mesh.overlay()[NODE]
    memory["key"] = key = mesh.lab.underlay[NODE].run("wg", "show", mesh.name, "public-key").strip()
    with faults.unplugged(mesh.lab.underlay, AWAY):
        wait_until(lambda: link_is(mesh, "web1", AWAY, "down"), 10, f"{AWAY} to be away", every=0.2)
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


def test_deleted_node_is_not_planned(mesh: Mesh):
    """The plan no longer has the node."""
    published = mesh.lab.salt.salt_run("wgmesh.status", live=False)[mesh.name]
    assert NODE not in published["nodes"]


def test_new_node_with_old_id_inherits_address(mesh: Mesh):
    """A new machine with the old id and new keys joins by its acceptance alone, and gets the old address."""
    salt, machine = mesh.lab.salt, mesh.lab.underlay[NODE]
    salt.kill([NODE])
    # Until now the minion asked for acceptance with its old key.
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
    """Return the members that have a peer with this public key."""
    return {n for n in mesh.members if key in mesh.lab.underlay[n].run("wg", "show", "all", "peers")}
