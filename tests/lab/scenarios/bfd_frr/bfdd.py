"""FRR's BFD daemon on a machine of the lab."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

from ...machine import Machine, signal_child
from ...wait import wait_until

FOLDER = "/usr/lib/frr"
SOCKETS = "/run/frr"


class Bfdd:
    """A bfdd with one single-hop peer on one interface, and the zebra that it learns of interfaces from."""

    def __init__(self, machine: Machine, *, local: str, peer: str, device: str) -> None:
        self.machine = machine
        self._peer = f"peer {peer} local-address {local} interface {device}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start bfdd, which then tries to set up its session."""
        if self._process is None:
            self.machine.run("install", "-d", "-o", "frr", "-g", "frr", SOCKETS)
            self._spawn("zebra")
        self._process = self._spawn("bfdd")

    def kill(self) -> None:
        """Kill bfdd, which sends no packet to its neighbour about it."""
        assert self._process is not None
        signal_child(self._process, signal.SIGKILL)
        self._process.wait(10)
        self.machine.run("rm", f"{SOCKETS}/bfdd.vty")

    def configure(self, *lines: str) -> None:
        """Add *lines* to the peer's configuration, such as ``transmit-interval 200`` (milliseconds)."""
        self.machine.run(*self._words("configure", "bfd", self._peer, *lines))

    def show(self) -> dict[str, Any]:
        """Return the session as in ``show bfd peers json``."""
        return self._first("show bfd peers json")

    def counters(self) -> dict[str, int]:
        """Return the counters of the session since it was configured."""
        return self._first("show bfd peers counters json")

    def _first(self, command: str) -> Any:
        (peer,) = self.machine.json(*self._words(command))
        return peer

    @staticmethod
    def _words(*commands: str) -> list[str]:
        return ["vtysh", *(word for command in commands for word in ("-c", command))]

    def _spawn(self, daemon: str) -> subprocess.Popen[str]:
        # No TCP port and no configuration file: vtysh configures it.
        options = ("-P", "0", "-f", "/dev/null", "--log", "stdout")
        process = self.machine.spawn(f"{FOLDER}/{daemon}", *options, log=f"{daemon}.log")
        question = ("vtysh", "-d", daemon, "-c", "show version")
        wait_until(lambda: self.machine.run(*question, check=False), 10, f"{daemon} to answer")
        return process
