"""Wait for the master's first push to this node, which another process of the node applies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from saltext_wgmesh.minion.state import store
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.state.view_result import ViewResult
from saltext_wgmesh.minion.system.host import Host

PUSH_POLL_INTERVAL = 0.2
"""Seconds."""
FETCH_AFTER = 5.0
"""Seconds after which the node fetches its assignments itself, in case it missed the push; then doubling.

It does so if an earlier state run published the facts, and the master had planned before this run began.
"""
ASK_AFTER_FAILED_RUN = 1.0
"""The same, if the run before failed: the next one then fails within a second, unless the policy is corrected."""


def await_push(
    host: Host,
    since: tuple[int, int],
    timeout: float,
    fetch: Callable[[], object],
    refusal: Callable[[], str | None] = lambda: None,
    fetch_after: float = FETCH_AFTER,
) -> tuple[ViewResult, ...] | str | None:
    """Return the results of the assignments that were applied after *since*; None if none were within *timeout* s.

    *since* is a version of the outcomes (``store.outcomes_version``): those of that version may be out of date. The
    assignments come by a push of the master or by *fetch*. While a mesh is pending, as in the first seconds of a new
    fleet, further ones are awaited.

    If *refusal* gives the reason why the master has none for any node, that is returned at once. It is called together
    with *fetch*, for the first time after *fetch_after* seconds.
    """
    now = time.monotonic()
    deadline, pause = now + timeout, fetch_after
    fetch_at = now + pause
    while True:
        late = time.monotonic() > deadline
        asked = late or time.monotonic() > fetch_at
        if asked:
            fetch()
            pause *= 2
            fetch_at = time.monotonic() + pause
        # Compared after the fetch, which records its outcomes in the same file as a push does.
        is_new = store.outcomes_version(host) != since
        results = tuple(result for _, result in sorted(store.outcomes(host).items())) if is_new else None
        if results is None and asked and (reason := refusal()):
            return reason
        if late or (results is not None and not any(result.pending for result in results)):
            return results
        time.sleep(PUSH_POLL_INTERVAL)


def interfaces(host: Host) -> dict[str, tuple[str, ...]]:
    """Return interface → the nodes that are its peers, over all meshes of this node."""
    views = (Store(host=host, mesh=mesh).view() for mesh in store.meshes(host))
    return {i.name: tuple(sorted(p.node for p in i.peers)) for view in views if view for i in view.interfaces}


def new_interfaces(before: Iterable[str], now: dict[str, tuple[str, ...]]) -> dict[str, dict[str, str | None]]:
    """Return the interfaces of *now* that are not in *before*, in the shape of a state's changes."""
    new = {name: peers for name, peers in sorted(now.items()) if name not in set(before)}
    return {name: {"old": None, "new": f"peers {', '.join(peers) or 'none'}"} for name, peers in new.items()}
