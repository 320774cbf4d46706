"""A fleet of an earlier version is upgraded by the README's commands, under traffic.

Until the master is upgraded, this test reads none of its files and runs no code of this checkout on them. The earlier
version reports its own state, on the machines.
"""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ... import saltconf
from ...expectation import targets
from ...lab import Lab
from ...lossless import undisturbed
from ...mesh import Mesh, changes, failures
from ...overlay import trips
from ...processes import kill, tagged
from ...sessions import Entry, sessions
from ...topology import MachineSpec, Nat, Port, Topology, host
from ...wait import wait_until
from ..changes.edits import public_keys
from ..readme import bare
from . import earlier

pytestmark = pytest.mark.skipif(not os.environ.get("WGMESH_LAB_ALL"), reason="takes minutes: WGMESH_LAB_ALL=1 runs it")
RELAYS = ("relay1", "relay2")
LEAVES = ("db1", "web1", "web2")
NODES = (*LEAVES, *RELAYS)
PUBLIC = "internet"
MESH = "wg0"
NETWORKS = ("10.100.0.0/16", "fd00:64::/64")
POLICY = {
    "wgmesh": {
        MESH: {
            "network": list(NETWORKS),
            "topology": "partial",
            "sites": {"office": {"relays": ["relay1", "relay2"]}},
            "nodes": {
                "relay1": {"role": "relay", "endpoint": "203.0.113.10", "address": "10.100.0.1"},
                "relay2": {"role": "relay", "endpoint": "203.0.113.11"},
                "web*": {"site": "office"},
                "db1": {"nat": True},
            },
        }
    }
}
"""The policy in the earlier version's words. If the present version has others, edit the pillar before the upgrade."""
TALKS = {"web1": "db1", "db1": "web2"}
"""TCP connections, caller to listener."""


def router(name: str, outside: str, inside: str, lan: str) -> MachineSpec:
    """A router that hides its LAN."""
    ports = (Port(segment=PUBLIC, addresses=(f"{outside}/24",)), Port(segment=name, addresses=(f"{inside}/24",)))
    return MachineSpec(name=name, ports=ports, forward=True, nat=Nat(outside="eth0", hidden=(lan,)))


TOPOLOGY = Topology(
    master="master",
    minions=NODES,
    machines=(
        host("master", PUBLIC, "203.0.113.5/24"),
        host("relay1", PUBLIC, "203.0.113.10/24"),
        host("relay2", PUBLIC, "203.0.113.11/24"),
        router("office", "203.0.113.1", "192.168.1.1", "192.168.1.0/24"),
        router("cellar", "203.0.113.2", "192.168.2.1", "192.168.2.0/24"),
        host("web1", "office", "192.168.1.11/24", "192.168.1.1"),
        host("web2", "office", "192.168.1.12/24", "192.168.1.1"),
        host("db1", "cellar", "192.168.2.11/24", "192.168.2.1"),
    ),
)
"""A small network, since each installation shares the machine with traffic that must not be late."""
CONFIGURED = False
PATIENCE = 600.0
"""Seconds for one step; the machine that runs this may be busy."""
CONFIGURATION = "salt-run wgmesh.config > /etc/salt/wgmesh.conf && mv /etc/salt/wgmesh.conf /etc/salt/master.d/"
ALWAYS = {"generation", "published_at", "nodes"}
"""The keys that the status of every mesh has. Any other key reports trouble, or a change in progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The state of the nodes' kernels that an upgrade must not change."""

    addresses: dict[str, tuple[str, ...]]
    keys: dict[str, str]
    peers: frozenset[Entry]
    """Interface and peer of each link. The number of a relay is part of the name of the interfaces that lead to it."""
    ports: frozenset[str]
    """``node interface port`` of each interface of a relay; the ports between relays follow from their numbers."""


@dataclass(slots=True)
class Earlier:
    """The observations of the first step, for later steps."""

    observed: Observed | None = None
    versions: frozenset[str] = frozenset()
    watchers: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def old_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and return the wheel of the earlier commit."""
    if reason := earlier.obstacle():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("earlier")
    return earlier.wheel(folder / "wheels", folder / "source")


@pytest.fixture(scope="module")
def fleet(old_wheel: Path, lab: Lab) -> Lab:
    """Run a master and minions without the package. pip's index on each of them has the earlier wheel only."""
    index = lab.folder / "wheels"
    index.mkdir()
    shutil.copy(old_wheel, index)
    bare.prepare(lab.salt, index)
    lab.salt.set_policy(POLICY)
    lab.salt.start()
    return lab


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    """Return the mesh of the policy, with all nodes."""
    return Mesh(lab=fleet, name=MESH, networks=NETWORKS, members=NODES)


@pytest.fixture(scope="module")
def seen() -> Earlier:
    """Return the record that the first step fills."""
    return Earlier()


def test_earlier_version_enrols_fleet(mesh: Mesh, seen: Earlier):
    """The README's commands enrol the fleet: each node runs the published plan, and all pairs reach each other."""
    salt = mesh.lab.salt
    bare.bash(salt.master, "salt-pip install saltext-wgmesh", PATIENCE)
    bare.bash(salt.master, CONFIGURATION, PATIENCE)
    saltconf.write_top(salt.master.folder / "salt")
    _restart_master(mesh)
    _install(mesh)
    salt.salt("*", "saltutil.refresh_modules", timeout=PATIENCE)
    assert failures(_apply(mesh), mesh.members) == []

    def is_settled() -> bool:
        report = salt.salt_run("wgmesh.status")[MESH]
        return (
            not report.get("not_acknowledged") and "rollout" not in report and len(report["nodes"]) == len(mesh.members)
        )

    wait_until(is_settled, PATIENCE, "the earlier version to settle", every=2)

    def unreachable() -> list[str]:
        measured = trips(mesh.lab.underlay, targets(mesh.overlay()))
        return [f"{trip.source} to {trip.address}" for trip in measured if not trip.arrived]

    wait_until(lambda: not unreachable(), PATIENCE, "all pairs to reach each other", every=1)
    seen.observed, seen.versions, seen.watchers = _observed(mesh), _versions(mesh), frozenset(_watchers(mesh))
    assert len(seen.versions) == 1
    assert sorted(_watchers(mesh).values()) == sorted(mesh.members)


