"""Every topology connects every pair on the same fleet, and so do two meshes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from ... import planned
from ...demo.run import MESH, PRINTER, networks, policy
from ...demo.topology import DEMO
from ...lab import Lab
from ...machine import CommandFailed
from ...mesh import Mesh, failures
from ...saltconf import NO_SCHEDULE

TOPOLOGY = DEMO
POLICY = policy()
# Another topology removes most direct links.
POLICY["wgmesh"][MESH]["prune_guard"] = 100
MASTER_OPTIONS = NO_SCHEDULE
memory: dict[str, Any] = {}


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    """Return the demo's mesh."""
    return Mesh(lab=fleet, name=MESH, networks=tuple(networks(POLICY)), members=DEMO.minions, lan=PRINTER)


def converge(mesh: Mesh, changed: dict[str, Any]) -> None:
    """Set the policy, converge and settle."""
    mesh.lab.salt.set_policy(changed)
    mesh.lab.salt.salt_run("wgmesh.converge")
    mesh.settle()


def shaped(topology: str) -> dict[str, Any]:
    """Return the demo's policy with another topology."""
    changed = copy.deepcopy(POLICY)
    changed["wgmesh"][MESH]["topology"] = topology
    return changed


def direct(mesh: Mesh) -> set[tuple[str, str]]:
    """Return the pairs of leaves without a relay between them in the plan."""
    paths = planned.paths(mesh.lab.salt, mesh.name)[4]
    return {
        (a, b)
        for a, row in paths.items()
        for b, hops in row.items()
        if a < b and len(list(hops)) == 2 and "relay" not in a + b
    }


SITES = {("app1", "app2"), ("app1", "gw1"), ("app2", "gw1"), ("web1", "web2")}


def test_partial_links_leaves_of_site(mesh: Mesh):
    """With ``partial`` the leaves of a site are linked directly, and no other pair of leaves."""
    assert failures(mesh.apply(), DEMO.minions) == []
    mesh.settle()
    assert mesh.faults() == []
    assert direct(mesh) == SITES
    memory["overlay"] = mesh.overlay()


def test_full_links_no_unreachable_pair(mesh: Mesh):
    """With ``full`` pairs across sites use relays, since no leaf has an endpoint. All pairs reach each other."""
    converge(mesh, shaped("full"))
    assert direct(mesh) == SITES
    assert mesh.faults() == []


def test_hub_links_no_leaves(mesh: Mesh):
    """With ``hub`` no two leaves are linked directly, and all pairs reach each other."""
    converge(mesh, shaped("hub"))
    assert direct(mesh) == set()
    assert mesh.faults() == []


@pytest.fixture(scope="module")
def second(mesh: Mesh) -> Mesh:
    """Return a second mesh of four of the nodes, beside the first."""
    changed = copy.deepcopy(POLICY)
    changed["wgmesh"]["wg9"] = {
        "network": ["10.109.0.0/24"],
        "listen_port": 51900,
        "nodes": {
            "relay-fra1": {"role": "relay", "endpoint": "203.0.113.10:51900"},
            "web1": {},
            "app1": {},
            "laptop": {"nat": True},
        },
    }
    members = ("relay-fra1", "web1", "app1", "laptop")
    converge(mesh, changed)
    return replace(mesh, name="wg9", networks=("10.109.0.0/24",), members=members, lan=None)


def test_two_meshes_share_their_nodes(mesh: Mesh, second: Mesh):
    """Both meshes connect all their pairs, each by its own interfaces."""
    second.settle()
    assert second.faults() == []
    assert mesh.faults() == []
    assert {"wg0", "wg9"} <= mesh.lab.underlay["web1"].links().keys()
    assert "wg9" not in mesh.lab.underlay["web2"].links()


def test_addresses_survive_topology_changes(mesh: Mesh):
    """The nodes have the addresses of the first step."""
    assert mesh.overlay() == memory["overlay"]


def test_invalid_policy_changes_nothing(mesh: Mesh):
    """Each mistake has its own line, the exit status is not 0, and no interface is recreated."""
    before = mesh.links()
    broken = copy.deepcopy(POLICY)
    broken["wgmesh"][MESH]["nodes"]["gw1"]["routes"] = ["10.100.7.0/24"]
    broken["wgmesh"][MESH]["nodes"]["relay-nyc1"].pop("endpoint")
    broken["wgmesh"][MESH]["sites"]["fra"]["relays"] = ["relay-fra1", "relay-fra9"]
    mesh.lab.salt.set_policy(broken)
    with pytest.raises(CommandFailed) as refused:
        mesh.lab.salt.salt_run("wgmesh.converge")
    for place in ("nodes:gw1:routes", "nodes:relay-nyc1", "sites:fra:relays"):
        assert f"wgmesh:{MESH}:{place}" in str(refused.value)
    assert mesh.links() == before
    assert mesh.faults(planned.paths(mesh.lab.salt, MESH)) == []
