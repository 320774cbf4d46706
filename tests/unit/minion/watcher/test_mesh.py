"""The monitor of one mesh on a node: its view, requests of an apply, and the report."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.view import Interface, Kind
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.minion.state import admin_down, link_report_file
from tests.unit.harness.watcher import mesh_monitor, set_sessions, states
from tests.unit.harness.worlds import all_facts, leaf, mesh, relay


def planned(node, *rules):
    """The view of *node* in the mesh of *rules*."""
    return planner.plan_mesh(mesh(*rules), all_facts(*(rule.pattern for rule in rules)), Allocations()).views[node]


@pytest.fixture
def monitor(tmp_path):
    """That of a leaf with two relays; both sessions are up since second 0."""
    made = mesh_monitor(tmp_path, planned("n", relay("r1"), relay("r2", "203.0.113.2"), leaf("n")))
    sessions(made, 0.0, "r1", "r2")
    assert states(made.links) == {"r1": LinkState.UP, "r2": LinkState.UP}
    return made


def sessions(monitor, now, *up):
    """At second *now* the sessions to *up* are up, and all others have timed out; the states follow."""
    set_sessions(monitor.links, up)
    evaluate(monitor, now)


def evaluate(monitor, now):
    """Neighbour → whether the state of its link changed at second *now*."""
    return {name: monitor.evaluate(link, now) for name, link in monitor.links.items()}


def request_admin_down(monitor, *neighbours, until=10.0):
    """An apply requests that the links to *neighbours* be held down for *until* seconds."""
    path = admin_down.request_path(monitor.host, "wg0")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"neighbours": neighbours, "until": time.monotonic() + until}))


def hold_down(monitor, now, *neighbours):
    """An apply requests it, and the monitor follows at second *now*."""
    request_admin_down(monitor, *neighbours)
    monitor.apply_admin_down(now)
    evaluate(monitor, now)


def used_interfaces(monitor):
    """The interfaces by which the networks of the mesh are routed."""
    entries = monitor.routes.desired_entries(monitor.verdict.report())
    return {entry.device for entry in entries if entry.prefix in monitor.view.networks}


# --- states and the report -----------------------------------------------------------------------------


def test_changed_state_is_logged_and_reported(monitor, caplog):
    """Once, with the reason."""
    caplog.set_level("INFO")
    monitor.maintain(50.0)
    set_sessions(monitor.links, ("r2",))
    assert evaluate(monitor, 100.0) == {"r1": True, "r2": False}
    assert evaluate(monitor, 100.1) == {"r1": False, "r2": False}
    assert [line for line in caplog.messages if "down" in line] == ["wg0: r1 by wg0-u1 is down (time_expired)"]
    assert monitor.is_report_due
    monitor.maintain(100.2)
    report = link_report_file.read_report(monitor.host, "wg0")
    assert {name: link.state for name, link in report.links.items()} == {"r1": LinkState.DOWN, "r2": LinkState.UP}
    assert not monitor.is_report_due


def test_link_in_hold_down_is_preferred_to_dead(monitor):
    """It carries, whatever it did before. The other link went down last, and does not."""
    sessions(monitor, 100.0, "r2")
    monitor.links["r1"].hold_down = replace(monitor.links["r1"].hold_down, hold=30.0)
    sessions(monitor, 200.0)
    monitor.links["r1"].session.state = bfd.BfdState.UP
    first, second = monitor._note_session_up(monitor.links["r1"]), monitor._note_session_up(monitor.links["r1"])
    assert {"first": first, "second": second} == {"first": True, "second": False}
    report = monitor.verdict.report()
    assert max(report.down.items(), key=lambda item: item[1])[0] == "r1"
    again = LinkReport.from_dict(report.as_dict())
    assert again == report
    assert again.links["r1"].session_up


# --- another view --------------------------------------------------------------------------------------


def test_new_multiplier_applies_to_running_sessions(monitor):
    """Without a new session."""
    before = monitor.links["r1"].session
    monitor.update(replace(monitor.view, bfd=replace(monitor.view.bfd, multiplier=7)))
    assert monitor.links["r1"].session is before
    assert before.tick(1e9, 0.5).multiplier == 7


def test_blackhole_ends_when_other_relay_leaves_mesh(monitor):
    """Probes went through it to the relay that was about to leave. Now there is no relay to probe for."""
    for second in range(10):
        list(monitor.verdict.probes(100.0 + second))
        sessions(monitor, 100.0 + second, "r1", "r2")
    assert states(monitor.links) == {"r1": LinkState.BLACKHOLE, "r2": LinkState.BLACKHOLE}
    monitor.update(planned("n", relay("r1"), leaf("n")))
    list(monitor.verdict.probes(111.0))
    sessions(monitor, 120.0, "r1")
    assert states(monitor.links) == {"r1": LinkState.UP}


def test_leaf_over_a_relays_uplink_is_not_probed(tmp_path):
    """It was a relay, or is about to become one. As soon as it is one, it counts as one."""
    view = planned("r1", relay("r1"), relay("r2", "203.0.113.2"), relay("r3", "203.0.113.3"))
    kinds = {"r2": Kind.UPLINK, "r3": Kind.TRUNK}
    changing_role = replace(view, interfaces=tuple(_of_kind(i, kinds) for i in view.interfaces))
    monitor = mesh_monitor(tmp_path, changing_role)
    assert {name: link.is_relay for name, link in monitor.links.items()} == {"r2": False, "r3": True}
    session = monitor.links["r2"].session
    monitor.update(view)
    assert monitor.links["r2"].is_relay
    assert monitor.links["r2"].session is session
    sessions(monitor, 0.0, "r2", "r3")
    monitor.links["r2"].probing_since = 1.0
    monitor.update(changing_role)
    sessions(monitor, 1000.0, "r2", "r3")
    assert states(monitor.links)["r2"] is LinkState.UP


def _of_kind(interface: Interface, kinds: dict[str, Kind]) -> Interface:
    return replace(interface, kind=kinds[interface.peers[0].node]) if interface.peers else interface


# --- administrative down -------------------------------------------------------------------------------


def test_held_down_link_is_unused_and_returns(monitor):
    """Without a hold-down, though another link carries: an administrative down is no flap."""
    first = used_interfaces(monitor)
    hold_down(monitor, 100.0, "r1")
    assert states(monitor.links) == {"r1": LinkState.ADMIN_DOWN, "r2": LinkState.UP}
    assert {"before": first, "now": used_interfaces(monitor)} == {"before": {"wg0-u1"}, "now": {"wg0-u2"}}
    hold_down(monitor, 101.0)
    assert states(monitor.links)["r1"] is LinkState.ADMIN_DOWN
    sessions(monitor, 101.1, "r1", "r2")
    assert states(monitor.links)["r1"] is LinkState.UP
    assert used_interfaces(monitor) == first
    assert monitor.links["r1"].hold_down.hold == 0.0


def test_link_that_is_down_ignores_admin_down_request(monitor):
    """Its hold-down is not forgotten for that."""
    sessions(monitor, 100.0, "r2")
    hold_down(monitor, 101.0, "r1")
    assert states(monitor.links)["r1"] is LinkState.DOWN


def test_only_link_not_down_is_used_while_held(monitor):
    """Whichever link went down last: the one that is held down may well carry."""
    hold_down(monitor, 100.0, "r1")
    sessions(monitor, 101.0)
    monitor.links["r1"].session.state = bfd.BfdState.ADMIN_DOWN
    assert states(monitor.links) == {"r1": LinkState.ADMIN_DOWN, "r2": LinkState.DOWN}
    assert used_interfaces(monitor) == {"wg0-u1"}


@pytest.mark.parametrize("until", [-1.0, 3600.0], ids=["expired", "from the future"])
def test_admin_down_request_out_of_time_holds_nothing(monitor, until):
    """The apply has died, or the clock was set back."""
    hold_down(monitor, 100.0, "r1")
    request_admin_down(monitor, "r1", until=until)
    assert monitor.apply_admin_down(101.0)
    assert monitor.links["r1"].session.state is bfd.BfdState.DOWN
