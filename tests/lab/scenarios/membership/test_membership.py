"""A join or a leave touches only those concerned."""

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
    """The mesh without the new node."""
    return Mesh(lab=fleet, name=MESH, networks=tuple(networks(POLICY)), members=OLD, lan=PRINTER)


@pytest.fixture(scope="module")
def nine(eight: Mesh) -> Mesh:
    """The mesh with it."""
    return replace(eight, members=DEMO.minions)


def peers(mesh: Mesh, key: str) -> set[str]:
    """The members that have a peer with this public key."""
    underlay = mesh.lab.underlay
    return {n for n in mesh.members if key in underlay[n].run("wg", "show", "all", "peers")}


def test_eight_nodes_are_a_mesh(eight: Mesh):
    assert failures(eight.apply(), OLD) == []
    eight.settle()
    assert eight.faults() == []
    memory["overlay"] = eight.overlay()


def test_a_node_joins_and_no_other_packet_is_lost(eight: Mesh, nine: Mesh):
    """The others keep their addresses and interfaces."""
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


def test_a_node_whose_key_is_deleted_is_out(eight: Mesh, nine: Mesh):
    """No member has it as a peer; nothing else changes."""
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


def test_a_node_that_leaves_the_policy_loses_its_interfaces(eight: Mesh):
    """By the next converge, without a command on the node; the others notice nothing."""
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


def test_nodes_that_come_back_have_their_addresses_again(eight: Mesh, nine: Mesh):
    """The one by a new acceptance of its old key and the command, the other by the policy alone."""
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
