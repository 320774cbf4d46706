"""One command makes the mesh. The same command again changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ...demo.run import MESH, PRINTER, networks, policy
from ...demo.topology import DEMO
from ...lab import Lab
from ...mesh import Mesh, changes, failures, losing
from ...planned import paths

TOPOLOGY = DEMO
POLICY: dict[str, Any] = {"wgmesh": {}}
"""No mesh while the minions start. Otherwise their start events would enrol them."""
EVENTS = "/var/log/salt-events"
MASTER_OPTIONS = {"event_return": "rawfile_json", "rawfile_json.filename": EVENTS}
"""Salt itself records all events of the master's bus in this file."""
STREAMS = {"web1": "app1", "printer": "laptop"}
"""A pair beyond two relays, and a LAN host behind a gateway: more would keep two cores from the apply itself."""


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    return Mesh(lab=fleet, name=MESH, networks=tuple(networks(policy())), members=DEMO.minions, lan=PRINTER)


@pytest.fixture(scope="module")
def first(mesh: Mesh) -> dict[str, Any]:
    """Return what the first state.apply returned."""
    mesh.lab.salt.set_policy(policy())
    return mesh.apply()


def test_apply_succeeds_on_every_node(fleet: Lab, first: dict[str, Any]):
    """No state fails. Nodes have changes, except those that the master has enrolled since the policy was set."""
    assert failures(first, DEMO.minions) == []
    changed = {line.partition(":")[0] for line in changes(first)}
    # On a busy machine the master may still be working off the minions' start events.
    assert changed | enrolled(fleet) == set(DEMO.minions)


def test_mesh_settles_without_another_command(mesh: Mesh):
    """Every node is in the plan, runs its view, and has an address in each network."""
    mesh.settle()
    assert [len(addresses) for addresses in mesh.overlay().values()] == [2] * len(DEMO.minions)


def test_every_pair_uses_planned_path(mesh: Mesh):
    """All pairs reach each other by the planned path: both directions, both families, and the LAN host."""
    assert mesh.faults() == []


def test_sites_communicate_through_relays_only(fleet: Lab):
    """Paths that the underlay forbids are not planned as direct. Those that it allows within a site are."""
    plan = paths(fleet.salt, MESH)[4]
    relays = {"relay-fra1", "relay-fra2", "relay-nyc1"}
    assert list(plan["web1"]["web2"]) == ["web1", "web2"]
    for a, b in (("web1", "app1"), ("app1", "web1"), ("laptop", "web2"), ("gw1", "laptop")):
        assert len(list(plan[a][b])) > 2
        assert set(list(plan[a][b])[1:-1]) <= relays


def test_second_apply_loses_no_packet(mesh: Mesh):
    """A second apply has no changes, recreates no interface, and loses no packet of streams at 100 Hz."""
    before = mesh.links()
    with mesh.streams(STREAMS) as losses:
        again = mesh.apply()
    assert failures(again, DEMO.minions) == []
    assert changes(again) == []
    assert mesh.links() == before
    assert losing(losses) == []


def test_private_key_stays_on_its_node(fleet: Lab):
    """The private key is in no event, job cache, mine, pillar cache, log, or file of another machine."""
    keys = [fleet.underlay[name].run("cat", "/etc/wireguard/wgmesh.key").strip() for name in DEMO.minions]
    assert len(set(keys)) == len(DEMO.minions)
    written = [p for p in fleet.folder.rglob("*") if p.is_file()]
    assert len(written) > 50
    leaked = [str(p) for p in written if any(key.encode() in content(p) for key in keys)]
    assert leaked == []
    events = fleet.salt.master.run("cat", EVENTS)
    assert all(f"wgmesh/{name}/facts" in events for name in DEMO.minions)
    assert not any(key in events for key in keys)


def enrolled(fleet: Lab) -> set[str]:
    """Return the minions that the master told to apply the formula."""
    log = fleet.salt.log(fleet.salt.master.name)
    return {
        name
        for line in log.splitlines()
        if "applying the formula there" in line
        for name in DEMO.minions
        if name in line
    }


def content(path: Path) -> bytes:
    """Return the content of the file. Empty if it was deleted in the meantime, since Salt keeps short-lived files."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
