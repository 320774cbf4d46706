"""Links at rest: an apply has the watcher hold them down while it changes them, and waits until nothing goes by them.

The request is a file beside the one in which the watcher says how the links are. It lapses by itself, so that an apply
that dies leaves nothing at rest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from saltext_wgmesh.core.linkstate import LinkReport, LinkState
from saltext_wgmesh.minion import files, linkfile
from saltext_wgmesh.minion.host import Host

LAPSES = 30.0
"""Seconds after which a request is void."""
PATIENCE = 2.0
"""Seconds to wait for the links to be at rest: the watcher looks each 0.2 s, and tells the other end at once."""
SEEN = 0.3
"""Seconds in which the watcher has seen a request."""
EVERY = 0.05


def path(host: Host, mesh: str) -> Path:
    """Where the request lies."""
    return host.run_dir / f"{mesh}.rest"


def wanted(host: Host, mesh: str) -> frozenset[str]:
    """The neighbours whose links are to be at rest now."""
    try:
        raw = json.loads(path(host, mesh).read_text())
        # One that lies far in the future was written before the clock leapt back.
        alive = 0.0 <= float(raw["until"]) - time.time() <= LAPSES
        return frozenset(map(str, raw["neighbours"])) if alive else frozenset()
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


@contextmanager
def at_rest(host: Host, mesh: str, neighbours: Set[str]) -> Iterator[None]:
    """Inside, nothing that has another way goes by the links to *neighbours*, in either direction; afterwards they come
    up again. Those that are not up now don't come up meanwhile. Whoever does not answer within PATIENCE seconds is not
    waited for."""
    report = linkfile.read(host, mesh)
    if not neighbours or report is None or not report.watched:
        yield
        return
    used: set[str] = set()
    asked = time.monotonic()

    def quiet(said: LinkReport) -> bool:
        # One that is just coming up may carry until the watcher has seen the request.
        used.update(n for n in neighbours if _state(said, n) in _USED)
        seen = used >= neighbours or time.monotonic() - asked > SEEN
        return seen and all(_is_quiet(said, n) for n in used)

    request = {"neighbours": sorted(neighbours), "until": time.time() + LAPSES}
    files.write(path(host, mesh), json.dumps(request), mode=0o644)
    try:
        _wait(host, mesh, quiet, PATIENCE)
        yield
    finally:
        files.remove(path(host, mesh))


def unheard(host: Host, mesh: str, neighbours: Set[str], patience: float) -> tuple[str, ...]:
    """Those of *neighbours* that are still not heard after *patience* seconds, sorted; at once if all are."""
    report = _wait(host, mesh, lambda said: all(_state(said, n) in _USED for n in neighbours), patience)
    return tuple(sorted(n for n in neighbours if report is not None and _state(report, n) not in _USED))


_USED = (LinkState.UP, LinkState.MUTE)


def _state(report: LinkReport, neighbour: str) -> LinkState | None:
    link = report.links.get(neighbour)
    return link.state if link else None


def _is_quiet(report: LinkReport, neighbour: str) -> bool:
    """Whether nothing goes by the link that has another way."""
    link = report.links.get(neighbour)
    return link is None or link.state in (LinkState.DOWN, LinkState.NEW) or link.heeded


def _wait(host: Host, mesh: str, met: Callable[[LinkReport], bool], patience: float) -> LinkReport | None:
    """The watcher's word as soon as it is *met*, or what it is when *patience* is over; None if the watcher died."""
    deadline = time.monotonic() + patience
    while True:
        report = linkfile.read(host, mesh)
        if report is None or not report.watched or met(report) or time.monotonic() >= deadline:
            return report if report and report.watched else None
        time.sleep(EVERY)
