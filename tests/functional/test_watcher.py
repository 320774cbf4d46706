"""The watcher as a program: its unit for systemd, the engine that keeps it running, and what a restart leaves alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
from types import MappingProxyType

import pytest
import salt.loader

from saltext_wgmesh.core import names
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.minion import apply, keys, linkfile, watch, watching
from saltext_wgmesh.minion.host import Host
from tests.functional import namespace
from tests.lab.wait import wait_until
from tests.nodeviews import NETWORKS, leaf, relay

COMMAND = list(watching.COMMAND)


def directive(name):
    """What the unit says of *name*."""
    (value,) = re.findall(rf"^{name}=(.*)$", watching.unit(), re.MULTILINE)
    return value


@pytest.fixture
def node(watchers):
    """A leaf that has applied its view, and no watcher."""
    keys.ensure(Host())
    apply.apply(Host(), leaf())


@pytest.fixture
def engine(node, minion_opts):
    """The engine, by Salt's loader, in a process of its own, as a minion has it."""
    start = salt.loader.engines(minion_opts, {}, {}, {})["wgmesh.start"]
    process = multiprocessing.get_context("fork").Process(target=start)
    process.start()
    yield process
    process.kill()
    process.join(10)


def told():
    """The pid of the watcher that holds the lock; None if none does."""
    if watching.running(Host()) is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        pid = json.loads((Host().run_dir / watch.PID).read_text())["pid"]
        return pid if pid in namespace.watchers() else None
    return None


def another(than):
    """The pid of a watcher that was started after *than*."""
    pid = told()
    return pid if pid != than else None


def test_systemd_has_nothing_to_say_about_the_unit(tmp_path):
    """``systemd-analyze verify`` finds no unknown word, no missing program and no unit that is not there."""
    unit = tmp_path / "wgmesh-watch.service"
    unit.write_text(watching.unit())
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_systemd_starts_it_again_however_often_it_dies():
    """Always, after a second, without the limit of five starts in ten seconds."""
    assert [directive(n) for n in ("Restart", "RestartSec", "StartLimitIntervalSec")] == ["always", "1", "0"]


def test_systemd_starts_what_the_engine_starts(node, watchers):
    """ExecStart is the command line of the running watcher, word by word."""
    watching.start(Host())
    assert shlex.split(directive("ExecStart")) == watchers()[told()]


def test_the_capabilities_of_the_unit_suffice(node, watchers, outside, tmp_path):
    """With them and no others it hears BFD on both uplinks and mends a route."""
    outside("ip", "route", "del", NETWORKS[0])
    capabilities = ",".join(f"+{c.removeprefix('CAP_').lower()}" for c in directive("CapabilityBoundingSet").split())
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(["setpriv", f"--bounding-set=-all,{capabilities}", *COMMAND], stderr=log, cwd="/")
    try:
        wait_until(lambda: outside("ip", "route", "show", NETWORKS[0]), 20, "the route to be back")
        wait_until(lambda: outside("ss", "-Hlun", "sport = 3784").count("%wg0-u") == 2, 10, "both listeners")
    finally:
        process.kill()
        process.wait(10)
    assert "can't" not in (tmp_path / "log").read_text()


