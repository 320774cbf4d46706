"""A view that cuts a node off, a change that an operator undoes, and a policy that lost nodes."""

from __future__ import annotations

import json
import re
from contextlib import suppress

from ....disruption import PLANNED
from ....lossless import undisturbed
from ....machine import CommandFailed
from ....mesh import Mesh
from ....planned import status
from ....wait import wait_until
from ..edits import TALKS, changed, closed, converge, edited, mtus, policy, ports

NODE = "relay-fra1"
PORT, OTHER = 51820, 51920
GONE = ("web1", "web2", "laptop")


def _converge_output(mesh: Mesh, function: str, **kwargs: object) -> str:
    """Return what the runner returned, or its error."""
    try:
        return json.dumps(mesh.lab.salt.salt_run(function, **kwargs))
    except CommandFailed as error:
        return str(error)


def test_view_that_cuts_node_is_rolled_back(mesh: Mesh):
    """The node itself rolls back a view that breaks its links. Other nodes do not get it, and the master reports it."""
    machine = mesh.lab.underlay[NODE]
    with undisturbed(mesh, "a port that is closed", talks=TALKS, concerned=[NODE]):
        with closed(machine, f"{OTHER}-{OTHER + 50}"):
            mesh.lab.salt.set_policy(edited(lambda m: m.update(listen_port=OTHER)))
            output = _converge_output(mesh, "wgmesh.converge")
            wait_until(lambda: _port(mesh, NODE) == PORT, 2 * PLANNED, f"{NODE} to roll back", every=0.5)
            assert "rolled back" in output, output
            assert "rolled_back" in status(mesh.lab.salt, mesh.name)["nodes"][NODE], output
            # The other nodes keep the old port after further runs, too.
            _converge_output(mesh, "wgmesh.converge")
            assert ports(mesh) == {PORT}
        mesh.lab.salt.set_policy(policy())
        _converge_output(mesh, "wgmesh.converge")
        mesh.settle(deadline=2 * PLANNED)
    assert mesh.faults() == []


def test_same_change_succeeds_with_open_port(mesh: Mesh):
    """The change that was rolled back is applied without a disturbance once the firewall is open."""
    wanted = edited(lambda m: m.update(listen_port=OTHER))
    changed(mesh, "the same port, open", wanted, lambda: ports(mesh) == {OTHER})
    changed(mesh, "and back", policy(), lambda: ports(mesh) == {PORT})


def test_mesh_is_rolled_back_by_operator(mesh: Mesh):
    """``wgmesh.rollback`` returns the mesh to an earlier generation, until the policy is edited."""
    good = status(mesh.lab.salt, mesh.name)["generation"]
    converge(mesh, edited(lambda m: m.update(mtu=1400)), lambda: mtus(mesh) == {1400})
    with undisturbed(mesh, f"rollback generation={good}", talks=TALKS):
        mesh.lab.salt.salt_run("wgmesh.rollback", generation=good)
        wait_until(lambda: mtus(mesh) == {1420}, 2 * PLANNED, "all to be back", every=0.5)
        mesh.settle(deadline=2 * PLANNED)
    changed(mesh, "the policy follows", policy(), lambda: mtus(mesh) == {1420})


def test_shrunken_policy_waits_for_confirmation(mesh: Mesh):
    """The policy lacks three of nine nodes. The mesh is unchanged until the digest in the output is confirmed."""

    def shrunk(raw: dict) -> None:
        raw["nodes"] = {name: rule for name, rule in raw["nodes"].items() if name not in ("web*", "laptop")}
        del raw["prune_guard"]

    with undisturbed(mesh, "a policy that shrank", talks=TALKS):
        mesh.lab.salt.set_policy(edited(shrunk))
        output = _converge_output(mesh, "wgmesh.converge")
        digest = re.search(r"confirm=(\w+)", output)
        assert digest, output
        assert all(name in output for name in GONE)
        assert set(status(mesh.lab.salt, mesh.name)["nodes"]) == set(mesh.members)
    with suppress(CommandFailed):
        mesh.lab.salt.salt_run("wgmesh.converge", confirm=digest[1])
    left = set(mesh.members) - set(GONE)
    wait_until(
        lambda: set(status(mesh.lab.salt, mesh.name)["nodes"]) == left, 2 * PLANNED, "them to be gone", every=0.5
    )
    wait_until(lambda: not mesh.overlay()["web1"], 2 * PLANNED, "web1 to have left", every=0.5)
    converge(mesh, policy(), lambda: True)
    assert mesh.faults() == []


def _port(mesh: Mesh, node: str) -> int:
    return int(mesh.lab.underlay[node].run("wg", "show", mesh.name, "listen-port"))
