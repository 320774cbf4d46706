"""Atomic, durable files, and a lock that ends with its holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saltext_wgmesh.core.errors import HostError, naming
from saltext_wgmesh.core.proc_locks import lock_holder

_SUFFIX = ".partial"
FILE_LOCK_TIMEOUT = 60
"""Seconds to wait for another apply on this node."""


def write_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write *text* to *path* with *mode*, durably. At no moment is the file half written, or readable by more users.

    A process that is killed while writing leaves a partial file beside *path*. It has the same name each time, so the
    next write or removal of *path* deletes it. It is also locked, so that of two writers one waits.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = _partial(path)
    with naming(path), os.fdopen(_open_locked(partial, mode), "w") as stream:
        try:
            # A partial file of an earlier write may be readable by more users than *mode* allows.
            os.ftruncate(stream.fileno(), 0)
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
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


def holder(path: Path, proc_locks: Path) -> int | None:
    """Return the id of the process that holds the lock *path*, as listed in *proc_locks* (/proc/locks).

    None if no process does, or none that this process may see.
    """
    try:
        there = path.stat()
    except FileNotFoundError:
        return None
    return lock_holder(proc_locks.read_text(), (os.major(there.st_dev), os.minor(there.st_dev)), there.st_ino)


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