def test_nothing_that_the_environment_names_is_imported(node, watchers, tmp_path, monkeypatch):
    """Neither PYTHONPATH nor the folder in which the minion was started has a say in what the watcher is."""
    (tmp_path / "saltext_wgmesh.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    watching.start(Host())
    assert told()


def test_the_engine_starts_a_watcher_and_another_when_it_and_its_supervisor_died(engine, watchers):
    """Each time there is one watcher under one supervisor."""
    pid = None
    for _ in range(2):
        pid = wait_until(lambda: another(pid), 30, "a watcher to run")  # noqa: B023
        assert sorted(watchers().values(), key=len) == [COMMAND, [*COMMAND, "--supervise"]]
        for each in sorted(watchers(), reverse=True, key=lambda p: "--supervise" in watchers()[p]):
            os.kill(each, signal.SIGKILL)
    wait_until(lambda: another(pid), 30, "a watcher to run")


def test_a_watcher_that_died_gets_no_second_supervisor(engine, watchers):
    """The engine sees that none runs while the supervisor is about to start one; only one of the two goes on."""
    pid = wait_until(told, 30, "a watcher to run")
    for _ in range(3):
        os.kill(pid, signal.SIGKILL)
        pid = wait_until(lambda: another(pid), 30, "another watcher to run")  # noqa: B023
    settled = [COMMAND, [*COMMAND, "--supervise"]]
    wait_until(lambda: sorted(watchers().values(), key=len) == settled, 10, "one watcher and one supervisor")
    assert told() == pid


def test_the_watcher_outlives_the_engine_and_is_still_started_again(engine, watchers):
    """While the minion is stopped its supervisor alone sees to it."""
    pid = wait_until(told, 30, "a watcher to run")
    engine.terminate()
    engine.join(10)
    assert told() == pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: another(pid), 30, "another watcher to run")


def dead_first_relay():
    """The watcher says that the link to the first relay is down, and that to the second is up; the links."""
    states = {"n1": ("wg0-u1", LinkState.DOWN), "n2": ("wg0-u2", LinkState.UP)}
    links = {n: Link(neighbour=n, interface=i, state=s, since=7.0, hold=4.0) for n, (i, s) in states.items()}
    linkfile.write(Host(), LinkReport(mesh="wg0", watched=True, links=MappingProxyType(links)))
    return links


def test_an_apply_amid_a_move_of_the_watchers_has_nothing_to_do(node):
    """The route is moved a moment before the file says why."""
    dead_first_relay()
    apply.apply(Host(), leaf())
    report = linkfile.read(Host(), "wg0")
    healed = MappingProxyType({n: dataclasses.replace(k, state=LinkState.UP) for n, k in report.links.items()})
    linkfile.write(Host(), dataclasses.replace(report, links=healed))
    late = threading.Timer(apply.MOVE / 2, linkfile.write, (Host(), report))
    late.start()
    changed = apply.apply(Host(), leaf()).lines
    late.join()
    assert changed == []


def test_a_restart_leaves_routes_alone_that_are_right(node, watchers, tmp_path):
    """It goes on with what the watcher before it believed: the dead first relay is not tried again."""
    links = dead_first_relay()
    changed = apply.apply(Host(), leaf()).lines
    assert any("wg0-u2" in line for line in changed)
    monitor = subprocess.Popen(["ip", "monitor", "route"], stdout=subprocess.PIPE, text=True)
    log = Host().run_dir / watch.LOG
    try:
        watching.start(Host())
        # The line comes after the first look at the routes, and long before the grace of its links is over.
        wait_until(lambda: "watching 2 links" in log.read_text(), 20, "the watcher to have looked", every=0.02)
    finally:
        monitor.terminate()
        seen, _ = monitor.communicate(timeout=10)
    told_now = {n: (k.state, k.since, k.hold) for n, k in linkfile.read(Host(), "wg0").links.items()}
    assert told_now == {n: (k.state, k.since, k.hold) for n, k in links.items()}
    # The kernel's own, for the addresses that it has just found to be unique, are of other devices.
    assert [line for line in seen.splitlines() if "wg0" in line] == []


def test_what_the_beacon_wrote_meanwhile_the_watcher_replaces(node, watchers):
    """The beacon takes a watcher for dead when the clock leaps, as after a suspend."""
    watching.start(Host())
    wait_until(lambda: linkfile.read(Host(), "wg0"), 20, "the watcher to say how the links are")
    linkfile.write(Host(), LinkReport(mesh="wg0", watched=False))
    wait_until(lambda: linkfile.read(Host(), "wg0").watched, 20, "the watcher to say it again")


