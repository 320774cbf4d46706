"""The watcher as a process: its systemd unit, the engine that keeps it running, upgrades, and what a restart keeps."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import MappingProxyType

import pytest
import salt.loader

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.minion.apply import apply, comparison, removal
from saltext_wgmesh.minion.state import keys, link_report_file
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import loop, service
from saltext_wgmesh.minion.watcher.instance import (
    INSTALLED_VERSION,
    SUPERVISOR_LOCK,
    WATCHER_COMMAND,
    WATCHER_LOCK,
    read_pid_file,
)
from saltext_wgmesh.minion.watcher.process import LOG_FILE
from tests.functional import intruder, namespace
from tests.lab.wait import wait_until
from tests.nodeviews import NETWORKS, leaf, relay

COMMAND = list(WATCHER_COMMAND)


def directive(name):
    """Return the value of the unit's directive *name*."""
    (value,) = re.findall(rf"^{name}=(.*)$", service.unit(), re.MULTILINE)
    return value


@pytest.fixture
def node(watchers):
    """Apply a leaf's view, without a watcher."""
    keys.ensure(Host())
    apply.apply(Host(), leaf())


@pytest.fixture
def engine(node, minion_opts):
    """Run the engine, from Salt's loader, in a process of its own, as a minion does."""
    start = salt.loader.engines(minion_opts, {}, {}, {})["wgmesh.start"]
    process = multiprocessing.get_context("fork").Process(target=start)
    process.start()
    yield process
    process.kill()
    process.join(10)


def running_pid():
    """Return the pid of the watcher that holds the lock, or None."""
    if service.running_version(Host()) is None:
        return None
    watcher = read_pid_file(Host())
    return watcher.pid if watcher and watcher.pid in namespace.watchers() else None


def reported_faults():
    """Return what the watcher's report says is wrong with this node."""
    report = link_report_file.read_report(Host(), "wg0")
    return report.relay_faults if report else ()


def another(than):
    """Return the pid of a running watcher other than *than*, or None."""
    pid = running_pid()
    return pid if pid != than else None


def test_unit_is_accepted_by_systemd(tmp_path):
    """``systemd-analyze verify`` finds no unknown directive, no missing program and no missing unit."""
    unit = tmp_path / "wgmesh-watch.service"
    unit.write_text(service.unit())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_unit_restarts_watcher_without_limit():
    """systemd restarts the watcher after a second, without its limit of five starts in ten seconds."""
    expected = {"Restart": "always", "RestartSec": "1", "StartLimitIntervalSec": "0"}
    assert {name: directive(name) for name in expected} == expected


def test_unit_starts_the_same_command_as_engine(node, watchers):
    """ExecStart is the command line of the running watcher, word by word."""
    service.ensure_running(Host())
    assert shlex.split(directive("ExecStart")) == watchers()[running_pid()]


def test_capabilities_of_unit_suffice(node, watchers, outside, tmp_path):
    """With only these capabilities the watcher listens for BFD on both uplinks and restores a route."""
    outside("ip", "route", "del", NETWORKS[0])
    capabilities = ",".join(f"+{c.removeprefix('CAP_').lower()}" for c in directive("CapabilityBoundingSet").split())
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(["setpriv", f"--bounding-set=-all,{capabilities}", *COMMAND], stderr=log, cwd="/")
    try:
        wait_until(lambda: outside("ip", "route", "show", NETWORKS[0]), 20, "the route to be back")
        listening = ("ss", "-Hlun", "sport = 3784")
        wait_until(lambda: set(re.findall(r"%(\S+):", outside(*listening))) == {"wg0-u1", "wg0-u2"}, 10, "both")
    finally:
        process.kill()
        process.wait(10)
    assert not re.search("can't|cannot", (tmp_path / "log").read_text())


