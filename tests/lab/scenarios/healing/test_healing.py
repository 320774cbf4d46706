"""What dies is left within a fraction of a second, and left out of the next plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import pytest

from ... import faults
from ...demo.run import MESH, PRINTER, networks, policy
from ...demo.topology import DEMO
from ...lab import Lab
from ...mesh import Mesh, failures, losing
from ...overlay import Loss
from ...planned import status
from ...wait import wait_until

TOPOLOGY = DEMO
POLICY = policy()
STREAMS = {"web1": "app1", "app1": "web1", "web2": "app2"}
HEALED = 2.0
"""Seconds: a loose bound for machines that do much else."""


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
