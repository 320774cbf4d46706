"""Files that are whole or not there, and a lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saltext_wgmesh.core.errors import HostError

LOCK_TIMEOUT = 60
"""Seconds to wait for another apply on this node."""


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """*path* holds *text* with *mode*, durably: at no moment is it half written or wider open."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """*path* is not there."""
    path.unlink(missing_ok=True)


def read(path: Path) -> str | None:
    """The text of *path*; None if it is not there."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else is inside the same lock. HostError if another holds it for longer than LOCK_TIMEOUT."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(handle, path)
        yield
    finally:
        os.close(handle)


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
