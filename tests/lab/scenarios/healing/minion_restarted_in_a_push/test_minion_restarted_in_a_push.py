"""A push that a minion missed reaches it when it is back."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from ....demo.run import policy
from ....drill import streaming
from ....machine import CommandFailed
from ....mesh import Mesh

PAIRS = {"web1": "app1", "web2": "app2"}
NODE = "web1"


def test_it_runs_the_new_plan_when_it_is_back(mesh: Mesh):
    """A change of the policy is pushed while its minion dies and starts: another MTU, on every node."""
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
    # Its status tells that somebody did not acknowledge.
    with suppress(CommandFailed):
        mesh.lab.salt.salt_run("wgmesh.converge")
