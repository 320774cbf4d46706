"""Work in slices: a generator that pauses often, so that the watcher's loop receives and sends packets between.

A step of such work takes milliseconds, however many links and routes a node has. It yields None to pause, or a future
while a command runs that is to be waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from saltext_wgmesh.minion.system.host import Host

AT_ONCE = 100
"""Links, peers or routes that one step handles. Setting as many routes takes some milliseconds."""

T = TypeVar("T")
R = TypeVar("R")
Pause = Future[str] | None
Steps = Generator[Pause, None, R]

_commands = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commands")
"""Waits for commands whose time grows with the node's routes. Their output is read here, without the loop."""


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


def run_aside(host: Host, *argv: str) -> Steps[str]:
    """Return the output of a command, and pause until it has ended. HostError as of ``Host.run``."""
    future = _commands.submit(host.run, *argv)
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
