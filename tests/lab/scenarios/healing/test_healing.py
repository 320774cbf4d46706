"""What dies is left within a fraction of a second, and left out of the next plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import pytest

from ... import faults
from ...demo.run import MESH, PRINTER, networks, policy
from ...demo.topology import DEMO
from ...lab import Lab
from ...machine import Machine
from ...mesh import Mesh, failures, losing
from ...overlay import Loss
from ...planned import await_links, status
from ...underlay import Underlay
from ...wait import wait_until

TOPOLOGY = DEMO
POLICY = policy()
STREAMS = {"web1": "app1", "app1": "web1", "web2": "app2"}
HEALED = 2.0
"""Seconds: a loose bound for machines that do much else."""
LinkFault = Callable[[Underlay, str, str], AbstractContextManager[None]]
Fault = Callable[[Machine], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    mesh = Mesh(lab=fleet, name=MESH, networks=tuple(networks(POLICY)), members=DEMO.minions, lan=PRINTER)
    assert failures(mesh.apply(), DEMO.minions) == []
    mesh.settle()
    return mesh


def first_relay(mesh: Mesh, leaf: str) -> str:
    """The relay by which *leaf* sends now."""
    machine = mesh.lab.underlay[leaf]
    device = machine.json("ip", "-json", "route", "get", mesh.overlay()["app1"][0])[0]["dev"]
    (key,) = machine.run("wg", "show", device, "peers").split()
    keys = {n: mesh.lab.underlay[n].run("wg", "show", MESH, "public-key").strip() for n in mesh.members}
    return next(n for n, k in keys.items() if k == key)


def longest(losses: Iterable[Loss]) -> float:
    """The longest gap, in seconds; printed for each stream."""
    gaps = {f"{x.source} to {x.address}": max((length for _, length in x.gaps), default=0.0) for x in losses}
    for stream, gap in gaps.items():
        print(f"{stream}: longest gap {gap * 1000:.0f} ms")
    return max(gaps.values())


def broken_while_streaming(mesh: Mesh, fault: AbstractContextManager[None], until: Callable[[], object]) -> float:
    """The longest gap from before the fault until after its consequence *until*, while the fault lasts."""
    with mesh.streams(STREAMS) as losses:
        ping(mesh)
        with fault:
            wait_until(until, 40, "the consequence of the fault", every=0.5)
            ping(mesh)
    return longest(losses)


def ping(mesh: Mesh) -> None:
    """Each stream's pair reaches each other; CommandFailed if one does not."""
    for source, target in STREAMS.items():
        mesh.lab.underlay[source].run("ping", "-q", "-i", "0.1", "-c", "3", "-w", "3", mesh.overlay()[target][0])


def believed(mesh: Mesh, leaf: str, neighbour: str) -> str:
    """How the watcher of *leaf* says that the link is."""
    found = mesh.lab.underlay[leaf].json("cat", f"/run/wgmesh/{MESH}.json")
    return str(found["links"][neighbour]["state"]) if neighbour in found["links"] else "gone"


def test_the_mesh_is_up(mesh: Mesh):
    assert mesh.faults() == []


def test_a_relay_that_loses_power_is_left_and_then_planned_around(mesh: Mesh):
    """Its leaves have other relays in the next generation; they keep them when it returns, and nothing is lost."""
    relay = first_relay(mesh, "web1")

    def planned_around() -> bool:
        now = status(mesh.lab.salt, MESH)
        moved = all(relay != row["relays"][0] for row in now["nodes"].values() if row["relays"])
        late = set(now["not_acknowledged"]) - {relay}
        return now.get("trouble", {}).get(relay, {}).get("counts_as") == "down" and moved and not late

    assert broken_while_streaming(mesh, faults.unplugged(mesh.lab.underlay, relay), planned_around) < HEALED
    with mesh.streams(STREAMS) as losses:
        mesh.lab.salt.await_minions([relay])
        mesh.lab.salt.salt_run("wgmesh.converge", node=relay)
        mesh.settle()
    assert losing(losses) == []
    assert first_relay(mesh, "web1") != relay


@pytest.mark.parametrize("fault", [faults.cut, faults.deaf, faults.unheard])
def test_a_link_that_is_cut_is_left_by_its_ends_alone(mesh: Mesh, fault: LinkFault):
    """In both directions, or in one."""
    relay = first_relay(mesh, "web1")

    def down() -> bool:
        return believed(mesh, "web1", relay) in ("down", "gone")

    assert broken_while_streaming(mesh, fault(mesh.lab.underlay, "web1", relay), down) < HEALED
    mesh.settle()


@pytest.mark.parametrize("fault", [faults.not_forwarding, faults.forwarding_dropped])
def test_a_relay_that_answers_and_forwards_nothing_is_left(mesh: Mesh, fault: Fault):
    relay = first_relay(mesh, "web1")

    def left() -> bool:
        return first_relay(mesh, "web1") != relay

    assert broken_while_streaming(mesh, fault(mesh.lab.underlay[relay]), left) < 2 * HEALED
    mesh.settle()


def test_without_a_master_it_heals_as_well(mesh: Mesh):
    """The master is started again and finds its plan as it was, and the relay as it is."""
    salt = mesh.lab.salt
    relay = first_relay(mesh, "web1")
    salt.stop_master()

    def left() -> bool:
        return first_relay(mesh, "web1") != relay

    assert broken_while_streaming(mesh, faults.unplugged(mesh.lab.underlay, relay), left) < HEALED
    salt.start_master()
    salt.await_minions()
    mesh.settle()


def test_the_watcher_is_started_again_and_moves_no_route(mesh: Mesh):
    """Its routes stay while it is away."""
    machine = mesh.lab.underlay["web1"]
    before = machine.run("ip", "route", "show", "proto", "87")
    pid = machine.json("cat", "/run/wgmesh/watch.pid")["pid"]
    machine.run("kill", "-9", str(pid))
    assert machine.run("ip", "route", "show", "proto", "87") == before
    wait_until(lambda: machine.json("cat", "/run/wgmesh/watch.pid")["pid"] != pid, 10, "another watcher to run")
    await_links(mesh.lab.salt, MESH, set(mesh.members))
    assert machine.run("ip", "route", "show", "proto", "87") == before
