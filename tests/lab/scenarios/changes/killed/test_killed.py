"""An interrupted change leaves a working mesh, and is completed without a command."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from .... import faults
from ....disruption import PLANNED, link_is
from ....lossless import undisturbed
from ....machine import CommandFailed
from ....mesh import Mesh, failures
from ....planned import status
from ....processes import kill, tagged
from ....wait import wait_until
from ..edits import TALKS, Edit, edited, known_keys, linked, mtus, policy, public_keys, restored, unlinked

AWAY = "app2"
DIRECT = ("web1", "web2", "app1", "app2", "gw1")
HUB: Edit = lambda mesh: mesh.update(topology="hub")  # noqa: E731


@pytest.fixture(autouse=True)
def _afterwards(mesh: Mesh):
    """Restore the demo's policy after each step."""
    yield
    restored(mesh)


def _converge(mesh: Mesh) -> None:
    # The command may fail, since these steps interrupt it.
    with suppress(CommandFailed):
        mesh.lab.salt.salt_run("wgmesh.converge")


def _rotate(mesh: Mesh, target: str) -> None:
    with suppress(CommandFailed):
        mesh.lab.salt.salt_run("wgmesh.rotate", target, timeout=300)


def _kill_runs(mesh: Mesh) -> None:
    """Kill the salt-run commands on the master."""
    for process in tagged(mesh.lab.tag):
        if process.machine == mesh.lab.salt.master.name and "salt-run" in process.command:
            kill(process.pid, signal.SIGKILL)


def _generation(mesh: Mesh) -> int:
    return int(status(mesh.lab.salt, mesh.name)["generation"])


def test_master_killed_between_waves_resumes(mesh: Mesh):
    """A mesh becomes a hub, and all of Salt on the master is killed after the first wave.

    A new master completes the change by its schedule alone.
    """
    salt = mesh.lab.salt
    before = _generation(mesh)
    with undisturbed(mesh, "master killed during a change", talks=TALKS, concerned=DIRECT):
        salt.set_policy(edited(HUB))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(_converge, mesh)
            wait_until(lambda: _generation(mesh) > before, PLANNED, "the first wave", every=0.05)
            _kill_runs(mesh)
            salt.kill([salt.master.name])
            running.result()
        salt.start_master()
        salt.await_minions(deadline=8 * PLANNED)
        wait_until(lambda: unlinked(mesh, "web1", "web2"), 4 * PLANNED, "the change to go on", every=1.0)
        mesh.settle(deadline=2 * PLANNED)
    assert mesh.faults() == []


@pytest.mark.parametrize("node", ["web1", "relay-fra1"])
def test_minion_killed_during_apply_completes(mesh: Mesh, node: str):
    """A minion is killed while it applies a change. The next converge completes the change, and no packet is lost."""
    salt = mesh.lab.salt

    def applies() -> bool:
        return any(p.machine == node and "wgmesh.apply" in p.command for p in tagged(mesh.lab.tag))

    with undisturbed(mesh, f"minion of {node} killed while it applies", talks=TALKS, concerned=DIRECT):
        salt.set_policy(edited(HUB, lambda m: m.update(mtu=1400)))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(_converge, mesh)
            with suppress(AssertionError):
                # The job is a process with the name of the function. A short one may be missed: then the minion is
                # killed just after it.
                wait_until(applies, 15, f"{node} to apply", every=0.01)
            salt.kill([node])
            salt.start_minion(node)
            running.result()
        salt.await_minions([node])
        _converge(mesh)
        wait_until(lambda: mtus(mesh) == {1400}, 4 * PLANNED, "the change to go on", every=1.0)
        wait_until(lambda: unlinked(mesh, "web1", "web2"), 2 * PLANNED, "the change to go on", every=1.0)
        mesh.settle(deadline=2 * PLANNED)
    assert mesh.faults() == []


