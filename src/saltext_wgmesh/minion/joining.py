"""Waiting, for a bounded time, for the master's first word: its push runs in another process of this node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from saltext_wgmesh.minion import offers, store
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Store

POLL = 0.2
"""Seconds."""
LOOK = 5.0
"""Seconds after which the node looks for itself what the master has for it, in case that the push went by: it does when
another state run of this node published the facts, and the master had its plan before this one began. Then doubling."""


def wait(host: Host, since: float, timeout: float, look: Callable[[], object]) -> tuple[offers.Outcome, ...] | None:
    """What came of the offers that this node took up after *since* (seconds since the epoch), pushed by the master or
    fetched by *look*; None if there were none within *timeout* seconds from now. What came earlier says nothing of the
    present; and while a mesh only waits for other nodes, as in the first seconds of a new fleet, there is more to come.
    """
    now = time.monotonic()
    deadline, pause = now + timeout, LOOK
    look_at = now + pause
    while True:
        late = time.monotonic() > deadline
        if late or time.monotonic() > look_at:
            look()
            pause *= 2
            look_at = time.monotonic() + pause
        taken_at = store.outcomes_at(host)
        taken = _outcomes(store.outcomes(host)) if taken_at is not None and taken_at >= since else None
        if late or (taken is not None and not any(o.pending for o in taken)):
            return taken
        time.sleep(POLL)


def _outcomes(recorded: dict[str, dict[str, Any]]) -> tuple[offers.Outcome, ...]:
    return tuple(offers.Outcome(mesh=mesh, **told) for mesh, told in sorted(recorded.items()))


def interfaces(host: Host) -> dict[str, tuple[str, ...]]:
    """Interface → the nodes that are its peers, over all meshes that this node has joined."""
    views = (Store(host=host, mesh=mesh).view() for mesh in store.meshes(host))
    return {i.name: tuple(sorted(p.node for p in i.peers)) for view in views if view for i in view.interfaces}


def appeared(before: Iterable[str], now: dict[str, tuple[str, ...]]) -> dict[str, dict[str, str | None]]:
    """The interfaces that were not there *before*, in the shape of a state's changes."""
    new = {name: peers for name, peers in sorted(now.items()) if name not in set(before)}
    return {name: {"old": None, "new": f"peers {', '.join(peers) or 'none'}"} for name, peers in new.items()}
