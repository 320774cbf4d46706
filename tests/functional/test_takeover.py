"""A former watcher is replaced under traffic: it runs until the new one is ready, and no neighbour notices.

n5 is a leaf of the relays n1 and n2, which have a trunk between them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import service
from saltext_wgmesh.minion.watcher.instance import SUPERVISOR_LOCK, WATCHER_COMMAND, WATCHER_LOCK, read_pid_file
from tests.functional import far
from tests.functional.test_turns import N1, N2, all_up, key_of, pinged, relays, take, with_keys
from tests.functional.test_watcher_sockets import downs
from tests.lab.wait import wait_until
from tests.nodeviews import leaf

FORMER = """
import sys
from saltext_wgmesh.minion.watcher import instance, process
instance.INSTALLED_VERSION = "0.0.9"
process.WATCHER_COMMAND = (sys.executable, "-c", sys.argv[1], sys.argv[1])
sys.exit(process.main())
"""
"""The present program under another command line, which says that it is of an earlier version."""
PORT = constants.BFD_PORT.to_bytes(2, "big")
SO_TIMESTAMPNS = 35
"""Of <asm-generic/socket.h>: each packet comes with the kernel's time."""
DETECTION_TIME = 0.3
"""Seconds after which a neighbour that hears nothing takes the link for down, with the default interval."""
PACKETS = 10
"""Packets that are heard before and after: three missing ones would end a session."""
EVERYONE = [WATCHER_COMMAND, (*WATCHER_COMMAND, "--supervise")]


def start_former():
    """Start a supervisor of an earlier version, and with it its watcher."""
    subprocess.Popen((sys.executable, "-c", FORMER, FORMER, "--supervise"), start_new_session=True, cwd="/")


def join(view):
    """Apply the first view, and start a former watcher."""
    take(view)
    start_former()


def end_former():
    """Kill a supervisor and a watcher of an earlier version, if a test has left them."""
    for lock in (SUPERVISOR_LOCK, WATCHER_LOCK):
        while pid := files.holder(Host().run_dir / lock, Host().proc):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


@pytest.fixture
def mesh(watchers):
    """Yield the machines of the relays. All nodes run former watchers, and every link is up."""
    with far.machines(n1="192.0.2.10", n2="192.0.2.20") as machines:
        known = {name: machine.call(key_of) for name, machine in machines.items()} | {"n5": key_of()}
        first, second = relays(known)
        try:
            machines["n1"].call(join, first)
            machines["n2"].call(join, second)
            join(with_keys(leaf(), known))
            wait_until(lambda: all_up(machines), 90, "all links to be up")
            yield machines
        finally:
            end_former()
            for machine in machines.values():
                machine.call(end_former)


def replace_watcher():
    """Have a watcher of the installed version run, as ``watcher_running`` does."""
    service.ensure_running(Host())


def running():
    """Return version and pid of the watcher."""
    found = read_pid_file(Host())
    return found.version, found.pid


class Pauses(threading.Thread):
    """Hears the BFD packets on the uplinks of the leaf; *times* are by device and direction."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.times: dict[tuple[str, bool], list[float]] = {}
        self._until = float("inf")
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._socket.settimeout(0.1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def run(self) -> None:
        while time.monotonic() < self._until:
            with contextlib.suppress(TimeoutError):
                data, [(_, _, stamp)], _, (device, _, kind, *_) = self._socket.recvmsg(256, 64)
                if device.startswith("wg0-u") and data[9:10] == b"\x11" and data[22:24] == PORT:
                    # The kernel's time, since this process may be delayed.
                    seconds, nanoseconds = struct.unpack("=qq", stamp)
                    sent = kind == socket.PACKET_OUTGOING
                    self.times.setdefault((device, sent), []).append(seconds + nanoseconds / 1e9)
        self._socket.close()

    def end(self) -> None:
        """Hear no further packets."""
        self._until = 0.0
        self.join()

    def await_more(self, packets: int) -> None:
        """Hear so many packets more of each device in each direction."""
        before = {key: len(times) for key, times in self.times.items()}
        wait_until(lambda: self._are_more(before, packets), 20, f"{packets} packets in each direction", every=0.05)

    def _are_more(self, before: dict[tuple[str, bool], int], packets: int) -> bool:
        now = dict(self.times)
        return len(now) == 4 and all(len(times) - before.get(key, 0) >= packets for key, times in now.items())

    def longest(self, *, outgoing: bool) -> float:
        """Return the seconds of the longest pause between two packets on one device."""
        heard = [times for (_, is_sent), times in self.times.items() if is_sent is outgoing]
        assert len(heard) == 2
        return max(after - before for times in heard for before, after in itertools.pairwise(times))


@contextmanager
def heard() -> Iterator[Pauses]:
    """Hear BFD packets before the block and after it."""
    pauses = Pauses()
    pauses.start()
    try:
        pauses.await_more(PACKETS)
        yield pauses
        pauses.await_more(PACKETS)
    finally:
        pauses.end()


def test_replaced_watcher_of_leaf_is_not_missed(mesh, watchers):
    """No datagram is lost, no link goes down at either end, and BFD packets pause for less than a detection time."""
    before = running()
    with pinged(N1) as lost, pinged(N2) as also_lost, heard() as pauses:
        replace_watcher()
    assert running()[0] != before[0]
    assert (lost, also_lost) == ([0], [0])
    assert (downs(), [machine.call(downs) for machine in mesh.values()]) == ([], [[], []])
    assert pauses.longest(outgoing=True) < DETECTION_TIME
    wait_until(lambda: sorted(map(tuple, watchers().values()), key=len) == EVERYONE, 5, "one of each")


def test_replaced_watcher_of_relay_is_not_missed(mesh):
    """The same at the other end."""
    with pinged(N1) as lost, heard() as pauses:
        mesh["n1"].call(replace_watcher)
    assert lost == [0]
    assert (downs(), [machine.call(downs) for machine in mesh.values()]) == ([], [[], []])
    assert pauses.longest(outgoing=False) < DETECTION_TIME


def test_watchers_replaced_at_once_lose_nothing(mesh):
    """All three nodes are upgraded at the same moment."""
    with pinged(N1) as lost, pinged(N2) as also_lost, heard(), ThreadPoolExecutor(3) as pool:
        done = [pool.submit(machine.call, replace_watcher) for machine in mesh.values()]
        replace_watcher()
        for each in done:
            each.result()
    assert (lost, also_lost) == ([0], [0])
    assert (downs(), [machine.call(downs) for machine in mesh.values()]) == ([], [[], []])
    assert all_up(mesh)


def test_former_watcher_outlives_broken_installation(mesh, monkeypatch):
    """The installed program cannot be imported: the former watcher and its supervisor run on."""
    before, supervisor = running(), files.holder(Host().run_dir / SUPERVISOR_LOCK, Host().proc)
    monkeypatch.setattr(service, "WATCHER_COMMAND", (sys.executable, "-I", "-c", "import nothing_of_this_name"))
    monkeypatch.setattr(service, "START_TIMEOUT", 3.0)
    with pinged(N1) as lost, pytest.raises(HostError, match="the installed watcher does not run"):
        replace_watcher()
    assert lost == [0]
    assert running() == before
    assert files.holder(Host().run_dir / SUPERVISOR_LOCK, Host().proc) == supervisor
    assert downs() == []
