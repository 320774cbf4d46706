"""The one watcher and the one supervisor of a node: their locks, their pid files, and how a new one replaces a former.

A new program starts, imports and builds all it can while the former one runs. Only then it ends the former one, which
may be of any version: all versions take the same lock, and end at SIGTERM. A new program that cannot start thus ends
nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.version import __version__

WATCHER_COMMAND = (sys.executable, "-I", "-m", "saltext_wgmesh.minion.watcher.process")
"""Isolated: neither the folder in which it is started nor PYTHONPATH decides what is imported."""
SUPERVISE = "--supervise"
"""The argument that makes the same program a supervisor."""
WATCHER_LOCK = "watch.lock"
"""Below ``run_dir``, as are the other files. Watchers of all versions take the same lock, so only one of them runs."""
SUPERVISOR_LOCK = "supervise.lock"
ANY_WATCHER = "saltext_wgmesh.minion.watch"
"""The begin of the module's name in the command lines of watchers of all versions."""
INSTALLED_VERSION = __version__
END_TIMEOUT = 10.0
"""Seconds for a former program to end. It ends within milliseconds, unless the kernel holds it back. After half of the
time it is killed: a program that was stopped (SIGSTOP) ends at no other signal."""
LOCK_POLL = 0.002
"""Seconds between two tries to take the lock of a former program: the node has no watcher in between."""


class Tenure(enum.Enum):
    """How a program came by its lock."""

    REFUSED = enum.auto()
    """Another program of the installed version holds it, or a former one that does not end."""
    FIRST = enum.auto()
    """No program held it."""
    SUCCESSOR = enum.auto()
    """A former program held it until this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProgram:
    """The watcher or supervisor that holds a lock, by its own pid file, which is JSON."""

    pid: int
    version: str
    """The version of the package."""


@contextlib.contextmanager
def single_instance(host: Host, lock: str = WATCHER_LOCK) -> Iterator[Tenure]:
    """Hold *lock* until the end of the block, unless the tenure is refused.

    A former program that holds it is ended. The caller has therefore prepared all that it can. The tenure is refused if
    that program still runs END_TIMEOUT seconds later.
    """
    handle, tenure = _try_lock(host, lock), Tenure.FIRST
    if handle is None and (pid := former_program(host, lock)) is not None:
        handle, tenure = _lock_after(host, lock, pid), Tenure.SUCCESSOR
    if handle is None:
        yield Tenure.REFUSED
        return
    try:
        _write_pid_file(host, lock)
        yield tenure
    finally:
        os.close(handle)


def is_held(host: Host, lock: str) -> bool:
    """Whether a process of this user holds *lock*. One of another user may hold a file that a former version left."""
    handle = _try_lock(host, lock)
    if handle is not None:
        os.close(handle)
    return handle is None


def former_program(host: Host, lock: str) -> int | None:
    """The process that holds *lock* and is a watcher or supervisor of another program or version than the installed.

    None: none does. A process that only tries the lock for a moment, such as a minion of a former version, is neither
    by its command line.
    """
    pid = files.holder(host.run_dir / lock, host.proc)
    if pid is None:
        return None
    words, known = _command_of(host, pid), read_pid_file(host, lock)
    if words is None:
        return None
    if known is not None and known.pid == pid:
        return None if _is_present(words) and known.version == INSTALLED_VERSION else pid
    # Supervisors of former versions write no pid file, and the one of any watcher may be lost, as on a full disk. What
    # cannot be told from a former program is replaced: otherwise it would run until the next boot.
    is_program = SUPERVISE in words or any(word.startswith(ANY_WATCHER) for word in words)
    return pid if is_program else None


def is_other_program(host: Host, lock: str) -> bool:
    """Whether *lock* is held by a process that was started as another module than the present watcher's."""
    pid = files.holder(host.run_dir / lock, host.proc)
    words = None if pid is None else _command_of(host, pid)
    return words is not None and not _is_present(words)


def read_pid_file(host: Host, lock: str = WATCHER_LOCK) -> RunningProgram | None:
    """The pid file that the holder of *lock* wrote when it started; None if there is none that can be read."""
    try:
        raw = json.loads(pid_file(host, lock).read_text())
        return RunningProgram(pid=int(raw["pid"]), version=str(raw["version"]))
    except (OSError, *files.DAMAGE):
        return None


def _try_lock(host: Host, lock: str) -> int | None:
    """Return a handle that holds *lock* until it is closed; None if another process holds it."""
    host.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    return files.try_lock(host.run_dir / lock, host.proc)


def _lock_after(host: Host, lock: str, pid: int) -> int | None:
    """End the former program *pid*, and return a handle of its lock; None if it does not end."""
    start = time.monotonic()
    for number, seconds in ((signal.SIGTERM, END_TIMEOUT / 2), (signal.SIGKILL, END_TIMEOUT)):
        # Not to another process that has its number by now.
        if files.holder(host.run_dir / lock, host.proc) == pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while time.monotonic() - start < seconds:
            handle = _try_lock(host, lock)
            if handle is not None:
                return handle
            time.sleep(LOCK_POLL)
    return None


def _command_of(host: Host, pid: int) -> list[str] | None:
    """The words of the command line of *pid*; None if it has ended. One that is ending has no words."""
    try:
        return (host.proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None


def _is_present(words: list[str]) -> bool:
    return WATCHER_COMMAND[-1] in words


def pid_file(host: Host, lock: str) -> Path:
    """The pid file of the program that holds *lock*: watch.pid or supervise.pid."""
    return (host.run_dir / lock).with_suffix(".pid")


def _write_pid_file(host: Host, lock: str) -> None:
    content = RunningProgram(pid=os.getpid(), version=INSTALLED_VERSION)
    with contextlib.suppress(OSError):
        pid_file(host, lock).write_text(json.dumps(dataclasses.asdict(content)))
