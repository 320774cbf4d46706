"""From the watcher's file to the master's bus: the beacon of the formula, as documented; and that silence is free."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import MappingProxyType

import pytest
import salt.utils.event

from saltext_wgmesh.beacons import wgmesh as beacon
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.minion import linkfile
from saltext_wgmesh.minion.host import Host
from tests import sandbox
from tests.integration.conftest import MINION, POLICY, write_policy

pytestmark = pytest.mark.root


@pytest.fixture
def bus(master):
    """Listens on the master's bus; what was fired since is kept."""
    with salt.utils.event.get_event(
        "master", sock_dir=master.config["sock_dir"], opts=dict(master.config), listen=True
    ) as opened:
        opened.connect_pub()
        yield opened


def events(bus, pattern, seconds, most=None):
    """The events whose tag matches all of *pattern* that come within *seconds*, or the first *most* of them."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end and len(found) != most:
        event = bus.get_event(wait=0.2, full=True)
        if event and re.fullmatch(pattern, event["tag"]):
            found.append((event["tag"], {k: v for k, v in event["data"].items() if k != "_stamp"}))
    return found


def watched(state):
    """The watcher's file says that the link to relay-fra1 is so."""
    link = Link(neighbour="relay-fra1", interface="wg0-u1", state=state, since=1.0)
    linkfile.write(Host(), LinkReport(mesh="wg0", watched=True, links=MappingProxyType({"relay-fra1": link})))


def documented():
    """The example in the beacon's docstring: tag and data."""
    tag, text = re.search(r"Example::\n\n +(\S+)\n +(\{.*\})\n", beacon.__doc__).groups()
    return tag, json.loads(text)


def test_a_dead_link_is_the_documented_event_on_the_bus(salt, minion, pillar_folder, bus):
    """The formula's own beacon fires it; tag and data are those of the docstring's example, for this node."""
    write_policy(pillar_folder, POLICY)
    assert salt.run("state.apply", "wgmesh", minion_tgt=MINION).returncode == 0
    # It would soon write the truth again.
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


def test_a_change_is_one_event_and_nothing_to_do_costs_no_job(salt_run, pillar_folder, bus, salt, minion):
    """A new mtu is told once on the bus; the run after it is silent there and sends no job."""
    changed = json.loads(json.dumps(POLICY))
    changed["wgmesh"]["wg0"]["mtu"] = 1400
    write_policy(pillar_folder, changed)
    try:
        assert salt_run.run("wgmesh.converge").returncode == 0
        (told,) = events(bus, "wgmesh/wg0/converged", 5)
        assert told[1]["applied"] == [MINION]
        assert salt_run.run("wgmesh.converge").returncode == 0
        assert events(bus, r"wgmesh/.*|salt/job/\d+/new", 3) == []
    finally:
        write_policy(pillar_folder, POLICY)
        salt_run.run("wgmesh.converge")


def test_the_beacon_is_kept_for_the_next_start(salt, minion):
    """``beacon.present`` of the formula saved it; a second run has nothing to change."""
    saved = Path(minion.config["conf_file"]).parent / "minion.d" / "beacons.conf"
    assert "wgmesh" in saved.read_text()
    told = salt.run("state.sls_id", "wgmesh-beacon", "wgmesh", minion_tgt=MINION).data
    assert [s["changes"] for s in told.values()] == [{}]
