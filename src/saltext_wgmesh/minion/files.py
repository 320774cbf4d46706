"""Files that are whole or not there, and a lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saltext_wgmesh.core import proclocks
from saltext_wgmesh.core.errors import HostError

_SUFFIX = ".partial"
LOCK_TIMEOUT = 60
"""Seconds to wait for another apply on this node."""


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """*path* holds *text* with *mode*, durably: at no moment is it half written or wider open.

    Who is killed amid this leaves a file beside it that the next write or removal of *path* takes away: it has the same
    name each time, and a lock, so that of two writers one waits.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = _partial(path)
    with os.fdopen(_alone(partial, mode), "w") as stream:
        try:
            # What a broken write left may be open to more people than this.
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


def remove(path: Path) -> None:
    """*path* is not there, durably, nor what a broken write left beside it."""
    found = [each for each in (path, _partial(path)) if os.path.lexists(each)]
    for each in found:
        each.unlink(missing_ok=True)
    if found:
        sync_folder(path.parent)


def remove_partials(folder: Path, pattern: str) -> None:
    """No broken write left anything of the files in *folder* whose names match *pattern*."""
    for path in folder.glob(f".{pattern}{_SUFFIX}"):
        path.unlink(missing_ok=True)


def first_line(path: Path) -> str:
    """That of *path*, which may be anybody's: empty if it is not there or holds no text."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.readline().rstrip("\n")
    except OSError:
        return ""


def read(path: Path) -> str | None:
    """The text of *path*; None if it is not there."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else is inside the same lock. HostError if another holds it for longer than LOCK_TIMEOUT.

    Who is inside may remove *path*, if nothing is left that it guards.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = _alone(path, 0o600)
    try:
        yield
    finally:
        os.close(handle)


def holder(path: Path, proc_locks: Path) -> int | None:
    """The process that holds the lock *path*, by what *proc_locks* tells; None if none does, or none that this process
    may see."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return None
    return proclocks.holder(proc_locks.read_text(), (os.major(there.st_dev), os.minor(there.st_dev)), there.st_ino)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}{_SUFFIX}")


def _alone(path: Path, mode: int) -> int:
    """*path*, open and locked, and still under that name."""
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
    end = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise HostError(
                    f"another process has held {path} for {LOCK_TIMEOUT} s: see which with 'fuser'"
                ) from None
            time.sleep(0.05)


def sync_folder(folder: Path) -> None:
    """What was renamed in *folder* stays so after a loss of power."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
