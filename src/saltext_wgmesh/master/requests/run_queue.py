"""One converge at a time, and no request lost: a lock, and a folder of queued requests.

A caller that finds a run in progress adds its requests to the queue and returns; the running process then runs once
more with all queued requests. Runs are rate-limited, and a run that changed nothing is followed by a pause as long as
the run itself. Events therefore cannot keep the master busy for more than half of its time, and a thousand events cause
a handful of runs. The last of these began after every event.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import TypeVar

from saltext_wgmesh.core.errors import WgmeshError, naming
from saltext_wgmesh.master.requests.rate_limit import RateLimit
from saltext_wgmesh.master.requests.request import FROM_EVENTS, Request

Result = TypeVar("Result")
Work = Callable[[frozenset[Request]], Result]

QUEUE_LOCK_TIMEOUT = 60.0
"""Seconds that a caller waits for the run of another process."""
INTERACTIVE_LIMIT = 60.0
"""Seconds after which an interactive caller starts no further runs for the requests of others."""
QUEUE_POLL_INTERVAL = 0.2
"""Seconds between two attempts to get the lock."""
URGENT_POLL_INTERVAL = 1.0
"""Seconds between two looks, in a pause, whether the next run is urgent."""
MAX_STATE_BYTES = 4096
"""Bytes that are read of the lock file."""
MAX_ATTEMPTS = 3
"""Runs that an operator's request takes part in at most, if all of them fail. It may be what they fail by."""


