"""One command makes the mesh; the second time it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ...demo.run import MESH, PRINTER, failures, networks, policy
from ...demo.topology import DEMO
from ...expectation import faults, targets
from ...lab import Lab
from ...overlay import Stream, addresses_in, trips
from ...wait import wait_until

TOPOLOGY = DEMO
POLICY = policy()
NETWORKS = networks(POLICY)
STREAMS = {"web1": "app1", "app1": "laptop", "laptop": "web2", "printer": "web1", "relay-nyc1": "relay-fra2"}


@pytest.fixture(scope="module")
def applied(fleet: Lab) -> dict[str, Any]:
    """What the first state.apply returned."""
    return fleet.salt.salt("*", "state.apply", "wgmesh", timeout=90)


@pytest.fixture(scope="module")
def overlay(applied: dict[str, Any], fleet: Lab) -> dict[str, tuple[str, ...]]:
    """The nodes' overlay addresses, once each has one in each network."""

    def complete() -> dict[str, tuple[str, ...]] | None:
        found = addresses_in(fleet.underlay, DEMO.minions, NETWORKS)
        return found if all(len(a) == len(NETWORKS) for a in found.values()) else None

    return wait_until(complete, 60, "every node to have its overlay addresses", every=0.5)


def test_the_command_succeeds_on_every_node(applied: dict[str, Any]):
    assert failures(applied, DEMO.minions) == []
    assert all(any(state["changes"] for state in applied[name].values()) for name in DEMO.minions)


def test_every_pair_arrives_by_its_planned_path(fleet: Lab, overlay: dict[str, tuple[str, ...]]):
    """Both directions, both families, the LAN host too, within seconds after the command returned."""
    wanted = targets(overlay, PRINTER)
    paths = fleet.salt.salt_run("wgmesh.paths", mesh=MESH)

    def all_as_planned() -> bool:
        return not faults(trips(fleet.underlay, wanted), paths, PRINTER)

    try:
        wait_until(all_as_planned, 15, "all pairs")
    except AssertionError:
        assert faults(trips(fleet.underlay, wanted), paths, PRINTER) == []


def test_sites_talk_through_relays_only(fleet: Lab):
    """What the underlay forbids is not planned as a direct path."""
    paths = fleet.salt.salt_run("wgmesh.paths", mesh=MESH)
    relays = {"relay-fra1", "relay-fra2", "relay-nyc1"}
    assert paths["web1"]["web2"] == ["web1", "web2"]
    for a, b in (("web1", "app1"), ("app1", "web1"), ("laptop", "web2"), ("gw1", "laptop")):
        assert len(paths[a][b]) > 2
        assert set(paths[a][b][1:-1]) <= relays


def test_the_second_time_nothing_changes_and_no_packet_is_lost(fleet: Lab, overlay: dict[str, tuple[str, ...]]):
    """While streams of 100 Hz run across the mesh, in both families."""
    before = {name: fleet.underlay[name].links() for name in DEMO.minions}
    streams = []
    for source, target in STREAMS.items():
        addresses = [a for a in overlay[target] if source in DEMO.minions or ":" not in a]
        streams.append(Stream(fleet.underlay[source], addresses).__enter__())
    again = fleet.salt.salt("*", "state.apply", "wgmesh", timeout=90)
    for stream in streams:
        stream.__exit__()
    assert failures(again, DEMO.minions) == []
    changed = [f"{n}: {k}" for n in DEMO.minions for k, state in again[n].items() if state["changes"]]
    assert changed == []
    assert {name: fleet.underlay[name].links() for name in DEMO.minions} == before
    losses = [loss for stream in streams for loss in stream.losses]
    assert min(loss.sent for loss in losses) > 100
    assert [loss for loss in losses if loss.lost] == []


def test_no_private_key_left_its_node(fleet: Lab):
    """Not in the job cache, the mine, the pillar cache, a log, or another node's files."""
    keys = [fleet.underlay[name].run("cat", "/etc/wireguard/wgmesh.key").strip() for name in DEMO.minions]
    assert len(set(keys)) == len(DEMO.minions)
    written = [p for p in Path(fleet.folder).rglob("*") if p.is_file()]
    assert len(written) > 50
    leaked = [str(p) for p in written if any(key.encode() in p.read_bytes() for key in keys)]
    assert leaked == []
