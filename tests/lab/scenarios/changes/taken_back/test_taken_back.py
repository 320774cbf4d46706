"""A view that cuts a node off, a change that somebody regrets, and an inventory that shrank."""

from __future__ import annotations

import json
import re
from contextlib import suppress

from ....calm import undisturbed
from ....drill import PLANNED
from ....machine import CommandFailed
from ....mesh import Mesh
from ....planned import status
from ....wait import wait_until
from ..edits import TALKS, changed, closed, converge, edited, mtus, policy, ports

NODE = "relay-fra1"
PORT, OTHER = 51820, 51920
GONE = ("web1", "web2", "laptop")


def _said(mesh: Mesh, function: str, **kwargs: object) -> str:
    """What the runner returned or failed with."""
    try:
        return json.dumps(mesh.lab.salt.salt_run(function, **kwargs))
    except CommandFailed as error:
        return str(error)


def test_a_view_that_cuts_a_node_off_is_taken_back(mesh: Mesh):
    """By the node itself; the others were not given it, and the master says why."""
    machine = mesh.lab.underlay[NODE]
    with undisturbed(mesh, "a port that is closed", talks=TALKS, concerned=[NODE]):
        with closed(machine, f"{OTHER}-{OTHER + 50}"):
            mesh.lab.salt.set_policy(edited(lambda m: m.update(listen_port=OTHER)))
            said = _said(mesh, "wgmesh.converge")
            wait_until(lambda: _port(mesh, NODE) == PORT, 2 * PLANNED, f"{NODE} to take it back", every=0.5)
            assert "taken back" in said, said
            assert "taken_back" in status(mesh.lab.salt, mesh.name)["nodes"][NODE], said
            # The others have what they had, the next runs included.
            _said(mesh, "wgmesh.converge")
            assert ports(mesh) == {PORT}
        mesh.lab.salt.set_policy(policy())
        _said(mesh, "wgmesh.converge")
        mesh.settle(deadline=2 * PLANNED)
    assert mesh.faults() == []


def test_the_same_change_passes_once_the_port_is_open(mesh: Mesh):
    wanted = edited(lambda m: m.update(listen_port=OTHER))
    changed(mesh, "the same port, open", wanted, lambda: ports(mesh) == {OTHER})
    changed(mesh, "and back", policy(), lambda: ports(mesh) == {PORT})


def test_a_whole_mesh_goes_back(mesh: Mesh):
    """To a generation of the past, whatever the policy says, until it is edited or an operator says otherwise."""
    good = status(mesh.lab.salt, mesh.name)["generation"]
    converge(mesh, edited(lambda m: m.update(mtu=1400)), lambda: mtus(mesh) == {1400})
    with undisturbed(mesh, f"rollback generation={good}", talks=TALKS):
        mesh.lab.salt.salt_run("wgmesh.rollback", generation=good)
        wait_until(lambda: mtus(mesh) == {1420}, 2 * PLANNED, "all to be back", every=0.5)
        mesh.settle(deadline=2 * PLANNED)
    changed(mesh, "the policy follows", policy(), lambda: mtus(mesh) == {1420})


def test_a_policy_that_shrank_waits_for_a_word(mesh: Mesh):
    """Three of nine nodes are gone from it. Nothing happens, the master says how to go on, and that works."""

    def shrunk(raw: dict) -> None:
        raw["nodes"] = {name: rule for name, rule in raw["nodes"].items() if name not in ("web*", "laptop")}
        del raw["prune_guard"]

    with undisturbed(mesh, "a policy that shrank", talks=TALKS):
        mesh.lab.salt.set_policy(edited(shrunk))
        said = _said(mesh, "wgmesh.converge")
        digest = re.search(r"confirm=(\w+)", said)
        assert digest, said
        assert all(name in said for name in GONE)
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