def test_a_mesh_that_is_removed_beside_it_leaves_no_route(watchers, outside, monkeypatch):
    """However long the files take: it would put back a network that is unreachable, and nobody would own that."""
    keys.ensure(Host())
    apply.apply(Host(), relay())
    watching.start(Host())
    wait_until(lambda: linkfile.watched(Host(), "wg0"), 20, "the watcher to say how the links are")
    routes = ("ip", "route", "show", "table", "all", "proto", str(names.ROUTE_PROTOCOL))
    assert "unreachable" in outside(*routes)
    quick = apply.boot.remove

    def slowly(*args, **options):
        with contextlib.suppress(AssertionError):
            wait_until(lambda: outside(*routes), 3 * watch.TEND_EVERY, "a route that must not come")
        return quick(*args, **options)

    monkeypatch.setattr(apply.boot, "remove", slowly)
    apply.remove(Host(), "wg0")
    wait_until(lambda: not linkfile.path(Host(), "wg0").exists(), 20, "the watcher to know")
    assert outside(*routes) == ""


@pytest.mark.parametrize("port", [names.BFD_PORT, names.SBFD_PORT])
def test_a_port_that_another_program_has_ends_no_watcher_and_is_heard_when_it_is_free(node, watchers, outside, port):
    """Of the control packets' port only a program that takes it on all devices stands in the way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", port))
        watching.start(Host())
        pid = wait_until(told, 20, "a watcher to run")
        wait_until(lambda: linkfile.read(Host(), "wg0"), 20, "the watcher to say how the links are")
    listening = ("ss", "-Hlun4", f"sport = {port}")
    wait_until(lambda: outside(*listening), 3 * watch.MEND_EVERY, "the watcher to hear it")
    assert told() == pid


@pytest.fixture
def departing(node):
    """The node has left its only mesh."""
    apply.remove(Host(), "wg0")


class TestDeparted:
    def test_ends_the_watcher_and_who_would_start_it_again(self, states, departing, watchers):
        """Test mode tells the processes and ends none; the second run finds nothing to do; nothing is left in /run."""
        watching.start(Host())
        running = sorted(watchers())
        told = states.wgmesh.departed("node", test=True)
        assert told.result is None
        assert sorted(told.changes["watcher"]["old"]) == running
        assert sorted(watchers()) == running
        done = states.wgmesh.departed("node")
        assert (done.result, done.changes) == (True, told.changes)
        assert watchers() == {}
        assert not Host().run_dir.exists()
        assert not Host().state_dir.exists()
        again = states.wgmesh.departed("node")
        assert (again.result, again.changes) == (True, {})
        assert Host().key_file.exists()

    def test_takes_the_key_if_that_is_asked_for(self, states, departing):
        """Test mode says so and leaves it."""
        told = {"key": {"old": "/etc/wireguard/wgmesh.key", "new": None}}
        assert states.wgmesh.departed("node", key=True, test=True).changes == told
        assert Host().key_file.exists()
        assert states.wgmesh.departed("node", key=True).changes == told
        assert not Host().key_file.exists()

    def test_leaves_a_node_alone_that_is_in_a_mesh(self, states, node, watchers):
        """Its watcher has work to do; in test mode the mesh may be one that is about to go."""
        watching.start(Host())
        running = watchers()
        assert states.wgmesh.departed("node", test=True).result is None
        refused = states.wgmesh.departed("node", key=True)
        assert (refused.result, refused.changes) == (False, {})
        assert "wg0" in refused.comment
        assert watchers() == running

    def test_the_engine_starts_none_on_a_node_without_a_mesh(self, engine, states, watchers):
        """It goes on until the minion is restarted, and a watcher would be back in a second."""
        wait_until(told, 30, "a watcher to run")
        apply.remove(Host(), "wg0")
        assert states.wgmesh.departed("node").result is True
        with pytest.raises(AssertionError):
            wait_until(watchers, 3, "a watcher that must not come")
        assert not Host().run_dir.exists()
