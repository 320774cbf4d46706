"""The watcher as a service: whether it runs, how it is started and stopped, and its unit for systemd."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher.instance import (
    INSTALLED_VERSION,
    SUPERVISE,
    SUPERVISOR_LOCK,
    WATCHER_COMMAND,
    WATCHER_LOCK,
    is_held,
    is_other_program,
    read_pid_file,
)
from saltext_wgmesh.minion.watcher.process import PRIORITY

START_TIMEOUT = 30.0
"""Seconds for a watcher to start, or to stop. A small or busy node takes 10 s for the two Python processes."""


def unit() -> str:
    """The unit ``wgmesh-watch.service`` (systemd.service(5)). It names the version, so an upgrade restarts it.

    It is restarted without limit: by default systemd gives up after five starts in ten seconds. ``KillMode=process``
    leaves a recovery of an apply running when the watcher is stopped. Home folders are read-only and not hidden, since
    Python may be installed in one. A restart by systemd ends the former watcher before it starts the new one, so the
    node has none while Python starts.
    """
    return f"""\
[Unit]
Description=Watcher of the WireGuard meshes (saltext-wgmesh {INSTALLED_VERSION})
After=network.target
StartLimitIntervalSec=0

[Service]
ExecStart={" ".join(WATCHER_COMMAND)}
Restart=always
RestartSec=1
KillMode=process
OOMScoreAdjust=-500
Nice={PRIORITY}
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_DAC_OVERRIDE CAP_SYS_NICE
ProtectHome=read-only
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def running_version(host: Host) -> str | None:
    """The package version of the watcher that runs on this node; None if none does."""
    if not is_held(host, WATCHER_LOCK):
        return None
    watcher = read_pid_file(host)
    return watcher.version if watcher else "unknown"


def is_current(host: Host) -> bool:
    """Whether a watcher of the installed version runs, and its supervisor, if there is one, starts the same program."""
    # The programs first: a former one that ends in between is then no watcher of the installed version.
    is_former = any(is_other_program(host, lock) for lock in (WATCHER_LOCK, SUPERVISOR_LOCK))
    return not is_former and running_version(host) == INSTALLED_VERSION


def ensure_running(host: Host) -> None:
    """Have a watcher of the installed version run, with a supervisor that restarts it. Both outlive the caller.

    Former ones run until the new ones are ready, and are ended by them. HostError if the new watcher does not run
    within START_TIMEOUT seconds: then a former one runs on.
    """
    deadline = time.monotonic() + START_TIMEOUT
    # If there is a supervisor already, this one ends at once and the other starts the new watcher.
    start_supervisor()
    while not is_current(host):
        if time.monotonic() > deadline:
            command = " ".join(WATCHER_COMMAND)
            text = f"the installed watcher does not run {START_TIMEOUT:g} s after its start: run {command} to see why"
            raise HostError(text)
        time.sleep(0.1)


def stop(host: Host) -> None:
    """End the supervisor and the watcher, and delete what they wrote. HostError if one runs on for START_TIMEOUT."""
    deadline = time.monotonic() + START_TIMEOUT
    # The supervisor first, or it would start another watcher.
    for lock in (SUPERVISOR_LOCK, WATCHER_LOCK):
        _end_holder(host, lock, deadline)
    shutil.rmtree(host.run_dir, ignore_errors=True)


def watcher_pids(host: Host) -> list[int]:
    """The processes of the supervisor and of the watcher, of whatever version."""
    return [pid for lock in (SUPERVISOR_LOCK, WATCHER_LOCK) if (pid := _holder(host, lock))]


def start_supervisor() -> None:
    """Start a supervisor in a session of its own, without any of our files or folders."""
    subprocess.Popen(
        (*WATCHER_COMMAND, SUPERVISE),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def _holder(host: Host, lock: str) -> int | None:
    """The process that holds *lock*; None if none does.

    The lock and not the command line identifies a watcher: all versions take the same lock.
    """
    return files.holder(host.run_dir / lock, host.proc)


def _end_holder(host: Host, lock: str, deadline: float) -> None:
    """End the process that holds *lock*; HostError if it still runs at *deadline* of the monotonic clock."""
    ended = 0
    # A process that is ending holds its lock still, and no longer shows its files.
    while (pid := _holder(host, lock)) or (ended and files.is_locked(host.run_dir / lock)):
        ended = pid or ended
        if time.monotonic() > deadline:
            raise HostError(f"process {ended} still runs {START_TIMEOUT:g} s after SIGTERM: see what it does")
        with contextlib.suppress(ProcessLookupError):
            os.kill(ended, signal.SIGTERM)
        time.sleep(0.1)
