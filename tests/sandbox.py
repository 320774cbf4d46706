"""Moves this process into namespaces of its own, so that tests make devices and files that end with it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
_SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
for tree in /etc /var/lib; do
    own=/run/.private$tree
    mkdir -p "$own/upper" "$own/work"
    mount -t overlay -o lowerdir=$tree,upperdir=$own/upper,workdir=$own/work overlay $tree
done
rm -rf /etc/wireguard /var/lib/wgmesh
mkdir -m 700 -p /etc/wireguard
mount -t sysfs sysfs /sys
ip link set lo up
"""
_entered = False


def enter() -> None:
    """This process, and all that it starts, has a network of its own with nothing but loopback, and what it
    writes below /etc, /var/lib and /run is seen by nobody else. Doing it twice is doing it once."""
    global _entered
    if _entered:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))
    subprocess.run(["sh", "-c", _SCRIPT], check=True)
    _entered = True


def end_watcher() -> None:
    """No watcher runs in these namespaces, and nothing starts one again."""
    told = Path("/run/wgmesh/watch.pid")
    if told.exists():
        watcher = json.loads(told.read_text())["pid"]
        status = Path(f"/proc/{watcher}/status")
        # Its parent is its supervisor: that one first.
        supervisor = int(status.read_text().partition("PPid:")[2].split()[0]) if status.exists() else 0
        for pid in (supervisor, watcher):
            if pid > 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
