"""One converge at a time, and none forgotten: a lock with a dirty mark.

Whoever asks while another runs leaves the mark and goes; the one that runs, runs once more. So a thousand
events make a handful of runs, and the last of them has seen everything that came before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


class Gate:
    """The gate whose lock and mark are files in *folder*; it holds across threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._lock = folder / "converge.lock"
        self._dirty = folder / "converge.dirty"
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, work: Callable[[], Result]) -> list[Result]:
        """Do *work* until nobody has asked meanwhile; what each round gave. Empty: another does it for us.

        An error of *work* passes through; the mark of those who asked meanwhile stays for the next run.
        """
        self._dirty.touch()
        results: list[Result] = []
        while self._dirty.exists():
            with self._held() as held:
                if not held:
                    break
                while self._clear():
                    results.append(work())
            # Whoever marked after our last look, and found the lock still held, left it to us: look again.
        return results

    def _clear(self) -> bool:
        try:
            self._dirty.unlink()
        except FileNotFoundError:
            return False
        return True

    @contextlib.contextmanager
    def _held(self) -> Iterator[bool]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                # flock belongs to the open file, so two threads of the reactor exclude each other too.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)
