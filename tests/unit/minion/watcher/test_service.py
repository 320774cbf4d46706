"""Whether the watcher that runs is the installed one. Its start and end are tested with real processes elsewhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from saltext_wgmesh.minion.watcher import service
from saltext_wgmesh.minion.watcher.instance import (
    INSTALLED_VERSION,
    SUPERVISOR_LOCK,
    WATCHER_COMMAND,
    WATCHER_LOCK,
    pid_file,
    single_instance,
)
from tests.unit.harness.fakehost import FakeHost, Kernel

FORMER_COMMAND = (*WATCHER_COMMAND[:3], "saltext_wgmesh.minion.watch")
WATCHER_PID, SUPERVISOR_PID = 4711, 4712


@pytest.fixture
def host(tmp_path):
    """A node on which this process holds both locks, in place of a watcher and its supervisor."""
    made = replace(FakeHost.below(tmp_path, Kernel()), proc=tmp_path / "proc")
    with single_instance(made), single_instance(made, SUPERVISOR_LOCK):
        yield made


def run_as(host, watcher, supervisor, version=INSTALLED_VERSION):
    """The locks are held by processes with these command lines; the watcher says that it is of *version*."""
    for pid, lock, command in ((WATCHER_PID, WATCHER_LOCK, watcher), (SUPERVISOR_PID, SUPERVISOR_LOCK, supervisor)):
        process = host.proc / str(pid)
        (process / "fd").mkdir(parents=True)
        (process / "fdinfo").mkdir()
        (process / "cmdline").write_text("".join(f"{word}\0" for word in command))
        (process / "fd" / "3").symlink_to(host.run_dir / lock)
        # The device is another than stat(2) gives, as on btrfs.
        (process / "fdinfo" / "3").write_text(f"pos:\t0\nlock:\t1: FLOCK  ADVISORY  WRITE {pid} 00:fff:1 0 EOF\n")
    pid_file(host, WATCHER_LOCK).write_text(json.dumps({"pid": WATCHER_PID, "version": version}))


def test_installed_watcher_and_supervisor_are_current(host):
    """So nothing is started again."""
    run_as(host, WATCHER_COMMAND, (*WATCHER_COMMAND, "--supervise"))
    assert service.is_current(host)


@pytest.mark.parametrize(
    ("watcher", "supervisor", "version"),
    [
        (FORMER_COMMAND, (*FORMER_COMMAND, "--supervise"), INSTALLED_VERSION),
        (WATCHER_COMMAND, (*FORMER_COMMAND, "--supervise"), INSTALLED_VERSION),
        (FORMER_COMMAND, (*WATCHER_COMMAND, "--supervise"), INSTALLED_VERSION),
        (WATCHER_COMMAND, (*WATCHER_COMMAND, "--supervise"), "0.0.9"),
    ],
    ids=["both former", "supervisor former", "watcher former", "other version"],
)
def test_former_program_or_version_is_not_current(host, watcher, supervisor, version):
    """A supervisor that was started by a former module name cannot start the watcher again."""
    run_as(host, watcher, supervisor, version)
    assert not service.is_current(host)


def test_pids_of_former_programs_are_found(host):
    """By the locks, which all versions take."""
    run_as(host, FORMER_COMMAND, (*FORMER_COMMAND, "--supervise"))
    assert service.watcher_pids(host) == [SUPERVISOR_PID, WATCHER_PID]


def test_hidden_processes_count_as_current(host):
    """Where /proc tells nothing of them, as in a container, only the version counts."""
    run_as(host, FORMER_COMMAND, FORMER_COMMAND)
    shutil.rmtree(host.proc)
    assert service.is_current(host)


@pytest.mark.parametrize("text", ["", "{", "[1]"], ids=["empty", "cut off", "no record"])
def test_unreadable_pid_file_is_an_unknown_version(host, text):
    """A watcher runs, so its lock is held."""
    pid_file(host, WATCHER_LOCK).write_text(text)
    assert service.running_version(host) == "unknown"


def test_free_lock_means_no_watcher_runs(tmp_path):
    """Whatever an earlier watcher has left."""
    host = FakeHost.below(tmp_path, Kernel())
    host.run_dir.mkdir()
    pid_file(host, WATCHER_LOCK).write_text(json.dumps({"pid": 1, "version": "0.0.9"}))
    assert service.running_version(host) is None
    assert not service.is_current(host)
