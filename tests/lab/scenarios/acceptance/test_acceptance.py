"""A node joins by any acceptance of its key alone, and is removed as soon as the key is rejected."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ...lab import Lab
from ...mesh import Mesh
from ...topology import MachineSpec, Topology, host
from ...wait import wait_until

RELAY = "relay1"
LATER = ("byhand", "seeded", "signed")
MESH = "wg0"
AUTOSIGN = "/run/autosign"


def _machine(name: str, number: int) -> MachineSpec:
    return host(name, "lan", f"192.0.2.{number}/24")


TOPOLOGY = Topology(
    master="master",
    minions=(RELAY, *LATER),
    machines=tuple(_machine(name, i) for i, name in enumerate(("master", RELAY, *LATER), 10)),
)
POLICY = {
    "wgmesh": {
        MESH: {
            "network": "10.100.0.0/16",
            "nodes": {RELAY: {"role": "relay", "endpoint": "192.0.2.11"}, **{name: {} for name in LATER}},
        }
    }
}
MASTER_OPTIONS = {"autosign_file": AUTOSIGN}


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    return Mesh(lab=fleet, name=MESH, networks=("10.100.0.0/16",), members=TOPOLOGY.minions)


def test_accepted_node_joins_without_command(mesh: Mesh):
    """A key that is accepted by hand, by autosign or in advance brings its node into the mesh."""
    salt = mesh.lab.salt
    salt.master.run("sh", "-c", f"umask 077; echo signed > {AUTOSIGN}")
    salt.preseed("seeded")
    for name in LATER:
        salt.start_minion(name)
    salt.accept_keys(["byhand"])
    mesh.settle(deadline=90)
    assert mesh.faults() == []


def test_rejected_node_is_removed(mesh: Mesh):
    """All other nodes remove the peer, though the rejected node's watcher keeps running."""
    rest = replace(mesh, members=tuple(n for n in mesh.members if n != "byhand"))
    key = mesh.lab.underlay["byhand"].run("wg", "show", MESH, "public-key").strip()
    mesh.lab.salt.reject_key("byhand")
    wait_until(
        lambda: not any(key in mesh.lab.underlay[n].run("wg", "show", "all", "peers") for n in rest.members),
        60,
        "all other nodes to remove it",
        every=0.5,
    )
    rest.settle()
    assert rest.faults() == []
