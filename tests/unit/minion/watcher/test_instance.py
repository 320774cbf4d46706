"""A new program takes the lock of a former one, and of no other process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.watcher import instance
from saltext_wgmesh.minion.watcher.instance import (
    INSTALLED_VERSION,
    SUPERVISE,
    SUPERVISOR_LOCK,
    WATCHER_COMMAND,
    WATCHER_LOCK,
    Tenure,
    former_program,
    pid_file,
    read_pid_file,
    single_instance,
)
from tests.unit.harness.fakehost import FakeHost, Kernel

HOLD = """
import fcntl, sys, time
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""
"""Holds a lock as the first versions did: the file can be opened by other users."""
PRESENT, FORMER = WATCHER_COMMAND[-1], "saltext_wgmesh.minion.watch"


@pytest.fixture
def host(tmp_path):
    """A node with this machine's processes."""
    made = FakeHost.below(tmp_path, Kernel())
    made.run_dir.mkdir()
    return made


@pytest.fixture
def hold(host):
    """Return a function that has another process hold a lock: its words, and the version in its pid file if any."""
    started = []

    def begin(lock, *words, version=None):
        process = subprocess.Popen(
            (sys.executable, "-c", HOLD, str(host.run_dir / lock), *words), stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        if version is not None:
            pid_file(host, lock).write_text(json.dumps({"pid": process.pid, "version": version}))
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("lock", "words", "version"),
    [
        (WATCHER_LOCK, (PRESENT,), "0.0.9"),
        (WATCHER_LOCK, (FORMER,), INSTALLED_VERSION),
        (SUPERVISOR_LOCK, (FORMER, SUPERVISE), None),
        (SUPERVISOR_LOCK, (PRESENT, SUPERVISE), None),
        (SUPERVISOR_LOCK, (PRESENT, SUPERVISE), "0.0.9"),
        (WATCHER_LOCK, (PRESENT,), None),
        (WATCHER_LOCK, (FORMER,), None),
    ],
    ids=[
        "older",
        "other module",
        "other supervisor",
        "supervisor without pid file",
        "older supervisor",
        "watcher without pid file",
        "other module without pid file",
    ],
)
def test_former_program_is_ended_and_succeeded(host, hold, lock, words, version):
    """The lock is taken as soon as it is free, and the pid file names the new process."""
    former = hold(lock, *words, version=version)
    assert former_program(host, lock) == former.pid
    with single_instance(host, lock) as tenure:
        assert tenure is Tenure.SUCCESSOR
        assert former.wait(5) == -15
        known = read_pid_file(host, lock)
        assert (known.pid, known.version) == (os.getpid(), INSTALLED_VERSION)
    assert not files.is_locked(host.run_dir / lock)


@pytest.mark.parametrize(
    ("lock", "words", "version"),
    [
        (WATCHER_LOCK, (PRESENT,), INSTALLED_VERSION),
        (SUPERVISOR_LOCK, (PRESENT, SUPERVISE), INSTALLED_VERSION),
        (WATCHER_LOCK, ("salt-minion",), None),
        (SUPERVISOR_LOCK, ("salt-minion",), None),
    ],
    ids=["installed watcher", "installed supervisor", "a look at the watcher's lock", "a look at the supervisor's"],
)
def test_other_holder_is_left_alone(host, hold, lock, words, version):
    """Also a minion of a former version, which takes the lock for a moment to see whether a watcher runs."""
    holder = hold(lock, *words, version=version)
    if version is None:
        pid_file(host, lock).write_text(json.dumps({"pid": 1, "version": "0.0.9"}))
    with single_instance(host, lock) as tenure:
        assert tenure is Tenure.REFUSED
    assert holder.poll() is None


def test_former_program_that_stays_refuses_the_lock(host, hold, monkeypatch):
    """The kernel may hold it back. The new program ends then, and is started again."""
    monkeypatch.setattr(instance, "END_TIMEOUT", 0.1)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    hold(WATCHER_LOCK, FORMER, version="0.0.9")
    with single_instance(host) as tenure:
        assert tenure is Tenure.REFUSED


def test_stopped_former_program_is_killed(host, hold, monkeypatch):
    """A program that an administrator has stopped takes no SIGTERM, and its links are down."""
    monkeypatch.setattr(instance, "END_TIMEOUT", 2.0)
    former = hold(WATCHER_LOCK, FORMER, version="0.0.9")
    former.send_signal(signal.SIGSTOP)
    with single_instance(host) as tenure:
        assert tenure is Tenure.SUCCESSOR
    assert former.wait(5) == -signal.SIGKILL


def test_free_lock_is_taken_at_once(host):
    """Whatever pid file an earlier program has left."""
    pid_file(host, WATCHER_LOCK).write_text(json.dumps({"pid": 1, "version": "0.0.9"}))
    with single_instance(host) as tenure:
        assert tenure is Tenure.FIRST


def test_lock_of_invisible_process_is_refused(host, hold, tmp_path):
    """Its pid is of another namespace, where it may be another process here."""
    holder = hold(WATCHER_LOCK, FORMER, version="0.0.9")
    blind = replace(host, proc=tmp_path / "empty")
    started = time.monotonic()
    with single_instance(blind) as tenure:
        assert tenure is Tenure.REFUSED
    assert holder.poll() is None
    assert time.monotonic() - started < instance.END_TIMEOUT
