"""A machine of its own for one test: network, /etc/wireguard, /var/lib and /run, within this very process.

Salt's loaders work in the process that calls them, so the process itself goes into the namespaces, and out again.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
HIDDEN = ("/etc/wireguard", "/var/lib", "/run")
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def machine() -> Iterator[None]:
    """Inside, the process has a network with one uplink (192.0.2.1/24 on ``eth0``) and empty folders for our files.

    Afterwards it is back where it was, and devices and files are gone.
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
    """Without its device a wireguard-go ends by itself."""
    for link in json.loads(_run("ip", "-json", "link")):
        if link["ifname"] not in ("lo", "far0"):
            subprocess.run(["ip", "link", "del", link["ifname"]], check=False, capture_output=True)


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _call(function: ctypes._NamedFuncPointer, *arguments: int) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
