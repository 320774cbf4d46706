"""Having the watcher run: whether it does, how it is started, and its unit for systemd."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import time
from typing import Any

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion import files, watch
from saltext_wgmesh.minion.host import Host

VERSION = importlib.metadata.version("saltext-wgmesh")
COMMAND = watch.COMMAND
START_TIMEOUT = 10.0
"""Seconds."""


def unit() -> str:
    """The unit ``wgmesh-watch.service`` (systemd.service(5)). It names the version, so an upgrade restarts it.

    However often it dies, it is started again: by default systemd would give up after five times in ten seconds. Who
    judges an apply that died goes on when it ends.
    Homes are read-only and not hidden, since Python may lie in one.
    """
    return f"""\
[Unit]
Description=Watcher of the WireGuard meshes (saltext-wgmesh {VERSION})
After=network.target
StartLimitIntervalSec=0

[Service]
ExecStart={" ".join(COMMAND)}
Restart=always
RestartSec=1
KillMode=process
OOMScoreAdjust=-500
Nice={watch.PRIORITY}
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_DAC_OVERRIDE CAP_SYS_NICE
ProtectHome=read-only
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def running(host: Host) -> str | None:
    """The version of the watcher that runs on this node; None if none does."""
    with watch.alone(host) as free:
        if free:
            return None
    told = _told(host)
    return str(told["version"]) if told else "unknown"


def start(host: Host) -> None:
    """A watcher of this version runs, with a process that starts it again when it dies. Both outlive the caller.

    HostError if none runs within START_TIMEOUT seconds.
    """
    told = _told(host)
    if running(host) not in (None, VERSION) and told:
        # Whoever supervises it starts the new one.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(told["pid"]), signal.SIGTERM)
    else:
        supervise()
    deadline = time.monotonic() + START_TIMEOUT
    while running(host) != VERSION:
        if time.monotonic() > deadline:
            raise HostError(f"no watcher runs {START_TIMEOUT:g} s after its start: run {' '.join(COMMAND)} to see why")
        time.sleep(0.1)


def stop(host: Host) -> None:
    """No watcher runs, nobody starts it again, and what it wrote is gone. HostError if it goes on for START_TIMEOUT."""
    deadline = time.monotonic() + START_TIMEOUT
    for lock in (watch.SUPERVISOR_LOCK, watch.LOCK):
        while pid := _holder(host, lock):
            if time.monotonic() > deadline:
                raise HostError(f"process {pid} runs on {START_TIMEOUT:g} s after it was told to end: see what it does")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
    shutil.rmtree(host.run_dir, ignore_errors=True)


def holders(host: Host) -> list[int]:
    """The processes that watch, or see to it that one does."""
    return [pid for lock in (watch.SUPERVISOR_LOCK, watch.LOCK) if (pid := _holder(host, lock))]


def _holder(host: Host, lock: str) -> int | None:
    """The process that holds *lock*; None if none does."""
    return files.holder(host.run_dir / lock, host.proc_locks)


def supervise() -> None:
    """A supervisor begins in a session of its own, with nothing of ours in its hands."""
    subprocess.Popen(
        (*COMMAND, "--supervise"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def _told(host: Host) -> dict[str, Any] | None:
    text = files.read(host.run_dir / watch.PID)
    try:
        return dict(json.loads(text)) if text else None
    except ValueError:
        return None