def test_upgrade_loses_no_packet(mesh: Mesh):
    """Master, minions and state are upgraded in the README's order, under UDP at 100 Hz and long TCP connections."""
    salt = mesh.lab.salt
    bare.wheel(mesh.lab.folder / "wheels")
    with undisturbed(mesh, "upgrade", talks=TALKS, leaves=LEAVES, uplinks=lambda _mesh: set()):
        bare.bash(salt.master, "salt-pip install -U saltext-wgmesh", PATIENCE)
        bare.bash(salt.master, CONFIGURATION, PATIENCE)
        _restart_master(mesh)
        _install(mesh, upgrade=True)
        for name in mesh.members:
            salt.stop_minion(name)
            salt.start_minion(name)
        salt.await_minions(deadline=PATIENCE)
        assert failures(_apply(mesh), mesh.members) == []
        mesh.settle(deadline=PATIENCE)


def test_upgraded_fleet_runs_present_version(mesh: Mesh, seen: Earlier):
    """All machines have the present version, and each node has one new watcher."""
    assert len(_versions(mesh)) == 1
    assert not _versions(mesh) & seen.versions
    assert sorted(_watchers(mesh).values()) == sorted(mesh.members)
    assert not _watchers(mesh).keys() & seen.watchers


def test_upgrade_keeps_addresses_numbers_and_keys(mesh: Mesh, seen: Earlier):
    """Addresses, keys, links and ports are unchanged, and all pairs use the paths that the present master plans."""
    assert _observed(mesh) == seen.observed
    assert mesh.faults() == []


def test_status_after_upgrade_is_clean(mesh: Mesh):
    """All nodes have acknowledged, all links are up, and nothing is held, pinned or in progress."""
    report = mesh.lab.salt.salt_run("wgmesh.status")[MESH]
    assert set(report) == ALWAYS
    assert sorted(report["nodes"]) == sorted(mesh.members)
    states = {
        f"{node}--{other}": state for node, row in report["nodes"].items() for other, state in row["links"].items()
    }
    assert {link for link, state in states.items() if state != "up"} == set()


def test_second_apply_changes_nothing(mesh: Mesh):
    """An apply after the upgrade has no changes and recreates no interface."""
    links = mesh.links()
    again = _apply(mesh)
    assert failures(again, mesh.members) == []
    assert changes(again) == []
    assert mesh.links() == links


def test_dead_watcher_is_replaced_after_upgrade(mesh: Mesh):
    """A killed watcher is replaced on each node, so no supervisor of the earlier version is left."""
    killed = _watchers(mesh)
    for pid in killed:
        kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        found = _watchers(mesh)
        return not found.keys() & killed.keys() and sorted(found.values()) == sorted(mesh.members)

    wait_until(replaced, 60, "a new watcher on each node", every=0.5)
    mesh.settle(deadline=PATIENCE)
    assert mesh.faults() == []


# --- steps ----------------------------------------------------------------------------------------------


def _restart_master(mesh: Mesh) -> None:
    mesh.lab.salt.stop_master()
    mesh.lab.salt.start_master()
    mesh.lab.salt.await_minions(deadline=PATIENCE)


def _install(mesh: Mesh, **options: Any) -> None:
    """Install the newest wheel of the index on each minion."""
    salt = mesh.lab.salt
    answers = salt.salt("*", "pip.install", "saltext-wgmesh", timeout=PATIENCE, **options)
    assert {name: answer["retcode"] for name, answer in answers.items()} == dict.fromkeys(mesh.members, 0), answers


def _apply(mesh: Mesh) -> dict[str, Any]:
    """Apply the formula and return what ``state.apply wgmesh`` returned on the members."""
    return mesh.lab.salt.salt("*", "state.apply", "wgmesh", timeout=PATIENCE)


# --- observations ---------------------------------------------------------------------------------------


def _observed(mesh: Mesh) -> Observed:
    dumps = {name: mesh.lab.underlay[name].run("wg", "show", "all", "listen-port") for name in RELAYS}
    return Observed(
        addresses=mesh.overlay(),
        keys=public_keys(mesh),
        peers=frozenset(sessions(mesh).peers),
        ports=frozenset(" ".join([name, *line.split()]) for name, text in dumps.items() for line in text.splitlines()),
    )


def _versions(mesh: Mesh) -> frozenset[str]:
    """Return the versions of the package that are installed on the master and the members."""
    program = "from importlib.metadata import version; print(version('saltext-wgmesh'))"
    words = (str(bare.ENVIRONMENT / "bin" / "python"), "-I", "-c", program)
    machines = [mesh.lab.salt.master, *(mesh.lab.underlay[name] for name in mesh.members)]
    return frozenset(machine.run(*words).strip() for machine in machines)


def _watchers(mesh: Mesh) -> dict[int, str]:
    """Return process id → node of each watcher.

    A watcher and its supervisor are the only lasting processes that run a module of the package, whatever its name.
    """
    found = [p for p in tagged(mesh.lab.tag) if " -m saltext_wgmesh." in p.command and "--supervise" not in p.command]
    return {process.pid: process.machine for process in found}
