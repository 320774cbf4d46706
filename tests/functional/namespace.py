"""A machine of its own for one test: network, /etc/wireguard, /var/lib and /run, within this very process.

Salt's loaders work in the process that calls them, so the process itself goes into the namespaces, and out again.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saltext_wgmesh.minion.watcher.instance import WATCHER_COMMAND
from tests.lab.wait import wait_until

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
HIDDEN = ("/etc/wireguard", "/var/lib", "/run")
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def machine() -> Iterator[None]:
    """Give the process a network with one uplink (192.0.2.1/24 on ``eth0``) and empty folders for the package's files.

    At the end the process returns to its namespaces, and devices and files are deleted.
    """
    here = os.getcwd()
    outside = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")]
    _call(_LIBC.unshare, CLONE_FS | CLONE_NEWNS | CLONE_NEWNET)
    try:
        _furnish()
        yield
        _remove_devices()
    finally:
        for handle in outside:
            _call(_LIBC.setns, handle, 0)
            os.close(handle)
        os.chdir(here)


def watchers() -> dict[int, list[str]]:
    """Return the watchers and supervisors in this process's network: pid → command line."""
    here = os.readlink("/proc/self/ns/net")
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "ns/net") == here:
                words = (entry / "cmdline").read_text().split("\0")[:-1]
                if WATCHER_COMMAND[-1] in words:
                    found[int(entry.name)] = words
    return found


def end(processes: Callable[[], Iterable[int]]) -> None:
    """Kill *processes* until none is left, including those that one of them starts."""

    def none_left() -> bool:
        left = list(processes())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_left, 10, "the watchers to end")


def _furnish() -> None:
    _run("mount", "--make-rprivate", "/")
    for folder in HIDDEN:
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
    for device in ("eth0", "far0"):
        _run("ip", "link", "set", device, "up")
    _run("ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
    _run("ip", "route", "add", "default", "via", "192.0.2.254", "dev", "eth0")


def _remove_devices() -> None:
    """Delete all devices. A wireguard-go process ends by itself without its device."""
    for link in json.loads(_run("ip", "-json", "link")):
        if link["ifname"] not in ("lo", "far0"):
            subprocess.run(["ip", "link", "del", link["ifname"]], check=False, capture_output=True)


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _call(function: ctypes._NamedFuncPointer, *arguments: int) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
