"""The lab's processes: each has the lab's tag in its environment, is found by it, and ended by its pid."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from .wait import wait_until

TAG = "WGMESH_LAB"
"""Environment variable with the tag of the lab that a process belongs to."""
MACHINE = "WGMESH_LAB_MACHINE"
"""Environment variable with the machine that a process runs on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of a lab, as /proc showed it."""

    pid: int
    machine: str
    command: str


def environment(tag: str, machine: str) -> dict[str, str]:
    """Return the whole environment of a process of the lab. Only the variables named here are inherited."""
    return {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "HOME": os.environ.get("HOME", "/root"),
        "TERM": os.environ.get("TERM", "dumb"),
        "LANG": "C.UTF-8",
        "TMPDIR": "/run/tmp",
        # Salt sets process titles. Without this a title may overwrite the environment in /proc, with the tag.
        "SPT_NOENV": "1",
        # For wireguard-go, whose threads would wake each other for each packet: that costs half as much again.
        "GOMAXPROCS": "1",
        TAG: tag,
        MACHINE: machine,
    }


def tagged(tag: str, without: Set[int] = frozenset()) -> list[Process]:
    """Return the live processes with exactly this tag, by pid, but *without* some, this process and its ancestors."""
    own = ancestors(os.getpid()) | without
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in own:
            process = _read(entry, tag)
            if process is not None:
                found.append(process)
    return sorted(found, key=lambda p: p.pid)


def tags() -> set[str]:
    """Return the tags of all labs that have a live process."""
    marker = f"{TAG}=".encode()
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            values = (v for v in _variables(entry) if v.startswith(marker))
            found.update(v[len(marker) :].decode(errors="replace") for v in values)
    return found


def end_all(tag: str) -> None:
    """Kill processes with this tag until none is left, including those that start during that time."""

    quiet = 0

    def none_left() -> bool:
        # Twice in a row: a child between fork and exec does not carry the tag yet.
        nonlocal quiet
        left = tagged(tag)
        for process in left:
            kill(process.pid, signal.SIGKILL)
        quiet = 0 if left else quiet + 1
        return quiet == 2

    wait_until(none_left, 20, f"the processes of lab {tag} to end", every=0.05)


def kill(pid: int, number: signal.Signals) -> None:
    """Send the signal to the process, unless it has ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def favour(pid: int, nice: int) -> None:
    """Set the priority of all threads of the process, as nice(1) does, unless it has ended already."""
    with contextlib.suppress(OSError):
        # With autogroups the kernel schedules sessions against each other, by this value (sched(7)).
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)


@contextlib.contextmanager
def favouring(tag: str, command: str, nice: int, every: float = 0.5) -> Iterator[None]:
    """Give each process of the lab whose command line begins with *command* that priority, in *every* seconds."""
    over = threading.Event()
    seen: set[int] = set()

    def favour_new() -> None:
        while not over.wait(every):
            new = [process.pid for process in tagged(tag, seen) if process.command.startswith(command)]
            for pid in new:
                favour(pid, nice)
            seen.update(new)

    thread = threading.Thread(target=favour_new, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def children(pid: int) -> list[int]:
    """Return the direct children of a process. Empty if it has ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and parent(int(entry.name)) == pid:
            found.append(int(entry.name))
    return found


def parent(pid: int) -> int:
    """Return the parent of a process; 0 if it has none or has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    # The second field is the name in brackets, which may itself have blanks and brackets (proc(5)).
    return int(stat.rpartition(")")[2].split()[1])


def ancestors(pid: int) -> set[int]:
    """Return a process and all its ancestors."""
    found = set()
    while pid:
        found.add(pid)
        pid = parent(pid)
    return found


def _read(entry: Path, tag: str) -> Process | None:
    variables = _variables(entry)
    if f"{TAG}={tag}".encode() not in variables:
        return None
    marker = f"{MACHINE}=".encode()
    machine = next((v[len(marker) :].decode() for v in variables if v.startswith(marker)), "")
    try:
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return Process(pid=int(entry.name), machine=machine, command=command)


def _variables(entry: Path) -> list[bytes]:
    try:
        return (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