def test_watcher_imports_nothing_that_environment_names(node, watchers, tmp_path, monkeypatch):
    """Neither PYTHONPATH nor the minion's working directory changes the imports of the watcher."""
    (tmp_path / "saltext_wgmesh.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    service.ensure_running(Host())
    assert running_pid()


def test_engine_replaces_dead_watcher_and_supervisor(engine, watchers):
    """After each death the engine starts one watcher under one supervisor."""
    pid = None
    pair = [COMMAND, [*COMMAND, "--supervise"]]
    for _ in range(2):
        pid = wait_until(lambda: another(pid), 30, "a watcher to run")  # noqa: B023
        # A second supervisor, if the engine started one, ends as soon as it finds the lock taken.
        wait_until(lambda: sorted(watchers().values(), key=len) == pair, 30, "one watcher and one supervisor")
        for each in sorted(watchers(), reverse=True, key=lambda p: "--supervise" in watchers()[p]):
            os.kill(each, signal.SIGKILL)
    wait_until(lambda: another(pid), 30, "a watcher to run")


def test_dead_watcher_gets_no_second_supervisor(engine, watchers):
    """The engine finds no watcher while the supervisor is about to start one. Only one supervisor remains."""
    pid = wait_until(running_pid, 30, "a watcher to run")
    for _ in range(3):
        os.kill(pid, signal.SIGKILL)
        pid = wait_until(lambda: another(pid), 30, "another watcher to run")  # noqa: B023
    settled = [COMMAND, [*COMMAND, "--supervise"]]
    wait_until(lambda: sorted(watchers().values(), key=len) == settled, 10, "one watcher and one supervisor")
    assert running_pid() == pid


def test_watcher_is_restarted_after_engine_ended(engine, watchers):
    """While the minion is stopped the supervisor alone restarts it."""
    pid = wait_until(running_pid, 30, "a watcher to run")
    engine.terminate()
    engine.join(10)
    assert running_pid() == pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: another(pid), 30, "another watcher to run")


# --- after an upgrade ----------------------------------------------------------------------------------


