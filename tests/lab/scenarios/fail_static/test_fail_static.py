"""The mesh needs Salt to change, not to run."""

from __future__ import annotations

import pytest

from ...demo.run import MESH, PRINTER, networks, policy
from ...demo.topology import DEMO
from ...lab import Lab
from ...mesh import Mesh, changes, failures, losing
from ...planned import Paths, paths

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
def plan(mesh: Mesh) -> Paths:
    """The plan, from when there was a master."""
    return paths(mesh.lab.salt, MESH)


def test_the_mesh_is_up(mesh: Mesh, plan: Paths):
    assert mesh.faults(plan) == []


def test_without_salt_it_runs_on(mesh: Mesh, plan: Paths):
    """All of Salt is killed at once, and not a packet is missing."""
    before = mesh.links()
    with mesh.streams(STREAMS) as losses:
        mesh.lab.salt.kill([*DEMO.minions, DEMO.master])
        assert mesh.faults(plan) == []
    assert losing(losses) == []
    assert mesh.links() == before


@pytest.mark.parametrize("name", ["web1", "laptop", "relay-nyc1"])
def test_a_node_boots_without_salt(mesh: Mesh, plan: Paths, name: str):
    """Only what systemd would start runs: wg-quick and the watcher."""
    machine = mesh.lab.underlay[name]
    mesh.lab.underlay.lose_power(name)
    assert mesh.overlay()[name] == ()
    for conf in machine.run("sh", "-c", "ls /etc/wireguard/*.conf").split():
        machine.run("wg-quick", "up", conf)
    mesh.lab.salt.start_watcher(name)
    assert mesh.faults(plan, deadline=40) == []


def test_salt_comes_back_and_finds_nothing_to_do(mesh: Mesh, plan: Paths):
    """On every node, the booted ones too."""
    fleet = mesh.lab.salt
    fleet.start()
    again = mesh.apply()
    assert failures(again, DEMO.minions) == []
    assert changes(again) == []
    assert paths(fleet, MESH) == plan