class RunQueue:
    """The queue whose lock and requests are files in *folder*. It works across threads and processes.

    An *interactive* caller, at a terminal, is not rate-limited.
    """

    def __init__(self, folder: Path, *, interactive: bool = False) -> None:
        self._lock = folder / "converge.lock"
        self._running = folder / "converge.running"
        """Locked as long as *_lock* is. Only the process that has *_lock* waits for it, so a process that tries this
        lock to see whether a run is in progress turns no caller away."""
        self._queued = folder / "requests"
        self._in_progress = folder / "in-progress"
        """Requests of the present run. If its process is killed, the next run takes them."""
        self._interactive = interactive
        for each in (self._queued, self._in_progress):
            each.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        work: Work[Result],
        *requests: Request,
        made_changes: Callable[[Result], bool] = lambda _: True,
        has_follow_up: Callable[[Result], bool] = lambda _: False,
        is_urgent: Callable[[], bool] = lambda: False,
    ) -> list[Result]:
        """Do *work* until the queue is empty, and return the result of each round.

        The list is empty if another process has the lock: that process takes the requests.

        Each round gets the requests that were queued before it began. An error of *work* passes through, and requests
        that were queued in that round stay for the next run. So they do when an interactive caller has served for
        INTERACTIVE_LIMIT seconds, unless its last round *has_follow_up*. After a round that *made_changes* there is no
        pause, and one ends as soon as the next run *is_urgent*.

        The requests of a round that failed stay too, whatever the error is: the events behind them are not repeated.
        Only an operator's request is dropped, if it is one of *requests*, whose caller gets the error, or after
        MAX_ATTEMPTS rounds.
        """
        own = frozenset(requests or (Request(),))
        for request in own:
            self.enqueue(request)
        results: list[Result] = []
        deadline = time.monotonic() + INTERACTIVE_LIMIT

        def is_done() -> bool:
            if not self._has_queued():
                return True
            served_long = self._interactive and bool(results) and time.monotonic() > deadline
            return served_long and not has_follow_up(results[-1])

        while not is_done():
            with self._try_lock() as lock:
                if lock is None:
                    break
                self._requeue()
                while not is_done():
                    limit = self._await_slot(lock, is_urgent)
                    results.append(self._run_once(work, own))
                    _save(lock, limit.run_ended(time.monotonic(), made_changes=made_changes(results[-1])))
            # A request that arrived after the last check found the lock still taken, and relies on this process:
            # so the queue is checked once more without the lock.
        return results

    def enqueue(self, request: Request) -> None:
        """*request* is queued for the next run. Equal requests are one."""
        text = request.encode()
        path = self._queued / hashlib.sha256(text.encode()).hexdigest()
        # Readers must never see half a file, so it is written under another name first.
        partial = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        try:
            with naming(path):
                partial.write_text(text)
                partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """No run takes place inside the context. Requests that arrive are queued for the next run.

        Raises WgmeshError if another process keeps the lock for QUEUE_LOCK_TIMEOUT seconds.
        """
        deadline = time.monotonic() + QUEUE_LOCK_TIMEOUT
        while True:
            with self._try_lock() as lock:
                if lock is not None:
                    yield
                    return
            if time.monotonic() > deadline:
                raise WgmeshError(
                    f"another wgmesh run did not finish within {QUEUE_LOCK_TIMEOUT:g} s: nothing was changed; "
                    "try again later"
                )
            time.sleep(QUEUE_POLL_INTERVAL)

    def enqueue_if_running(self, *requests: Request) -> bool:
        """Whether another run is in progress; then *requests* are queued, and a run that begins after this call takes
        them."""
        if not self.is_running():
            return False
        for request in requests or (Request(),):
            self.enqueue(request)
        # A process checks the queue after it has released the lock. If the lock is taken even now, that check finds
        # the requests.
        return self.is_running()

    def is_running(self) -> bool:
        """Whether a process has the lock.

        A second lock is tried for this. A successful try of the first one would turn away callers at that moment. No
        list of locks names its files in a way that holds for every file system.
        """
        descriptor = _open(self._running)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _has_queued(self) -> bool:
        return any(not path.name.startswith(".") for path in self._queued.iterdir())

    def _run_once(self, work: Work[Result], own: Set[Request]) -> Result:
        """Do one round. *own* are the requests of the caller."""
        requests = self._take()
        try:
            result = work(requests)
        except Exception:
            self._requeue(given_up=own)
            raise
        for path in self._in_progress.iterdir():
            path.unlink()
        return result

    def _requeue(self, given_up: Set[Request] = frozenset()) -> None:
        """Queue the requests of a round that failed, or whose process was killed; none that is *given_up* or was tried
        often, unless it is of an event."""
        # An equal request may have been queued in the meantime, with fewer attempts. In this order none is overwritten.
        for path in sorted(self._in_progress.iterdir(), reverse=True):
            request = Request.decode(path.read_text(errors="replace"))
            attempts = _attempts(path) + 1
            if request is not None and request.kind in FROM_EVENTS:
                path.replace(self._queued / path.name)
            elif request is None or request in given_up or attempts >= MAX_ATTEMPTS:
                path.unlink()
            else:
                path.replace(self._queued / f"{path.stem}.{attempts}")

    def _take(self) -> frozenset[Request]:
        """All queued requests, which are in progress from now on."""
        found = set()
        for path in sorted(self._queued.glob("[!.]*")):
            found.add(Request.decode(path.read_text(errors="replace")))
            path.replace(self._in_progress / path.name)
        return frozenset(request for request in found if request is not None)

    def _await_slot(self, lock: int, is_urgent: Callable[[], bool]) -> RateLimit:
        """Wait until one more run may begin, and record that it began."""
        limit = RateLimit.decode(os.pread(lock, MAX_STATE_BYTES, 0))
        delay = 0.0 if self._interactive else limit.delay(time.monotonic())
        end = time.monotonic() + delay
        while (left := end - time.monotonic()) > 0 and not is_urgent():
            time.sleep(min(left, URGENT_POLL_INTERVAL))
        limit = limit.run_began(time.monotonic())
        _save(lock, limit)
        return limit

    @contextlib.contextmanager
    def _try_lock(self) -> Iterator[int | None]:
        """The descriptor of the locked file, or None if another process or thread has the lock."""
        descriptor, running = _open(self._lock), _open(self._running)
        try:
            try:
                # flock belongs to the open file, so two threads of the reactor exclude each other too.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                # Processes that ask hold it for an instant.
                fcntl.flock(running, fcntl.LOCK_EX)
                yield descriptor
        finally:
            os.close(running)
            os.close(descriptor)


def _attempts(path: Path) -> int:
    """How many rounds the request of *path* has taken part in."""
    return int(path.suffix[1:]) if path.suffix[1:].isdecimal() else 0


def _open(lock: Path) -> int:
    return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _save(lock: int, limit: RateLimit) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, limit.encode().encode(), 0)
