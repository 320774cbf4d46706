"""The loop follows the view files of the node: a mesh is monitored as long as its view can be read."""

from __future__ import annotations

import json
import time
from types import MappingProxyType, SimpleNamespace

import pytest

from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.minion.state import link_report_file
from saltext_wgmesh.minion.watcher.loop import ROUTES_EVERY, Loop
from tests import nodeviews
from tests.unit.harness.fakehost import FakeHost, Kernel


@pytest.fixture
def host(tmp_path):
    """A node without any device, so the loop opens no socket."""
    return FakeHost.below(tmp_path, Kernel())


@pytest.fixture
def loop(host):
    return Loop(host)


def write_view(host, mesh, text=None):
    """The file says the view of a leaf in *mesh*, or else *text*."""
    path = host.state_dir / mesh / "view.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(nodeviews.leaf(mesh=mesh).as_dict()) if text is None else text
    path.with_name("new").write_text(content)
    path.with_name("new").replace(path)
    return path


def reported(host, mesh):
    """Neighbour → state as reported; None: there is no report."""
    report = link_report_file.read_report(host, mesh)
    return None if report is None else {name: link.state for name, link in report.links.items()}


def maintain(loop):
    """One round, now."""
    loop._maintain(time.monotonic())


def test_new_view_is_monitored(host, loop):
    """Its report is there after one round."""
    maintain(loop)
    write_view(host, "wg0")
    assert reported(host, "wg0") is None
    maintain(loop)
    assert reported(host, "wg0") == {"n1": LinkState.NEW, "n2": LinkState.NEW}


def test_prepared_loop_changes_nothing(host, loop):
    """A former watcher still runs: no program is run, no socket opened and no report written until the loop begins."""
    write_view(host, "wg0")
    link_report_file.write_report(host, former_report())
    before = contents(host)
    loop.prepare()
    assert (contents(host), host.kernel.ran, loop._transport._families) == (before, [], {})
    assert states_of(loop) == {"n1": LinkState.NEW, "n2": LinkState.NEW}


@pytest.mark.parametrize("is_successor", [True, False])
def test_begun_loop_has_states_of_last_report(host, loop, is_successor):
    """The former watcher wrote it after this one was prepared. Only a successor waits for the neighbours' sessions."""
    write_view(host, "wg0")
    loop.prepare()
    link_report_file.write_report(host, former_report())
    loop.begin(is_successor=is_successor)
    assert states_of(loop) == {"n1": LinkState.DOWN, "n2": LinkState.UP}
    now = time.monotonic()
    assert [link.may_resume(now) for link in loop._meshes["wg0"].links.values()] == [is_successor] * 2
    # Only after the sockets are routes compared, and no program is waited for until then.
    assert host.kernel.ran == []
    maintain(loop)
    assert host.kernel.ran
    assert reported(host, "wg0") == {"n1": LinkState.DOWN, "n2": LinkState.UP}


@pytest.mark.parametrize("report", [None, "{", "old"], ids=["none", "damaged", "of a full disk"])
def test_successor_without_report_sends_no_down(host, loop, report):
    """The neighbours have their sessions all the same, and a packet in state Down would end these."""
    write_view(host, "wg0")
    loop.prepare()
    if report == "old":
        link_report_file.write_report(host, former_report())
        path = link_report_file.report_path(host, "wg0")
        path.write_text(path.read_text().replace('"written"', '"forgotten"'))
    elif report is not None:
        host.run_dir.mkdir(exist_ok=True)
        link_report_file.report_path(host, "wg0").write_text(report)
    loop.begin(is_successor=True)
    now = time.monotonic()
    links = loop._meshes["wg0"].links.values()
    assert [(link.may_resume(now), link.session.tick(now, 0.5)) for link in links] == [(True, None)] * 2


def test_successor_waits_as_long_as_relay_does(host, loop):
    """A relay of 300 leaves sends each 0.6 s: its session is not over after three intervals of the leaf."""
    write_view(host, "wg0")
    loop.prepare()
    states = {"n1": LinkState.UP, "n2": LinkState.DOWN}
    links = {
        n: LinkStatus(neighbour=n, interface="wg0-u1", state=s, since=time.time() - 7, interval=i)
        for (n, s), i in zip(states.items(), (600, 1000), strict=True)
    }
    link_report_file.write_report(host, LinkReport(mesh="wg0", from_watcher=True, links=MappingProxyType(links)))
    before = time.monotonic()
    loop.begin(is_successor=True)
    due = {name: link.session.next_at() - before for name, link in loop._meshes["wg0"].links.items()}
    assert (due["n1"] >= 1.8, due["n2"] < 1.0) == (True, True)


