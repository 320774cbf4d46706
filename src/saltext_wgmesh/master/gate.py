"""One converge at a time, and no word forgotten: a lock, and a folder of what was asked meanwhile.

Whoever asks while another runs leaves a word and goes; the one that runs, runs once more with all words that were
left. Runs are spaced, too, and those that come to nothing by as much as they take: whoever fires events can keep the
master busy for half of its time at most. So a thousand events make a handful of runs, and the last of them has seen
everything that came before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from saltext_wgmesh.core import proclocks
from saltext_wgmesh.core.errors import WgmeshError

Result = TypeVar("Result")
Word = tuple[str, ...]
"""What a caller wants to be heeded in the run that it asks for; the empty one asks for a run and no more."""

BURST = 5
"""Runs that may follow each other at once."""
SPACING = 5.0
"""Seconds in which no more than BURST runs begin, unless the caller is in a hurry."""
REST = 1.0
"""How long a pause is, as a multiple of the run before it, if that came to nothing."""
LONGEST = 10.0
"""Seconds of the longest pause."""
PATIENCE = 60.0
"""Seconds in which a run of somebody else must have ended, for those who wait; and after which a caller in a hurry
leaves further runs, of which it needs none, to whoever calls next."""
PROC_LOCKS = Path("/proc/locks")
POLL = 0.2
"""Seconds between two tries to have the gate."""


@dataclass(frozen=True, slots=True)
class _Pace:
    """How the last runs went; in the lock file, for all processes. Times are seconds since the epoch."""

    begun: tuple[float, ...] = ()
    """When the last BURST runs began."""
    rests_until: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until one more run may begin. A clock that was set back makes nobody wait longer."""
        if len(self.begun) < BURST:
            return 0.0
        return min(LONGEST, max(0.0, self.begun[0] + SPACING - now, self.rests_until - now))

    def begins(self, now: float) -> _Pace:
        """One more run begins."""
        return _Pace((*self.begun, now)[-BURST:])

    def ends(self, now: float, *, fruitful: bool) -> _Pace:
        """It has ended."""
        return self if fruitful else replace(self, rests_until=now + REST * (now - self.begun[-1]))


class Gate:
    """The gate whose lock and words are files in *folder*; it holds across threads and processes."""

    def __init__(self, folder: Path, *, hurry: bool = False) -> None:
        self._lock = folder / "converge.lock"
        self._words = folder / "words"
        self._hurry = hurry
        self._taken = folder / "taken"
        """Words that the run heeds which has the gate; if it dies, the next one does."""
        for each in (self._words, self._taken):
            each.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        work: Callable[[frozenset[Word]], Result],
        *words: Word,
        fruitful: Callable[[Result], bool] = lambda _: True,
        goes_on: Callable[[Result], bool] = lambda _: False,
    ) -> list[Result]:
        """Do *work* until nobody has asked meanwhile; what each round gave. Empty: another does it for us.

        Each round gets the words that were left until it began. An error of *work* passes through; what others asked
        meanwhile stays for the next run. So does, after PATIENCE seconds, what they ask of a caller in a hurry: unless
        what its last round began *goes_on*.
        """
        for word in words or ((),):
            self.leave(word)
        results: list[Result] = []
        patient_until = time.monotonic() + PATIENCE

        def may_go() -> bool:
            return self._hurry and bool(results) and time.monotonic() > patient_until and not goes_on(results[-1])

        while self._asked() and not may_go():
            with self._held() as lock:
                if lock is None:
                    break
                self._put_back()
                while self._asked() and not may_go():
                    pace = self._space(lock)
                    results.append(self._heed(work))
                    _note(lock, pace.ends(time.time(), fruitful=fruitful(results[-1])))
            # Whoever asked after our last look, and found the lock still held, left it to us: look again.
        return results

    def leave(self, word: Word) -> None:
        """There will be one more run, which heeds *word*; for those who have the gate."""
        text, path = json.dumps(word), self._path(word)
        partial = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        partial.write_text(text)
        partial.replace(path)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else runs meanwhile; WgmeshError if somebody does all PATIENCE seconds. What is asked meanwhile stays
        for the next run."""
        end = time.monotonic() + PATIENCE
        while True:
            with self._held() as lock:
                if lock is not None:
                    yield
                    return
            if time.monotonic() > end:
                raise WgmeshError(f"another run of wgmesh has been at it for {PATIENCE:g} s: try again later")
            time.sleep(POLL)

    def pass_on(self, *words: Word) -> bool:
        """Whether somebody has the gate, and a run that begins after this call heeds *words*: they were left for it."""
        if not self.is_held():
            return False
        for word in words or ((),):
            self.leave(word)
        # Whoever lets go looks for words once more: if somebody has it still, these are found.
        return self.is_held()

    def is_held(self) -> bool:
        """Whether somebody has the gate. To try the lock would be to have it, and send away who tries just then."""
        try:
            lock = self._lock.stat()
            device = os.major(lock.st_dev), os.minor(lock.st_dev)
            return proclocks.holder(PROC_LOCKS.read_text(), device, lock.st_ino) is not None
        except OSError:
            return False

    def _path(self, word: Word) -> Path:
        return self._words / hashlib.sha256(json.dumps(word).encode()).hexdigest()

    def _asked(self) -> bool:
        return any(not path.name.startswith(".") for path in self._words.iterdir())

    def _heed(self, work: Callable[[frozenset[Word]], Result]) -> Result:
        """One round. Words of a round that failed are gone, as its caller is told; not those of one that was killed."""
        words = self._take()
        try:
            result = work(words)
        except Exception:
            self._forget_taken()
            raise
        self._forget_taken()
        return result

    def _forget_taken(self) -> None:
        for path in self._taken.iterdir():
            path.unlink()

    def _put_back(self) -> None:
        for path in self._taken.iterdir():
            path.replace(self._words / path.name)

    def _take(self) -> frozenset[Word]:
        words = set()
        for path in sorted(self._words.glob("[!.]*")):
            try:
                words.add(tuple(json.loads(path.read_text())))
            except ValueError:
                # Power failed while it was written. The schedule's runs find what an event would have told.
                words.add(())
            path.replace(self._taken / path.name)
        return frozenset(words)

    def _space(self, lock: int) -> _Pace:
        """Wait until one more run may begin, and note that it did."""
        pace = _noted(lock)
        wait = 0.0 if self._hurry else pace.wait(time.time())
        if wait:
            time.sleep(wait)
        pace = pace.begins(time.time())
        _note(lock, pace)
        return pace

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


def _note(lock: int, pace: _Pace) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(asdict(pace)).encode(), 0)


def _noted(lock: int) -> _Pace:
    """As if nothing had run yet, if the file says nothing that can be read."""
    try:
        raw = json.loads(os.pread(lock, 4096, 0))
        return _Pace(tuple(float(value) for value in raw["begun"]), float(raw["rests_until"]))
    except (ValueError, TypeError, KeyError):
        return _Pace()
