"""A change that is interrupted leaves a mesh that works, and goes on by itself."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from .... import faults
from ....calm import undisturbed
from ....drill import PLANNED, says
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
    """Each step begins with the demo's policy, applied by all."""
    yield
    restored(mesh)


def _converge(mesh: Mesh) -> None:
    # It may end badly: that is what these steps are about.
    with suppress(CommandFailed):
        mesh.lab.salt.salt_run("wgmesh.converge")


def _rotate(mesh: Mesh, target: str) -> None:
    with suppress(CommandFailed):
        mesh.lab.salt.salt_run("wgmesh.rotate", target, timeout=300)


def _kill_runs(mesh: Mesh) -> None:
    """Whatever an operator runs on the master dies."""
    for process in tagged(mesh.lab.tag):
        if process.machine == mesh.lab.salt.master.name and "salt-run" in process.command:
            kill(process.pid, signal.SIGKILL)


def _generation(mesh: Mesh) -> int:
    return int(status(mesh.lab.salt, mesh.name)["generation"])


def test_the_master_dies_between_two_waves(mesh: Mesh):
    """A mesh becomes a hub; with the first generation out, all of Salt on the master dies. The next one brings it to
    its end by its schedule alone."""
    salt = mesh.lab.salt
    before = _generation(mesh)
    with undisturbed(mesh, "master killed amid a change", talks=TALKS, concerned=DIRECT):
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
def test_a_minion_dies_while_it_applies(mesh: Mesh, node: str):
    salt = mesh.lab.salt

    def applies() -> bool:
        return any(p.machine == node and "wgmesh.apply" in p.command for p in tagged(mesh.lab.tag))

    with undisturbed(mesh, f"minion of {node} killed while it applies", talks=TALKS, concerned=DIRECT):
        salt.set_policy(edited(HUB, lambda m: m.update(mtu=1400)))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(_converge, mesh)
            with suppress(AssertionError):
                # Its job is a process with the name of the function; a short one may be missed, and then it is killed
                # just after.
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


def test_two_operators_converge_at_once(mesh: Mesh):
    """The one before the other has edited the policy; what the last one wrote is what comes of it."""
    with undisturbed(mesh, "two operators", talks=TALKS, concerned=DIRECT), ThreadPoolExecutor(2) as pool:
        mesh.lab.salt.set_policy(edited(HUB))
        first = pool.submit(_converge, mesh)
        mesh.lab.salt.set_policy(edited(HUB, lambda m: m.update(mtu=1400)))
        second = pool.submit(_converge, mesh)
        first.result()
        second.result()
        wait_until(lambda: mtus(mesh) == {1400}, 2 * PLANNED, "the last word to hold", every=1.0)
        wait_until(lambda: unlinked(mesh, "web1", "web2"), 2 * PLANNED, "the hub", every=1.0)
        mesh.settle(deadline=2 * PLANNED)
    assert mesh.faults() == []


def test_a_node_runs_its_highstate_in_the_middle(mesh: Mesh):
    """It may be ahead of the others, or behind them: nothing is lost by it."""
    nodes = ["web1", "relay-fra1"]
    with undisturbed(mesh, "state.apply amid a change", talks=TALKS, concerned=DIRECT), ThreadPoolExecutor(2) as pool:
        mesh.lab.salt.set_policy(edited(HUB))
        applying = pool.submit(mesh.lab.salt.salt, nodes, "state.apply", "wgmesh", timeout=90)
        pool.submit(_converge, mesh).result()
        # A state that finds another apply at work may fail; the next one must not.
        applying.result()
        _converge(mesh)
        wait_until(lambda: unlinked(mesh, "web1", "web2"), 2 * PLANNED, "the hub", every=1.0)
        mesh.settle(deadline=2 * PLANNED)
        assert failures(mesh.lab.salt.salt(nodes, "state.apply", "wgmesh", timeout=90), nodes) == []
    assert mesh.faults() == []


def test_a_node_that_was_away_has_it_when_it_is_back(mesh: Mesh):
    """The others do not wait for it, and it disturbs nobody when it returns."""
    leaves = [n for n in mesh.members if "relay" not in n and n != AWAY]
    talks = {"web1": "app1", "laptop": "web2"}
    with undisturbed(mesh, f"{AWAY} away", talks=talks, leaves=leaves, concerned=DIRECT):
        with faults.unplugged(mesh.lab.underlay, AWAY):
            wait_until(lambda: says(mesh, "app1", AWAY, "down"), 10, f"{AWAY} to be away", every=0.2)
            mesh.lab.salt.set_policy(edited(HUB, lambda m: m.update(mtu=1400)))
            _converge(mesh)
            wait_until(lambda: unlinked(mesh, "web1", "web2"), 2 * PLANNED, "the others to have it", every=1.0)
        wait_until(lambda: mtus(mesh) == {1400}, 4 * PLANNED, f"{AWAY} to have it", every=1.0)
        mesh.settle(deadline=4 * PLANNED)
    assert mesh.faults() == []


def test_all_is_as_before(mesh: Mesh):
    restored(mesh)
    wait_until(lambda: linked(mesh, "web1", "web2") and linked(mesh, "app2", "gw1"), 2 * PLANNED, "the direct links")
    assert mesh.faults() == []
    assert policy()["wgmesh"][mesh.name].get("mtu") is None
