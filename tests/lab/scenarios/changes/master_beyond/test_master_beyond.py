"""A node reaches its master through the mesh, and a policy would remove that path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ....demo.topology import GATEWAY, OFFICE_LAN
from ....disruption import PLANNED
from ....lossless import undisturbed
from ....machine import CommandFailed
from ....mesh import Mesh
from ....planned import status
from ....wait import wait_until
from ..edits import TALKS, converge, edited, policy, restored

NODE = "laptop"
SERVICE = "10.99.0.1"
"""The address at which the gateway accepts connections to the master."""
PORTS = "{ 4505, 4506 }"


def _reached(mesh: dict) -> None:
    mesh["nodes"] = {**mesh["nodes"], GATEWAY: {"site": "nyc", "routes": [OFFICE_LAN, f"{SERVICE}/32"]}}


@pytest.fixture(scope="module")
def beyond(mesh: Mesh) -> Iterator[Mesh]:
    """Yield the mesh, in which NODE reaches its master through the gateway."""
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
            # A view that was rolled back is tried again on request only.
            mesh.lab.salt.salt_run("wgmesh.converge", node=NODE)
        restored(mesh)


def test_node_keeps_path_to_master(beyond: Mesh):
    """The leaf rolls its view back by itself. The relays on that path had not been sent the withdrawal."""
    salt = beyond.lab.salt
    with undisturbed(beyond, "path to the master removed", talks=TALKS, leaves=("web1", "app1", GATEWAY, NODE)):
        salt.set_policy(policy())
        output = ""
        with suppress(CommandFailed):
            output = json.dumps(salt.salt_run("wgmesh.converge"))
        rollback = wait_until(lambda: _rolled_back(beyond), 2 * PLANNED, f"{NODE} to roll back", every=0.5)
        assert "master" in rollback, (rollback, output)
        salt.await_minions([NODE])
        relays = [n for n in beyond.members if "relay" in n]
        assert all(SERVICE in beyond.lab.underlay[n].run("ip", "route") for n in relays), output
    assert beyond.faults() == []


def _rolled_back(mesh: Mesh) -> str:
    row = status(mesh.lab.salt, mesh.name)["nodes"][NODE]
    return json.dumps(row["rolled_back"]) if "rolled_back" in row else ""
