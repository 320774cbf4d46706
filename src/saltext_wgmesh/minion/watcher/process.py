"""The watcher as a process: it finds dead links in a fraction of a second and routes around them.

Run as ``python -I -m saltext_wgmesh.minion.watcher.process``; with ``--supervise`` it is started again whenever it
ends. It imports neither Salt nor the master's side. It reads the views that were applied on this node, and speaks BFD
with each neighbour. The kernel's routes follow the links, and a file reports their states. When it dies the routes stay
as they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher.instance import (
    SUPERVISE,
    SUPERVISOR_LOCK,
    WATCHER_COMMAND,
    WATCHER_LOCK,
    Tenure,
    former_program,
    is_held,
    single_instance,
)
from saltext_wgmesh.minion.watcher.loop import Loop

RESTART_AFTER = 1.0
"""Seconds between the end of a watcher and the start of the next."""
LOG_FILE = "watch.log"
MAX_LOG_SIZE = 1_000_000
"""Bytes from which on a log is put aside."""
CHECK_LOG_EVERY = 5.0
"""Seconds between two looks at the size of the log."""
WATCHER_COMMAND_TIMEOUT = 20.0
"""Seconds for a command of the watcher: the link report is written before it is taken for old, even if one hangs."""
AUTOGROUP = Path("/proc/self/autogroup")
PRIORITY = -15
"""As of nice(1): on a busy node a delay of the watcher's own would look like dead links."""


def supervise(host: Host) -> None:
    """Run a watcher again and again until this process is ended. Its output goes to a file, as there is no journal.

    The file lies in memory, so it is bounded also while the watcher runs.
    """
    path = host.run_dir / LOG_FILE
    while True:
        if _lacks_watcher(host):
            with _opened_log(path) as log_file, contextlib.suppress(OSError):
                watcher = subprocess.Popen(WATCHER_COMMAND, stdout=log_file, stderr=log_file)
                while not _has_ended(watcher):
                    bound_log(path)
        time.sleep(RESTART_AFTER)


def _lacks_watcher(host: Host) -> bool:
    """Whether a watcher started now would run: none of the installed version does, such as one of an ended supervisor.

    A former one runs until the new one is ready.
    """
    return not is_held(host, WATCHER_LOCK) or former_program(host, WATCHER_LOCK) is not None


@contextlib.contextmanager
def _opened_log(path: Path) -> Iterator[int]:
    """Yield the log, to be appended to, or no file while it can't be opened: a watcher without a log runs too."""
    bound_log(path)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        yield subprocess.DEVNULL
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _has_ended(watcher: subprocess.Popen[bytes]) -> bool:
    try:
        watcher.wait(CHECK_LOG_EVERY)
    except subprocess.TimeoutExpired:
        return False
    return True


def bound_log(path: Path) -> None:
    """Move the text of a log that is longer than MAX_LOG_SIZE to a second file, of which that size is kept.

    The file itself stays, since the watcher and what it has started append to it.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size <= MAX_LOG_SIZE:
            return
        try:
            with open(path, "rb") as log_file:
                log_file.seek(-MAX_LOG_SIZE, os.SEEK_END)
                path.with_suffix(".log.1").write_bytes(log_file.read(MAX_LOG_SIZE))
        finally:
            # Also on a full disk: the log is what fills it.
            os.truncate(path, 0)


def main() -> int:
    """Watch, or supervise, unless another process does already; the exit status.

    A former program goes on until this one has imported all modules, and as a watcher has read its views.
    """
    host = Host()
    if SUPERVISE in sys.argv[1:]:
        with single_instance(host, SUPERVISOR_LOCK) as tenure:
            if tenure is not Tenure.REFUSED:
                supervise(host)
        return 0
    # The journal has the time itself (systemd.exec(5), JOURNAL_STREAM).
    time_of_day = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    logging.basicConfig(level=logging.INFO, format=f"{time_of_day}%(message)s", stream=sys.stderr)
    _raise_priority()
    _raise_file_limit()
    loop = Loop(dataclasses.replace(host, command_timeout=WATCHER_COMMAND_TIMEOUT))
    loop.prepare()
    with single_instance(host) as tenure:
        if tenure is Tenure.REFUSED:
            print("another watcher runs on this node", file=sys.stderr)
            return 0
        loop.run(is_successor=tenure is Tenure.SUCCESSOR)
    return 0


def _raise_priority() -> None:
    """Run before other processes, where that is allowed."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        # Where sessions are scheduled against each other, only the session's own value counts (sched(7), autogroup).
        AUTOGROUP.write_text(str(PRIORITY))


def _raise_file_limit() -> None:
    """Allow a socket for each neighbour, where the node allows it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