def former_report():
    """A report of the watcher before: the first relay is down."""
    states = {"n1": LinkState.DOWN, "n2": LinkState.UP}
    links = {n: LinkStatus(neighbour=n, interface="wg0-u1", state=s, since=time.time() - 7) for n, s in states.items()}
    return LinkReport(mesh="wg0", from_watcher=True, links=MappingProxyType(links))


def states_of(loop):
    """Neighbour → state, in the loop itself."""
    return {name: link.state for name, link in loop._meshes["wg0"].links.items()}


def contents(host):
    """All files of the node, with what they hold."""
    folders = (host.run_dir, host.state_dir, host.conf_dir)
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_removed_view_ends_monitoring_and_report(host, loop):
    """Other meshes go on."""
    path = write_view(host, "wg0")
    write_view(host, "wg1")
    maintain(loop)
    path.unlink()
    maintain(loop)
    assert reported(host, "wg0") is None
    assert reported(host, "wg1") == {"n1": LinkState.NEW, "n2": LinkState.NEW}


@pytest.mark.parametrize("damaged", ["{", "[]", "{}"], ids=["cut off", "no object", "empty"])
def test_damaged_view_stops_no_other_mesh(host, loop, damaged, caplog):
    """It is logged once, and the view before stays monitored until the file is right again."""
    write_view(host, "wg0")
    write_view(host, "wg1")
    maintain(loop)
    write_view(host, "wg0", damaged)
    link_report_file.remove_report(host, "wg1")
    for mesh in loop._meshes.values():
        mesh.is_report_due = True
    for _ in range(3):
        maintain(loop)
    assert reported(host, "wg0") == reported(host, "wg1") == {"n1": LinkState.NEW, "n2": LinkState.NEW}
    assert sum("cannot be read" in line for line in caplog.messages) == 1


DAMAGED = {
    "addresses": [],
    "networks": ["10.0.0.0/99"],
    "interfaces": [],
    "mesh": "../wg0",
    "bfd": {"interval": 10**12, "multiplier": 3},
    "mtu": 10**400,
}


@pytest.mark.parametrize("field", DAMAGED)
@pytest.mark.parametrize("is_first", [True, False], ids=["first view", "later view"])
def test_damaged_field_stops_no_other_mesh(host, loop, field, is_first):
    """The text is JSON, and a value in it is none that a master writes."""
    if not is_first:
        write_view(host, "wg0")
        maintain(loop)
    write_view(host, "wg0", json.dumps({**nodeviews.leaf().as_dict(), field: DAMAGED[field]}))
    write_view(host, "wg1")
    maintain(loop)
    maintain(loop)
    loop._tick(time.monotonic() + 1.0)
    assert reported(host, "wg1") == {"n1": LinkState.NEW, "n2": LinkState.NEW}
    assert reported(host, "wg0") == (None if is_first else reported(host, "wg1"))


@pytest.mark.parametrize(("field", "value"), [("address", "x"), ("node", "zz"), ("keepalive", -1)])
def test_damaged_peer_stops_no_other_mesh(host, loop, field, value):
    """The peer is one of another node than its route, or has no address."""
    raw = nodeviews.leaf().as_dict()
    next(i for i in raw["interfaces"] if i["peers"])["peers"][0][field] = value
    write_view(host, "wg0", json.dumps(raw))
    write_view(host, "wg1")
    maintain(loop)
    maintain(loop)
    assert reported(host, "wg1") == {"n1": LinkState.NEW, "n2": LinkState.NEW}
    assert reported(host, "wg0") is None


def test_changed_view_keeps_sessions(host, loop):
    """A file that is written again, with the same links, interrupts nothing."""
    write_view(host, "wg0")
    maintain(loop)
    before = {name: link.session for name, link in loop._meshes["wg0"].links.items()}
    write_view(host, "wg0")
    maintain(loop)
    assert {name: link.session for name, link in loop._meshes["wg0"].links.items()} == before


def test_routes_follow_bounded_times_a_second(host, loop, monkeypatch):
    """A link that changes all the time has its routes set at once, and then some times a second."""
    write_view(host, "wg0")
    maintain(loop)
    now, done = [1e9], []
    monkeypatch.setattr("saltext_wgmesh.minion.watcher.loop.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop, "_pause", lambda: 0.0)
    loop._next_maintenance = 2e9
    mesh = loop._meshes["wg0"]
    monkeypatch.setattr(mesh, "route_steps", lambda: iter((done.append(now[0]), mesh.changed_links.clear())[:0]))
    for _ in range(1000):
        mesh.changed_links.add("n1")
        loop.turn()
        now[0] += 0.001
    assert done[0] == 1e9
    assert len(done) <= 1 / ROUTES_EVERY + 1