@pytest.mark.parametrize("victim", ["master", "web1"])
def test_a_rotation_is_cut_short(mesh: Mesh, victim: str):
    """All of Salt on the master dies, or the minion of a node that has its turn; what was begun goes on by itself."""
    salt, before = mesh.lab.salt, public_keys(mesh)
    named = sorted(n for n in mesh.members if n.startswith("web"))

    def is_amid() -> bool:
        if victim == "master":
            return bool(known_keys(mesh) - set(before.values()))
        has = mesh.lab.underlay[victim].run("wg", "show", "all", "public-key").split()[1::2]
        return set(has) != {before[victim]}

    with undisturbed(mesh, f"rotation, {victim} killed", talks=TALKS, concerned=named):
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(_rotate, mesh, "web*")
            wait_until(is_amid, 2 * PLANNED, "the rotation to be under way", every=0.05)
            if victim == "master":
                _kill_runs(mesh)
            salt.kill([salt.master.name if victim == "master" else victim])
            if victim == "master":
                salt.start_master()
            else:
                salt.start_minion(victim)
            running.result()
        salt.await_minions(deadline=8 * PLANNED)
        old = {before[node] for node in named}
        wait_until(lambda: not old & known_keys(mesh), 6 * PLANNED, "the rotation to be over", every=1.0)
        mesh.settle(deadline=2 * PLANNED)
    after = public_keys(mesh)
    assert {node for node in mesh.members if after[node] != before[node]} == set(named)
    assert mesh.faults() == []


def test_two_converges_at_once_both_apply(mesh: Mesh):
    """Two operators edit the policy and converge at the same time. The mesh ends with the last edit."""
    with undisturbed(mesh, "two operators", talks=TALKS, concerned=DIRECT), ThreadPoolExecutor(2) as pool:
        mesh.lab.salt.set_policy(edited(HUB))
        first = pool.submit(_converge, mesh)
        mesh.lab.salt.set_policy(edited(HUB, lambda m: m.update(mtu=1400)))
        second = pool.submit(_converge, mesh)
        first.result()
        second.result()
        wait_until(lambda: mtus(mesh) == {1400}, 2 * PLANNED, "the last edit to hold", every=1.0)
        wait_until(lambda: unlinked(mesh, "web1", "web2"), 2 * PLANNED, "the hub", every=1.0)
        mesh.settle(deadline=2 * PLANNED)
    assert mesh.faults() == []


def test_state_run_during_push_disturbs_nothing(mesh: Mesh):
    """Two nodes apply the formula during a push, before the other nodes or after them, and no packet is lost."""
    nodes = ["web1", "relay-fra1"]
    with undisturbed(mesh, "state.apply during a change", talks=TALKS, concerned=DIRECT), ThreadPoolExecutor(2) as pool:
        mesh.lab.salt.set_policy(edited(HUB))
        applying = pool.submit(mesh.lab.salt.salt, nodes, "state.apply", "wgmesh", timeout=90)
        pool.submit(_converge, mesh).result()
        # A state may fail if another apply is running. The next one must not.
        applying.result()
        _converge(mesh)
        wait_until(lambda: unlinked(mesh, "web1", "web2"), 2 * PLANNED, "the hub", every=1.0)
        mesh.settle(deadline=2 * PLANNED)
        assert failures(mesh.lab.salt.salt(nodes, "state.apply", "wgmesh", timeout=90), nodes) == []
    assert mesh.faults() == []


def test_returning_node_gets_missed_change(mesh: Mesh):
    """Other nodes do not wait for an unreachable node. It gets the change on its return, which disturbs no traffic."""
    leaves = [n for n in mesh.members if "relay" not in n and n != AWAY]
    talks = {"web1": "app1", "laptop": "web2"}
    with undisturbed(mesh, f"{AWAY} away", talks=talks, leaves=leaves, concerned=DIRECT):
        with faults.unplugged(mesh.lab.underlay, AWAY):
            wait_until(lambda: link_is(mesh, "app1", AWAY, "down"), 10, f"{AWAY} to be away", every=0.2)
            mesh.lab.salt.set_policy(edited(HUB, lambda m: m.update(mtu=1400)))
            _converge(mesh)
            wait_until(lambda: unlinked(mesh, "web1", "web2"), 2 * PLANNED, "the others to have it", every=1.0)
        wait_until(lambda: mtus(mesh) == {1400}, 4 * PLANNED, f"{AWAY} to have it", every=1.0)
        mesh.settle(deadline=4 * PLANNED)
    assert mesh.faults() == []


def test_mesh_is_restored(mesh: Mesh):
    """After all steps the mesh returns to the demo's policy."""
    restored(mesh)
    wait_until(lambda: linked(mesh, "web1", "web2") and linked(mesh, "app2", "gw1"), 2 * PLANNED, "the direct links")
    assert mesh.faults() == []
    assert policy()["wgmesh"][mesh.name].get("mtu") is None
