"""One converge at a time, and no word forgotten: a lock, and a folder of what was asked meanwhile.

Whoever asks while another runs leaves a word and goes; the one that runs, runs once more with all words that were
left. Runs are spaced, too. So a thousand events make a handful of runs, and the last of them has seen everything that
came before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
Word = tuple[str, ...]
"""What a caller wants to be heeded in the run that it asks for; the empty one asks for a run and no more."""

BURST = 2
"""Runs that may follow each other at once."""
SPACING = 3.0
"""Seconds in which no more than BURST runs begin, unless the caller is in a hurry."""


class Gate:
    """The gate whose lock and words are files in *folder*; it holds across threads and processes."""

    def __init__(self, folder: Path, *, hurry: bool = False) -> None:
        self._lock = folder / "converge.lock"
        self._words = folder / "words"
        self._hurry = hurry
        self._words.mkdir(parents=True, exist_ok=True)

    def run(self, work: Callable[[frozenset[Word]], Result], word: Word = ()) -> list[Result]:
        """Do *work* until nobody has asked meanwhile; what each round gave. Empty: another does it for us.

        Each round gets the words that were left until it began. An error of *work* passes through; what others asked
        meanwhile stays for the next run.
        """
        self._leave(word)
        results: list[Result] = []
        while self._asked():
            with self._held() as lock:
                if lock is None:
                    break
                while self._asked():
                    self._space(lock)
                    results.append(work(self._take()))
            # Whoever asked after our last look, and found the lock still held, left it to us: look again.
        return results

    def _leave(self, word: Word) -> None:
        text = json.dumps(word)
        path = self._words / hashlib.sha256(text.encode()).hexdigest()
        partial = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        partial.write_text(text)
        partial.replace(path)

    def _asked(self) -> bool:
        return any(not path.name.startswith(".") for path in self._words.iterdir())

    def _take(self) -> frozenset[Word]:
        words = set()
        for path in sorted(self._words.glob("[!.]*")):
            words.add(tuple(json.loads(path.read_text())))
            path.unlink()
        return frozenset(words)

    def _space(self, lock: int) -> None:
        """Wait until one more run may begin, and note that it did; in the lock file, for all processes."""
        begun = _times(os.pread(lock, 4096, 0))
        now = time.time()
        if len(begun) >= BURST and not self._hurry:
            time.sleep(min(SPACING, max(0.0, begun[-BURST] + SPACING - now)))
            now = time.time()
        text = json.dumps([*begun, now][-BURST:])
        os.ftruncate(lock, 0)
        os.pwrite(lock, text.encode(), 0)

    @contextlib.contextmanager
    def _held(self) -> Iterator[int | None]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                # flock belongs to the open file, so two threads of the reactor exclude each other too.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor
        finally:
            os.close(descriptor)


def _times(text: bytes) -> list[float]:
    """When the last runs began, in seconds since the epoch; none if the file says nothing that can be read."""
    try:
        return [float(value) for value in json.loads(text or b"[]")]
    except (ValueError, TypeError):
        return []
