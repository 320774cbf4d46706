"""From the watcher's file to the master's bus: the formula's beacon and its documented events."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import MappingProxyType

import pytest
import salt.utils.event

from saltext_wgmesh.beacons import wgmesh as beacon
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.minion.state import link_report_file
from saltext_wgmesh.minion.system.host import Host
from tests import sandbox
from tests.integration.conftest import MINION, POLICY, write_policy

pytestmark = pytest.mark.root


@pytest.fixture
def bus(master):
    """Listen on the master's bus, and keep the events since then."""
    with salt.utils.event.get_event(
        "master", sock_dir=master.config["sock_dir"], opts=dict(master.config), listen=True
    ) as opened:
        opened.connect_pub()
        yield opened


def events(bus, pattern, seconds, most=None):
    """Return the events within *seconds* whose whole tag matches *pattern*, or the first *most* of them."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end and len(found) != most:
        event = bus.get_event(wait=0.2, full=True)
        if event and re.fullmatch(pattern, event["tag"]):
            found.append((event["tag"], {k: v for k, v in event["data"].items() if k != "_stamp"}))
    return found


def watched(state):
    """Write a watcher's report with this state of the link to relay-fra1."""
    link = LinkStatus(neighbour="relay-fra1", interface="wg0-u1", state=state, since=1.0)
    link_report_file.write_report(
        Host(), LinkReport(mesh="wg0", from_watcher=True, links=MappingProxyType({"relay-fra1": link}))
    )


def documented():
    """Return tag and data of the example in the beacon's docstring."""
    tag, text = re.search(r"Example::\n\n +(\S+)\n +(\{.*\})\n", beacon.__doc__).groups()
    return tag, json.loads(text)


def test_dead_link_is_documented_event(salt, minion, pillar_folder, bus):
    """The formula's beacon fires an event with the tag and data of the docstring's example, for this node."""
    write_policy(pillar_folder, POLICY)
    assert salt.run("state.apply", "wgmesh", minion_tgt=MINION).returncode == 0
    # A running watcher would overwrite the report.
    sandbox.end_watcher()
    watched(LinkState.UP)
    events(bus, ".*", 3)
    watched(LinkState.DOWN)
    tag, data = documented()
    pattern = re.escape(tag.replace("web1", MINION))
    assert events(bus, pattern, 20, most=1) == [(pattern.replace("\\", ""), {**data, "id": MINION})]
    watched(LinkState.UP)
    up = f"salt/beacon/{MINION}/wgmesh/link-up"
    assert events(bus, up, 20, most=1) == [(up, {**data, "id": MINION, "down": []})]


def test_change_is_one_event(salt_run, pillar_folder, bus, salt, minion):
    """A new MTU causes one event on the bus. The next run, without changes, only asks for the links."""
    changed = json.loads(json.dumps(POLICY))
    changed["wgmesh"]["wg0"]["mtu"] = 1400
    write_policy(pillar_folder, changed)
    try:
        assert salt_run.run("wgmesh.converge").returncode == 0
        ((_, data),) = events(bus, "wgmesh/wg0/converged", 5)
        assert data["applied"] == [MINION]
        assert salt_run.run("wgmesh.converge").returncode == 0
        assert [data["fun"] for _, data in events(bus, r"wgmesh/.*|salt/job/\d+/new", 3)] == ["wgmesh.links"]
    finally:
        write_policy(pillar_folder, POLICY)
        salt_run.run("wgmesh.converge")


def test_beacon_is_kept_for_next_start(salt, minion):
    """``beacon.present`` of the formula has saved the beacon, and a second run has no changes."""
    saved = Path(minion.config["conf_file"]).parent / "minion.d" / "beacons.conf"
    assert "wgmesh" in saved.read_text()
    states = salt.run("state.sls_id", "wgmesh-beacon", "wgmesh", minion_tgt=MINION).data
    assert [s["changes"] for s in states.values()] == [{}]
