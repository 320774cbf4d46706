"""One command makes the mesh; the second time it changes nothing."""

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
"""None while the minions start, or they would be enrolled by that alone."""
EVENTS = "/var/log/salt-events"
MASTER_OPTIONS = {"event_return": "rawfile_json", "rawfile_json.filename": EVENTS}
"""Salt itself writes down whatever passes the master's event bus."""
STREAMS = {"web1": "app1", "app1": "laptop", "laptop": "web2", "printer": "web1", "relay-nyc1": "relay-fra2"}


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    return Mesh(lab=fleet, name=MESH, networks=tuple(networks(policy())), members=DEMO.minions, lan=PRINTER)


@pytest.fixture(scope="module")
def first(mesh: Mesh) -> dict[str, Any]:
    """What the first state.apply returned."""
    mesh.lab.salt.set_policy(policy())
    return mesh.apply()


def test_the_command_succeeds_on_every_node(first: dict[str, Any]):
    assert failures(first, DEMO.minions) == []
    assert {line.partition(":")[0] for line in changes(first)} == set(DEMO.minions)


def test_the_mesh_settles_without_another_command(mesh: Mesh):
    """Every node is planned and runs its part, and has an address in each network on each interface."""
    mesh.settle()
    assert [len(addresses) for addresses in mesh.overlay().values()] == [2] * len(DEMO.minions)


def test_every_pair_arrives_by_its_planned_path(mesh: Mesh):
    """Both directions, both families, the LAN host too."""
    assert mesh.faults() == []


def test_sites_talk_through_relays_only(fleet: Lab):
    """What the underlay forbids is not planned as a direct path; what it allows within a site is."""
    plan = paths(fleet.salt, MESH)
    relays = {"relay-fra1", "relay-fra2", "relay-nyc1"}
    assert list(plan["web1"]["web2"]) == ["web1", "web2"]
    for a, b in (("web1", "app1"), ("app1", "web1"), ("laptop", "web2"), ("gw1", "laptop")):
        assert len(list(plan[a][b])) > 2
        assert set(list(plan[a][b])[1:-1]) <= relays


def test_the_second_time_nothing_changes_and_no_packet_is_lost(mesh: Mesh):
    """While streams of 100 Hz run across the mesh, in both families; no interface is made anew."""
    before = mesh.links()
    with mesh.streams(STREAMS) as losses:
        again = mesh.apply()
    assert failures(again, DEMO.minions) == []
    assert changes(again) == []
    assert mesh.links() == before
    assert losing(losses) == []


def test_no_private_key_left_its_node(fleet: Lab):
    """Not in an event, the job cache, the mine, the pillar cache, a log, or another node's files."""
    keys = [fleet.underlay[name].run("cat", "/etc/wireguard/wgmesh.key").strip() for name in DEMO.minions]
    assert len(set(keys)) == len(DEMO.minions)
    written = [p for p in fleet.folder.rglob("*") if p.is_file()]
    assert len(written) > 50
    leaked = [str(p) for p in written if any(key.encode() in content(p) for key in keys)]
    assert leaked == []
    events = fleet.salt.master.run("cat", EVENTS)
    assert all(f"wgmesh/{name}/facts" in events for name in DEMO.minions)
    assert not any(key in events for key in keys)


def content(path: Path) -> bytes:
    """What is in the file; nothing if it went away meanwhile: Salt and its extension keep short-lived ones."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
