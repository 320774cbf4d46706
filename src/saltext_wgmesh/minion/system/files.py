"""Atomic, durable files, and a lock that ends with its holder."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saltext_wgmesh.core.errors import HostError, naming

_SUFFIX = ".partial"
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""Errors of parsing a file that holds anything else than was written, such as what a crash left of it."""
FILE_LOCK_TIMEOUT = 60
"""Seconds to wait for another apply on this node."""


def write_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write *text* to *path* with *mode*, durably. At no moment is the file half written, or readable by more users.

    A process that is killed while writing leaves a partial file beside *path*. It has the same name each time, so the
    next write or removal of *path* deletes it. It is also locked, so that of two writers one waits.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = _partial(path)
    with naming(path), os.fdopen(_open_locked(partial, 0o600), "w") as stream:
        try:
            # A partial file of an earlier write may be readable by more users than *mode* allows. Until the file is
            # whole no other user can open it: the lock would be theirs to take.
            os.fchmod(stream.fileno(), 0o600)
            # Only now, under the lock: O_TRUNC would have emptied the file of another writer.
            os.ftruncate(stream.fileno(), 0)
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def remove_file(path: Path) -> None:
    """Delete *path*, durably, and the partial file that an interrupted write left beside it."""
    found = [each for each in (path, _partial(path)) if os.path.lexists(each)]
    for each in found:
        each.unlink(missing_ok=True)
    if found:
        sync_folder(path.parent)


def remove_partials(folder: Path, pattern: str) -> None:
    """Delete the partial files of interrupted writes in *folder*, of the files whose names match *pattern*."""
    for path in folder.glob(f".{pattern}{_SUFFIX}"):
        path.unlink(missing_ok=True)


def first_line(path: Path) -> str:
    """Return the first line of *path*, a file of unknown origin; empty if it does not exist or holds no text."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.readline().rstrip("\n")
    except OSError:
        return ""


def read_file(path: Path) -> str | None:
    """Return the text of *path*; None if it does not exist."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock *path* within the block. HostError if another process holds it for longer than LOCK_TIMEOUT.

    The holder may remove *path*, if nothing is left that it guards.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = _open_locked(path, 0o600)
    try:
        yield
    finally:
        os.close(handle)


def try_lock(path: Path, proc: Path) -> int | None:
    """Return a handle that holds the lock *path* until it is closed; None if another process holds it.

    No process of another user holds it: the file can be opened by its owner alone. A file that others can open, as
    former versions made it, is replaced, unless its holder has this user. *proc* is /proc.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if _flock_now(handle):
                if _is_private(handle) and _is_at(handle, path):
                    return os.dup(handle)
            elif _is_private(handle) or not _is_held_by_other_user(path, proc):
                return None
            if not _is_private(handle) and _is_at(handle, path):
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _flock_now(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_private(handle: int) -> bool:
    status = os.fstat(handle)
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


def _is_held_by_other_user(path: Path, proc: Path) -> bool:
    """Whether the process that holds the lock *path* has another user. One that is not visible counts as ours."""
    pid = holder(path, proc)
    try:
        return pid is not None and (proc / str(pid)).stat().st_uid != os.geteuid()
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock *path*; False if the file does not exist.

    The lock is tried, since no list of locks names its files in a way that holds for every file system. It is tried for
    reading: two processes that ask at once do not take each other for the holder. A process that wants the lock at that
    moment waits for it in ``locked``.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def holder(path: Path, proc: Path) -> int | None:
    """Return the id of the process that holds the lock *path*; None if no process does, or none that is visible.

    Each open file in *proc* (/proc) is compared with *path* by one and the same call, stat(2). The device numbers of
    /proc/locks are others on some file systems, for instance btrfs. The locks of an open file are in its ``fdinfo``.
    """
    if not is_locked(path):
        return None
    for folder in proc.glob("[0-9]*/fd"):
        for number in _open_files(folder):
            if _is_same(folder / number, path) and (pid := _flock_owner(folder.with_name("fdinfo") / number)):
                return pid
    return None


def _open_files(folder: Path) -> list[str]:
    """The numbers of the open files of a process; none if it has ended, or may not be looked at."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _flock_owner(fdinfo: Path) -> int | None:
    """The process that took the flock(2) of an open file (proc_pid_fdinfo(5)); None if there is no such lock."""
    entries = (line.split() for line in _lines(fdinfo) if line.startswith("lock:"))
    return next((int(fields[5]) for fields in entries if fields[2] == "FLOCK"), None)


def _lines(path: Path) -> list[str]:
    """The lines of *path*, a file of the kernel; none if it is gone."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}{_SUFFIX}")


def _open_locked(path: Path, mode: int) -> int:
    """Return a handle of *path*, locked. The holder before may have removed or replaced the file: then try again."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            _acquire(handle, path)
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _acquire(handle: int, path: Path) -> None:
    end = time.monotonic() + FILE_LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise HostError(
                    f"another process has held the lock {path} for {FILE_LOCK_TIMEOUT} s: find it with 'fuser {path}'"
                ) from None
            time.sleep(0.05)


def sync_folder(folder: Path) -> None:
    """Make the renames in *folder* durable: they survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
