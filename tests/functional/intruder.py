"""A user without rights on one machine of a test, who sends and receives BFD packets there."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness import bfd
from tests.lab.scenarios.bfd_frr import speaker

NOBODY = 65534
DOWN = bfd.Packet(
    state=bfd.BfdState.DOWN,
    multiplier=3,
    my_discriminator=666,
    your_discriminator=0,
    desired_min_tx=1_000_000,
    required_min_rx=1_000_000,
)


def as_nobody(act: Callable[[], int]) -> int:
    """Run *act* in a process of an unprivileged user, and return its result, a byte."""
    pid = os.fork()
    if pid == 0:
        result = 255
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            result = act()
        finally:
            os._exit(result)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def send_down(own: str, to: str, seconds: float) -> int:
    """Send Down from the node's own address *own* to *to*, 20 times a second; 0 if all packets were sent."""

    def act() -> int:
        end = time.monotonic() + seconds
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, constants.BFD_TTL)
            opened.bind((own, 0))
            while time.monotonic() < end:
                opened.sendto(DOWN.encode(), (to, constants.BFD_PORT))
                time.sleep(0.05)
        return 0

    return as_nobody(act)


def take_port(device: str, address: str, option: int) -> int:
    """Bind the BFD port on *device* and *address* with the socket option *option*; return the error number or 0."""

    def act() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.setsockopt(socket.SOL_SOCKET, option, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            try:
                opened.bind((address, constants.BFD_PORT))
            except OSError as error:
                return error.errno or errno.EIO
            return 0

    return as_nobody(act)


def open_file(path: Path) -> int:
    """Open *path* for reading; return the error number or 0."""

    def act() -> int:
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    return as_nobody(act)


@contextmanager
def holding(*locks: Path) -> Iterator[None]:
    """Hold the lock files *locks* within the block."""
    reader, writer = os.pipe()
    done, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for lock in locks:
            fcntl.flock(os.open(lock, os.O_RDONLY), fcntl.LOCK_EX)
        os.write(writer, b"!")
        os.close(end)
        os.read(done, 1)
        os._exit(0)
    os.read(reader, 1)
    try:
        yield
    finally:
        for handle in (reader, writer, done, end):
            os.close(handle)
        os.waitpid(pid, 0)


FLOOD_RATE = 20_000
"""Packets a second: ten times as many as a watcher reads of one neighbour, and no more than WireGuard in userspace
passes on without loss. Beyond that WireGuard itself drops the packets of all neighbours."""
FLOOD_BATCH = 100


def flood(to: str, seconds: float, data: bytes = b"?" * 24, port: int = constants.BFD_PORT) -> int:
    """Send *data* to *port* of *to* at FLOOD_RATE, by two processes; return the number of packets."""

    def act(pipe: int) -> None:
        sent, began = 0, time.monotonic()
        end = began + seconds
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, constants.BFD_TTL)
            opened.connect((to, port))
            while time.monotonic() < end:
                for _ in range(FLOOD_BATCH):
                    with suppress(OSError):
                        sent += opened.send(data) > 0
                time.sleep(max(0.0, began + sent * 2 / FLOOD_RATE - time.monotonic()))
        os.write(pipe, sent.to_bytes(8, "big"))

    reader, writer = os.pipe()
    children = []
    for _ in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                act(writer)
            finally:
                os._exit(0)
    total = sum(int.from_bytes(os.read(reader, 8), "big") for _ in children)
    for pid in children:
        os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    return total


def flap(own: str, to: str, seconds: float) -> None:
    """Bring a session up and down in turn, 180 packets in a burst, twice a second, as fast as they can be sent."""
    states = (bfd.BfdState.DOWN, bfd.BfdState.INIT, bfd.BfdState.UP, bfd.BfdState.ADMIN_DOWN)
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, constants.BFD_TTL)
        opened.bind((own, 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
            heard.bind((own, constants.BFD_PORT))
            heard.setblocking(False)
            theirs = 0
            while time.monotonic() < end:
                for number in range(180):
                    with suppress(BlockingIOError):
                        theirs = bfd.decode(heard.recv(100)).my_discriminator
                    packet = replace(DOWN, state=states[number % 4], your_discriminator=theirs, required_min_rx=10_000)
                    if theirs or packet.state in (bfd.BfdState.DOWN, bfd.BfdState.ADMIN_DOWN):
                        opened.sendto(packet.encode(), (to, constants.BFD_PORT))
                time.sleep(0.5)


_speakers: list[subprocess.Popen[bytes]] = []


def speak(own: str, neighbour: str, device: str) -> None:
    """Start a neighbour that knows no authentication, as a former version of the watcher or FRR's bfdd."""
    argv = (sys.executable, str(speaker.__file__), own, neighbour, device)
    _speakers.append(subprocess.Popen(argv, stdin=subprocess.PIPE))


def end_speakers() -> None:
    """End the neighbours that ``speak`` started."""
    while _speakers:
        process = _speakers.pop()
        process.kill()
        process.wait(10)
