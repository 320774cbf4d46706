"""Other machines for one test, each a process in namespaces of its own, on one network with the test's machine."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from tests.functional import namespace

_LIBC = ctypes.CDLL(None, use_errno=True)


class Far:
    """A machine on which functions of importable modules can be called."""

    def __init__(self, address: str, device: str) -> None:
        fork = multiprocessing.get_context("fork")
        self._pipe, theirs = fork.Pipe()
        self._process = fork.Process(target=_serve, args=(theirs, self._pipe))
        self._process.start()
        self._pipe.recv()
        run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", str(self._process.pid))
        run("ip", "link", "set", device, "master", "net0", "up")
        self.call(run, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.call(run, "ip", "link", "set", "eth0", "up")

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call *function* on the machine. Return its value, or raise its exception here."""
        self._pipe.send((function, args))
        done, value = self._pipe.recv()
        if not done:
            raise value
        return value

    def end(self) -> None:
        """Remove the machine and end all of its processes."""
        self.call(namespace.end, namespace.watchers)
        for name in self.call(os.listdir, "/sys/class/net"):
            if name.startswith("wg"):
                self.call(run, "ip", "link", "del", name)
        # An explicit message, since machines that were made later hold this pipe open too.
        self._pipe.send(None)
        self._pipe.close()
        self._process.join(10)


@contextmanager
def machines(**addresses: str) -> Iterator[dict[str, Far]]:
    """Yield machines by name, each at its address in 192.0.2.0/24. The test's own machine is 192.0.2.1."""
    run("ip", "link", "add", "net0", "type", "bridge")
    run("ip", "link", "set", "far0", "master", "net0")
    run("ip", "link", "set", "net0", "up")
    made: dict[str, Far] = {}
    try:
        for name, address in addresses.items():
            made[name] = Far(address, f"to-{name}")
        yield made
    finally:
        for far in made.values():
            far.end()


def run(*argv: str) -> str:
    """Run a command and return its output. Raise CalledProcessError if it fails."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _serve(pipe: Connection, theirs: Connection) -> None:
    theirs.close()
    flags = namespace.CLONE_FS | namespace.CLONE_NEWNS | namespace.CLONE_NEWNET
    if _LIBC.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    run("mount", "--make-rprivate", "/")
    for folder in namespace.HIDDEN:
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    run("ip", "link", "set", "lo", "up")
    pipe.send(None)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            request = None
        if request is None:
            os._exit(0)
        function, args = request
        try:
            pipe.send((True, function(*args)))
        except Exception as error:
            pipe.send((False, error))
