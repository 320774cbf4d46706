"""A lab: an underlay and its Salt, in one folder, under one tag. On exit it ends all processes that it started."""

from __future__ import annotations

import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from . import processes
from .fleet import Fleet
from .machine import REPOSITORY
from .topology import Topology
from .underlay import Underlay

LABS = REPOSITORY / ".lab"
PRIORITY = -15
"""Nice value (nice(1)) of WireGuard's processes, the same as the watcher's: they stand for the kernel's WireGuard.

Otherwise their queues overflow on a busy machine, and a lost packet says nothing about the mesh.
"""


class Lab:
    """``with Lab(topology) as lab:`` builds nothing by itself: call ``lab.underlay.build()`` first.

    On exit every process is ended, also after an exception. The folder is deleted, unless an exception was raised or
    ``keep_folder`` is set: then its logs stay. ``keep = True`` leaves all of it running.
    """

    def __init__(self, topology: Topology, *, tag: str | None = None, **options: Any) -> None:
        self.tag = tag or secrets.token_hex(2)
        self.folder = LABS / self.tag
        self.keep = False
        self.keep_folder = False
        self.underlay = Underlay(topology, self.tag, self.folder)
        self.salt = Fleet(self.underlay, **options)
        self._favouring = ExitStack()

    def __enter__(self) -> Lab:
        if processes.tagged(self.tag):
            raise SystemExit(f"lab {self.tag} is already running: stop it with `python -m tests.lab stop {self.tag}`")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._favouring.enter_context(processes.favouring(self.tag, "wireguard-go", PRIORITY))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._favouring.close()
        if not self.keep:
            wanted = error is None or isinstance(error, KeyboardInterrupt | SystemExit)
            stop(self.tag, remove=wanted and not self.keep_folder)

    @contextmanager
    def rebooted(self, name: str) -> Iterator[None]:
        """Kill every process on the machine, then boot it: wg-quick and the watcher, then the minion."""
        machine = self.underlay[name]
        self.underlay.lose_power(name)
        yield
        for conf in machine.run("sh", "-c", "ls /etc/wireguard/*.conf").split():
            machine.run("wg-quick", "up", conf)
        self.salt.start_watcher(name)
        self.salt.start_minion(name)


def stop(tag: str, *, remove: bool = True) -> None:
    """End all processes of the lab, and with *remove* delete its folder. A second Ctrl-C does not interrupt this."""
    held = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        processes.end_all(tag)
        if remove:
            shutil.rmtree(LABS / tag, ignore_errors=True)
            if LABS.is_dir() and not any(LABS.iterdir()):
                LABS.rmdir()
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
