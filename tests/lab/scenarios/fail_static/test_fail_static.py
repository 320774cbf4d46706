"""The mesh needs Salt for changes only."""

from __future__ import annotations

import pytest

from ...demo.run import MESH, PRINTER, networks, policy
from ...demo.topology import DEMO
from ...lab import Lab
from ...mesh import Mesh, changes, failures, losing
from ...planned import PathsByFamily, paths

TOPOLOGY = DEMO
POLICY = policy()
STREAMS = {"web1": "app1", "app2": "laptop", "laptop": "web2", "printer": "web1"}


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    mesh = Mesh(lab=fleet, name=MESH, networks=tuple(networks(POLICY)), members=DEMO.minions, lan=PRINTER)
    assert failures(mesh.apply(), DEMO.minions) == []
    mesh.settle()
    return mesh


@pytest.fixture(scope="module")
def plan(mesh: Mesh) -> PathsByFamily:
    """Return the plan, read while the master runs."""
    return paths(mesh.lab.salt, MESH)


def test_mesh_is_up(mesh: Mesh, plan: PathsByFamily):
    """All pairs use the planned paths before Salt is killed."""
    assert mesh.faults(plan) == []


def test_mesh_survives_death_of_salt(mesh: Mesh, plan: PathsByFamily):
    """All Salt processes are killed at once, and no packet is lost."""
    before = mesh.links()
    with mesh.streams(STREAMS) as losses:
        mesh.lab.salt.kill([*DEMO.minions, DEMO.master])
        assert mesh.faults(plan) == []
    assert losing(losses) == []
    assert mesh.links() == before


@pytest.mark.parametrize("name", ["web1", "laptop", "relay-nyc1"])
def test_node_boots_without_salt(mesh: Mesh, plan: PathsByFamily, name: str):
    """A node that boots with wg-quick and the watcher only is back in the mesh, by the planned paths."""
    machine = mesh.lab.underlay[name]
    mesh.lab.underlay.lose_power(name)
    assert mesh.overlay()[name] == ()
    for conf in machine.run("sh", "-c", "ls /etc/wireguard/*.conf").split():
        machine.run("wg-quick", "up", conf)
    mesh.lab.salt.start_watcher(name)
    assert mesh.faults(plan, deadline=40) == []


def test_salt_returns_without_changes(mesh: Mesh, plan: PathsByFamily):
    """An apply after the return of Salt has no changes on any node, and the plan is the same."""
    fleet = mesh.lab.salt
    fleet.start()
    again = mesh.apply()
    assert failures(again, DEMO.minions) == []
    assert changes(again) == []
    assert paths(fleet, MESH) == plan
