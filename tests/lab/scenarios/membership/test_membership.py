"""A node that joins or leaves disturbs no other node."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from ...demo.run import MESH, PRINTER, networks, policy
from ...demo.topology import DEMO
from ...lab import Lab
from ...mesh import Mesh, failures, losing
from ...saltconf import NO_SCHEDULE

TOPOLOGY = DEMO
POLICY = policy()
MASTER_OPTIONS = NO_SCHEDULE
LATER = ("app2",)
NEW = LATER[0]
OLD = tuple(name for name in DEMO.minions if name != NEW)
STREAMS = {"web1": "app1", "app1": "web2", "printer": "web1", "relay-fra2": "gw1"}
memory: dict[str, Any] = {}


@pytest.fixture(scope="module")
def eight(fleet: Lab) -> Mesh:
    """Return the mesh without the new node."""
    return Mesh(lab=fleet, name=MESH, networks=tuple(networks(POLICY)), members=OLD, lan=PRINTER)


@pytest.fixture(scope="module")
def nine(eight: Mesh) -> Mesh:
    """Return the mesh with the new node."""
    return replace(eight, members=DEMO.minions)


def peers(mesh: Mesh, key: str) -> set[str]:
    """Return the members that have a peer with this public key."""
    underlay = mesh.lab.underlay
    return {n for n in mesh.members if key in underlay[n].run("wg", "show", "all", "peers")}


def test_eight_nodes_form_mesh(eight: Mesh):
    """Eight nodes settle, and all pairs use the planned paths."""
    assert failures(eight.apply(), OLD) == []
    eight.settle()
    assert eight.faults() == []
    memory["overlay"] = eight.overlay()


def test_join_disturbs_no_other_node(eight: Mesh, nine: Mesh):
    """While a ninth node joins, the others lose no packet and keep their addresses and interfaces."""
    salt = eight.lab.salt
    before = eight.links()
    salt.start_minion(NEW)
    salt.accept_keys([NEW])
    salt.await_minions([NEW])
    with eight.streams(STREAMS) as losses:
        assert failures(salt.salt([NEW], "state.apply", "wgmesh", timeout=90), LATER) == []
        nine.settle()
    assert losing(losses) == []
    assert nine.faults() == []
    assert eight.overlay() == memory["overlay"]
    assert eight.links() == before
    memory["new"] = nine.overlay()[NEW]


def test_node_with_deleted_key_is_removed(eight: Mesh, nine: Mesh):
    """No member has the node as a peer, and nothing else changes."""
    salt = eight.lab.salt
    key = nine.lab.underlay[NEW].run("wg", "show", MESH, "public-key").strip()
    assert peers(eight, key)
    before = eight.links()
    with eight.streams(STREAMS) as losses:
        salt.kill([NEW])
        salt.delete_key(NEW)
        salt.salt_run("wgmesh.converge")
        eight.settle()
    assert peers(eight, key) == set()
    assert losing(losses) == []
    assert eight.faults() == []
    assert eight.overlay() == memory["overlay"]
    assert eight.links() == before


def test_node_removed_from_policy_loses_interfaces(eight: Mesh):
    """The next converge removes the node's interfaces, without a command on it. Other nodes are not disturbed."""
    salt = eight.lab.salt
    rest = replace(eight, members=tuple(name for name in OLD if name != "laptop"))
    smaller = copy.deepcopy(POLICY)
    del smaller["wgmesh"][MESH]["nodes"]["laptop"]
    before = rest.links()
    with rest.streams(STREAMS) as losses:
        salt.set_policy(smaller)
        salt.salt_run("wgmesh.converge")
        assert set(salt.salt_run("wgmesh.status")[MESH]["nodes"]) == set(rest.members)
    assert eight.overlay()["laptop"] == ()
    assert losing(losses) == []
    assert rest.faults() == []
    assert rest.links() == before


def test_returning_nodes_get_their_addresses_back(eight: Mesh, nine: Mesh):
    """One node returns by the policy alone, the other by acceptance of its old key and an apply."""
    salt = nine.lab.salt
    salt.set_policy(POLICY)
    salt.salt_run("wgmesh.converge")
    eight.settle()
    assert eight.overlay() == memory["overlay"]
    salt.start_minion(NEW)
    salt.accept_keys([NEW])
    salt.await_minions([NEW])
    assert failures(salt.salt([NEW], "state.apply", "wgmesh", timeout=90), LATER) == []
    nine.settle()
    assert nine.overlay()[NEW] == memory["new"]
    assert nine.faults() == []
