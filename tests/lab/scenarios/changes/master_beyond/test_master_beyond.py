"""A node that has its master by way of the mesh, and a policy that would take that way away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ....calm import undisturbed
from ....demo.topology import GATEWAY, OFFICE_LAN
from ....drill import PLANNED
from ....machine import CommandFailed
from ....mesh import Mesh
from ....planned import status
from ....wait import wait_until
from ..edits import TALKS, converge, edited, policy, restored

NODE = "laptop"
SERVICE = "10.99.0.1"
"""Where the gateway takes calls for the master."""
PORTS = "{ 4505, 4506 }"


def _reached(mesh: dict) -> None:
    mesh["nodes"] = {**mesh["nodes"], GATEWAY: {"site": "nyc", "routes": [OFFICE_LAN, f"{SERVICE}/32"]}}


@pytest.fixture(scope="module")
def beyond(mesh: Mesh) -> Iterator[Mesh]:
    """The mesh; NODE calls its master by the gateway."""
    salt, gateway = mesh.lab.salt, mesh.lab.underlay[GATEWAY]
    master = mesh.lab.underlay.topology.machine(salt.master.name).address
    calls = f"tcp dport {PORTS}"
    rules = (
        f"chain in {{ type nat hook prerouting priority -100; ip daddr {SERVICE} {calls} dnat ip to {master}; }}\n"
        f"chain out {{ type nat hook postrouting priority 100; ip daddr {master} {calls} masquerade; }}\n"
    )
    gateway.run("nft", "-f", "-", stdin=f"table ip beyond {{\n{rules}}}\n")
    try:
        converge(mesh, edited(_reached), lambda: SERVICE in mesh.lab.underlay[NODE].run("ip", "route"))
        salt.restart_minion(NODE, SERVICE)
        yield mesh
    finally:
        salt.restart_minion(NODE)
        gateway.run("nft", "delete", "table", "ip", "beyond")
        mesh.lab.salt.set_policy(policy())
        with suppress(CommandFailed):
            # What it took back is tried again when somebody asks for it.
            mesh.lab.salt.salt_run("wgmesh.converge", node=NODE)
        restored(mesh)


def test_the_node_keeps_its_way_to_the_master(beyond: Mesh):
    """It goes back to the view before by itself; the relays on that way were not told to give it up."""
    salt = beyond.lab.salt
    with undisturbed(beyond, "the way to the master goes", talks=TALKS, leaves=("web1", "app1", GATEWAY, NODE)):
        salt.set_policy(policy())
        said = ""
        with suppress(CommandFailed):
            said = json.dumps(salt.salt_run("wgmesh.converge"))
        told = wait_until(lambda: _taken_back(beyond), 2 * PLANNED, f"{NODE} to take it back", every=0.5)
        assert "master" in told, (told, said)
        salt.await_minions([NODE])
        relays = [n for n in beyond.members if "relay" in n]
        assert all(SERVICE in beyond.lab.underlay[n].run("ip", "route") for n in relays), said
    assert beyond.faults() == []


def _taken_back(mesh: Mesh) -> str:
    row = status(mesh.lab.salt, mesh.name)["nodes"][NODE]
    return json.dumps(row["taken_back"]) if "taken_back" in row else ""