@pytest.fixture
def former(node, tmp_path, request):
    """Run a watcher of version *request.param* and its supervisor, whose program file is then deleted."""
    program = shutil.copy(Path(__file__).with_name("former_watcher.py"), tmp_path)
    Host().run_dir.mkdir(exist_ok=True)
    supervisor = subprocess.Popen((sys.executable, program, str(Host().run_dir), request.param, "--supervise"))
    watcher = wait_until(lambda: read_pid_file(Host()), 20, "the former watcher to run")
    Path(program).unlink()
    yield watcher
    for pid in (supervisor.pid, watcher.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    supervisor.wait(10)


@pytest.mark.parametrize("former", ["0.0.9", INSTALLED_VERSION], indirect=True, ids=["older", "same version"])
def test_former_watcher_and_supervisor_are_replaced(former, states, watchers):
    """The former supervisor cannot start the watcher again, since its module is gone. A second run changes nothing."""
    done = states.wgmesh.watcher_running("node")
    assert (done.result, done.comment) == (True, "The watcher was started")
    assert done.changes == {"watcher": {"old": former.version, "new": INSTALLED_VERSION}}
    assert sorted(watchers().values(), key=len) == [COMMAND, [*COMMAND, "--supervise"]]
    assert sorted(service.watcher_pids(Host())) == sorted(watchers())
    again = states.wgmesh.watcher_running("node")
    assert (again.result, again.changes) == (True, {})


@pytest.mark.parametrize("former", ["0.0.9"], indirect=True)
def test_engine_replaces_former_supervisor_of_dead_watcher(former, request, watchers):
    """The engine replaces a supervisor whose watcher died and can never be started again."""
    os.kill(former.pid, signal.SIGKILL)
    request.getfixturevalue("engine")
    wait_until(running_pid, 30, "a watcher to run")
    settled = [COMMAND, [*COMMAND, "--supervise"]]
    wait_until(lambda: sorted(watchers().values(), key=len) == settled, 10, "one watcher and one supervisor")
    assert sorted(service.watcher_pids(Host())) == sorted(watchers())


def dead_first_relay():
    """Report the link to the first relay down and that to the second up, as a watcher does; return the links."""
    states, since = {"n1": ("wg0-u1", LinkState.DOWN), "n2": ("wg0-u2", LinkState.UP)}, float(int(time.time()) - 7)
    links = {n: LinkStatus(neighbour=n, interface=i, state=s, since=since, hold=4.0) for n, (i, s) in states.items()}
    link_report_file.write_report(Host(), LinkReport(mesh="wg0", from_watcher=True, links=MappingProxyType(links)))
    return links


def test_apply_during_a_reroute_changes_nothing(node):
    """The watcher moves a route a moment before it writes its report. An apply in between changes no route."""
    dead_first_relay()
    apply.apply(Host(), leaf())
    report = link_report_file.read_report(Host(), "wg0")
    healed = MappingProxyType({n: dataclasses.replace(k, state=LinkState.UP) for n, k in report.links.items()})
    link_report_file.write_report(Host(), dataclasses.replace(report, links=healed))
    late = threading.Timer(comparison.WATCHER_SETTLE / 2, link_report_file.write_report, (Host(), report))
    late.start()
    changed = apply.apply(Host(), leaf()).lines
    late.join()
    assert changed == []


def test_restart_leaves_right_routes_alone(node, watchers, tmp_path):
    """A new watcher reads the former one's report, so that the dead first relay is not tried again."""
    links = dead_first_relay()
    changed = apply.apply(Host(), leaf()).lines
    assert any("wg0-u2" in line for line in changed)
    monitor = subprocess.Popen(["ip", "monitor", "route"], stdout=subprocess.PIPE, text=True)
    log = Host().run_dir / LOG_FILE
    try:
        service.ensure_running(Host())
        wait_until(lambda: "watching 2 links" in log.read_text(), 20, "the watcher to have started", every=0.02)
        # The first reconciliation follows at once, and the grace of the links ends after more than 3 s.
        time.sleep(1.5)
    finally:
        monitor.terminate()
        seen, _ = monitor.communicate(timeout=10)
    reported = {n: (k.state, k.since, k.hold) for n, k in link_report_file.read_report(Host(), "wg0").links.items()}
    assert reported == {n: (k.state, k.since, k.hold) for n, k in links.items()}
    # The kernel's own, for the addresses that it has just found to be unique, are of other devices.
    assert [line for line in seen.splitlines() if "wg0" in line] == []


def test_watcher_replaces_report_of_beacon(node, watchers):
    """After a leap of the clock the beacon believes the watcher dead and writes a report. The watcher replaces it."""
    service.ensure_running(Host())
    wait_until(lambda: link_report_file.read_report(Host(), "wg0"), 20, "the watcher to report")
    link_report_file.write_report(Host(), LinkReport(mesh="wg0", from_watcher=False))
    wait_until(lambda: link_report_file.read_report(Host(), "wg0").from_watcher, 20, "the watcher to report again")


def test_removed_mesh_leaves_no_route(watchers, outside, monkeypatch):
    """The watcher restores no route while the removal of the files takes long, since no apply would delete it."""
    keys.ensure(Host())
    apply.apply(Host(), relay())
    service.ensure_running(Host())
    wait_until(lambda: link_report_file.watcher_is_alive(Host(), "wg0"), 20, "the watcher to report")
    routes = ("ip", "route", "show", "table", "all", "proto", str(constants.ROUTE_PROTOCOL))
    assert "unreachable" in outside(*routes)
    quick = removal.boot_files.remove_boot_files

    def slowly(*args, **options):
        with contextlib.suppress(AssertionError):
            wait_until(lambda: outside(*routes), 3 * loop.MAINTAIN_EVERY, "a restored route (none is expected)")
        return quick(*args, **options)

    monkeypatch.setattr(removal.boot_files, "remove_boot_files", slowly)
    removal.remove_mesh(Host(), "wg0")
    wait_until(lambda: not link_report_file.report_path(Host(), "wg0").exists(), 20, "the watcher to notice")
    assert outside(*routes) == ""


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_deleted_rule_and_route_are_restored(watchers, outside, family):
    """Long before the next reconciliation, since the kernel tells of both. The master has no part in it."""
    keys.ensure(Host())
    apply.apply(Host(), relay())
    service.ensure_running(Host())
    wait_until(lambda: link_report_file.watcher_is_alive(Host(), "wg0"), 20, "the watcher to report")
    rules = (family, "rule", "show", "priority", str(constants.RULE_PRIORITY))
    network = NETWORKS[0] if family == "-4" else NETWORKS[1]
    routes = (family, "route", "show", "table", str(constants.trunk_table("wg0")), network)
    before = outside("ip", *rules), outside("ip", *routes)
    assert all(before)
    outside("ip", family, "rule", "del", "priority", str(constants.RULE_PRIORITY))
    wait_until(lambda: outside("ip", *rules) == before[0], 3, "the rule to be back")
    outside("ip", family, "route", "del", "unreachable", network, "table", str(constants.trunk_table("wg0")))
    wait_until(lambda: outside("ip", *routes) == before[1], 3, "the route to be back")


@pytest.mark.parametrize("port", [constants.BFD_PORT, constants.SBFD_PORT], ids=["BFD", "S-BFD"])
def test_taken_port_is_opened_when_free(node, watchers, outside, port):
    """The watcher starts without a port that another program holds, and opens it as soon as it is free. Until then its
    report, and so ``status``, names the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", port))
        service.ensure_running(Host())
        pid = wait_until(running_pid, 20, "a watcher to run")
        wait_until(lambda: link_report_file.read_report(Host(), "wg0"), 20, "the watcher to report")
        wait_until(lambda: any(str(port) in fault for fault in reported_faults()), 5, "the report to name the port")
    listening = ("ss", "-Hlun4", f"sport = {port}")
    wait_until(lambda: outside(*listening), 3 * loop.RECONCILE_EVERY, "the watcher to listen")
    wait_until(lambda: not reported_faults(), 5, "the report to name no port")
    assert running_pid() == pid


@pytest.mark.parametrize("lock", [WATCHER_LOCK, SUPERVISOR_LOCK])
def test_lock_is_opened_by_root_alone(node, watchers, lock):
    """A lock that other users can open is theirs to hold while the watcher restarts."""
    service.ensure_running(Host())
    assert intruder.open_file(Host().run_dir / lock) == errno.EACCES


def test_watcher_starts_despite_lock_of_other_user(node, watchers):
    """A former version left a lock file that others could open, and one of them holds it."""
    Host().run_dir.mkdir()
    for lock in (WATCHER_LOCK, SUPERVISOR_LOCK):
        (Host().run_dir / lock).touch(0o644)
    with intruder.holding(*(Host().run_dir / lock for lock in (WATCHER_LOCK, SUPERVISOR_LOCK))):
        assert service.running_version(Host()) is None
        service.ensure_running(Host())
        assert sorted(watchers().values(), key=len) == [COMMAND, [*COMMAND, "--supervise"]]
        assert running_pid()


@pytest.fixture
def departing(node):
    """Remove the node's only mesh."""
    removal.remove_mesh(Host(), "wg0")


class TestDeparted:
    def test_uninstalled_ends_watcher_and_supervisor(self, states, departing, watchers):
        """All processes and files but the key are removed. Test mode lists the processes and ends none."""
        service.ensure_running(Host())
        running = sorted(watchers())
        expected = states.wgmesh.uninstalled("node", test=True)
        assert expected.result is None
        assert sorted(expected.changes["watcher"]["old"]) == running
        assert sorted(watchers()) == running
        done = states.wgmesh.uninstalled("node")
        assert (done.result, done.changes) == (True, expected.changes)
        assert watchers() == {}
        assert not Host().run_dir.exists()
        assert not Host().state_dir.exists()
        again = states.wgmesh.uninstalled("node")
        assert (again.result, again.changes) == (True, {})
        assert Host().key_file.exists()

    def test_uninstalled_deletes_key_on_request(self, states, departing):
        """The key file is deleted with ``key=True``. Test mode reports it and keeps the file."""
        expected = {"key": {"old": "/etc/wireguard/wgmesh.key", "new": None}}
        assert states.wgmesh.uninstalled("node", key=True, test=True).changes == expected
        assert Host().key_file.exists()
        assert states.wgmesh.uninstalled("node", key=True).changes == expected
        assert not Host().key_file.exists()

    def test_uninstalled_fails_on_mesh_member(self, states, node, watchers):
        """The state fails on a mesh member. In test mode it does not, since an earlier state may remove the mesh."""
        service.ensure_running(Host())
        running = watchers()
        assert states.wgmesh.uninstalled("node", test=True).result is None
        refused = states.wgmesh.uninstalled("node", key=True)
        assert (refused.result, refused.changes) == (False, {})
        assert "wg0" in refused.comment
        assert watchers() == running

    def test_engine_starts_no_watcher_without_mesh(self, engine, states, watchers):
        """The engine runs on until the minion is restarted. It starts no watcher on a node without a mesh."""
        wait_until(running_pid, 30, "a watcher to run")
        removal.remove_mesh(Host(), "wg0")
        assert states.wgmesh.uninstalled("node").result is True
        with pytest.raises(AssertionError):
            wait_until(watchers, 3, "a watcher (none is expected)")
        assert not Host().run_dir.exists()
