"""Work in slices: a generator that pauses often, so that the watcher's loop receives and sends packets between.

A step of such work takes milliseconds, however many links and routes a node has. It yields None to pause, or a future
while a command runs that is to be waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

AT_ONCE = 100
"""Links, peers or routes that one step handles. Setting as many routes takes some milliseconds."""

T = TypeVar("T")
R = TypeVar("R")
Pause = Future[Any] | None
Steps = Generator[Pause, None, R]

_reads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reads")
_changes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="changes")
"""Each waits for one program at a time, in place of the loop. A change does not wait for a long list to be read."""


def finish(steps: Steps[R]) -> R:
    """Do all *steps* now, and return their result."""
    try:
        while True:
            waits_for = next(steps)
            if waits_for is not None:
                waits_for.exception()
    except StopIteration as stop:
        result: R = stop.value
        return result


def read_aside(call: Callable[..., R], *arguments: object) -> Steps[R]:
    """Return what *call* returns, or raise what it raises, and pause until then. It only waits for a program."""
    return _aside(_reads, call, *arguments)


def change_aside(call: Callable[..., R], *arguments: object) -> Steps[R]:
    """The same for a call that changes the node: such calls are made in order, one at a time."""
    return _aside(_changes, call, *arguments)


def _aside(executor: ThreadPoolExecutor, call: Callable[..., R], *arguments: object) -> Steps[R]:
    future = executor.submit(call, *arguments)
    while not future.done():
        yield future
    return future.result()


def in_slices(items: Iterable[T], handle: Callable[[T], object]) -> Steps[None]:
    """Call *handle* with each of *items*, and pause after each AT_ONCE of them."""
    for count, item in enumerate(items, start=1):
        handle(item)
        if count % AT_ONCE == 0:
            yield None


def groups_of(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield *items* in lists of at most AT_ONCE."""
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == AT_ONCE:
            yield group
            group = []
    if group:
        yield group
