"""A push that a minion missed reaches it when it is back."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from ....demo.run import policy
from ....disruption import streaming
from ....machine import CommandFailed
from ....mesh import Mesh

PAIRS = {"web1": "app1", "web2": "app2"}
NODE = "web1"


def test_restarted_minion_gets_missed_push(mesh: Mesh):
    """A new MTU is pushed while a minion is killed and started. The node gets it, and no packet is lost."""
    changed = copy.deepcopy(policy())
    changed["wgmesh"][mesh.name]["mtu"] = 1400
    salt = mesh.lab.salt
    with streaming(mesh, PAIRS) as felt, ThreadPoolExecutor(1) as pool:
        salt.set_policy(changed)
        running = pool.submit(_converge, mesh)
        salt.kill([NODE])
        salt.start_minion(NODE)
        running.result()
        salt.await_minions([NODE])
        mesh.settle()
    assert felt.losing == []
    mtu = mesh.lab.underlay[NODE].json("ip", "-json", "link", "show", mesh.name)[0]["mtu"]
    assert mtu == 1400
    assert mesh.faults() == []


def _converge(mesh: Mesh) -> None:
    # The exit status is 1, since some node did not acknowledge.
    with suppress(CommandFailed):
        mesh.lab.salt.salt_run("wgmesh.converge")
