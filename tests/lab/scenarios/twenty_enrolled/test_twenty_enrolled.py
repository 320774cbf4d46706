"""Twenty minions that start at once join the mesh without a command, in a few planner runs."""

from __future__ import annotations

import json
import os
import time

import pytest

from ...lab import Lab
from ...machine import CommandFailed
from ...mesh import Mesh
from ...topology import MachineSpec, Topology, host
from ...wait import wait_until

pytestmark = pytest.mark.skipif(not os.environ.get("WGMESH_LAB_ALL"), reason="takes minutes: WGMESH_LAB_ALL=1 runs it")
RELAYS = ("relay1", "relay2")
LATER = tuple(f"n{i:02}" for i in range(1, 21))
MESH = "wg0"


def _machine(name: str, number: int) -> MachineSpec:
    return host(name, "lan", f"192.0.2.{number}/24")


TOPOLOGY = Topology(
    master="master",
    minions=(*RELAYS, *LATER),
    machines=tuple(_machine(name, i) for i, name in enumerate(("master", *RELAYS, *LATER), 10)),
)
POLICY = {
    "wgmesh": {
        MESH: {
            "network": "10.100.0.0/16",
            "nodes": {
                "relay1": {"role": "relay", "endpoint": "192.0.2.11"},
                "relay2": {"role": "relay", "endpoint": "192.0.2.12"},
                "n*": {},
            },
        }
    }
}
MASTER_OPTIONS = {"auto_accept": True, "worker_threads": 5}
HANDFUL = 12
"""The most planner runs for two events of each of twenty nodes: its start and its facts."""


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    return Mesh(lab=fleet, name=MESH, networks=("10.100.0.0/16",), members=TOPOLOGY.minions)


def test_two_relays_form_mesh(mesh: Mesh):
    """The start events of two relays are enough to form a mesh."""
    Mesh(lab=mesh.lab, name=MESH, networks=mesh.networks, members=RELAYS).settle()


def test_twenty_nodes_join_at_once(mesh: Mesh):
    """Twenty nodes join without a command, in at most HANDFUL planner runs."""
    salt = mesh.lab.salt
    lock = salt.master.folder / "salt" / "cache" / "wgmesh" / "converge.lock"
    runs = set(_begun(lock.read_text()))
    before, began = len(runs), time.monotonic()
    for name in LATER:
        salt.start_minion(name)

    def all_in() -> bool:
        runs.update(_begun(lock.read_text()))
        return all(salt.links(name, MESH) for name in LATER)

    wait_until(all_in, 240, "all to be in the mesh", every=0.1)
    took = time.monotonic() - began
    settled = mesh.settle(deadline=120)
    runs.update(_begun(lock.read_text()))
    print(
        f"{took:.0f} s from the start of twenty minions; {len(runs) - before} runs, generation {settled['generation']}"
    )
    assert len(runs) - before <= HANDFUL


def test_every_pair_reaches_each_other(mesh: Mesh):
    """Every node reaches the first address of every node after it in order."""
    overlay = mesh.overlay()
    for source in mesh.members:
        for target, addresses in overlay.items():
            if source < target:
                _reaches(mesh, source, addresses[0])


def _reaches(mesh: Mesh, source: str, address: str) -> None:
    def answered() -> bool:
        try:
            mesh.lab.underlay[source].run("ping", "-q", "-c", "1", "-w", "1", address)
        except CommandFailed:
            return False
        return True

    wait_until(answered, 10, f"{source} to reach {address}")


def _begun(text: str) -> list[float]:
    """Return the start times of the last runs from the lock file. A half-written file has none."""
    try:
        return list(json.loads(text)["begun"])
    except (ValueError, KeyError):
        return []
