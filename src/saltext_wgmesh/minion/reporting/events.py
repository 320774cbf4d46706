"""Detect what changed on this node since the last poll: links that died or recovered, and drift. For the beacon."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.device import wg_cli
from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.core.liveness import traffic_staleness
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.transition import interface_rename
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.reporting import facts
from saltext_wgmesh.minion.state import link_report_file, store
from saltext_wgmesh.minion.state.store import VIEW, Store
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.system.peer_keys import PeerKeyTracker

log = logging.getLogger(__name__)

REPEAT_AFTER = 60.0
"""Seconds after which what still lasts is reported again: an event may have been lost."""
DRIFT_CHECK_INTERVAL = 15.0
"""Seconds between two comparisons of the node with its view, which cost five commands."""
MAX_DRIFT_LINES = 20
"""Differences that one event carries at most."""
REPORT_REFRESH = 5.0
"""Seconds after which an unchanged link report is written again, as a sign of life."""
POLL_COMMAND_TIMEOUT = 10.0
"""Seconds for a command of a poll: the minion does nothing else while one hangs."""
TROUBLE = (LinkState.DOWN, LinkState.BLACKHOLE)

Event = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class _Mesh:
    """The memory of one mesh between two polls. Times are of the source's clock unless they say otherwise."""

    reported_down: frozenset[str] = frozenset()
    """The neighbours that were last reported to be in trouble."""
    reported_at: float = 0.0
    drift: tuple[str, ...] = ()
    """As found by the last comparison."""
    drift_reported_at: float | None = None
    compared_at: float = 0.0
    peers: dict[tuple[str, str], traffic_staleness.TrafficWatch] = field(default_factory=dict)
    stale_since: dict[str, float] = field(default_factory=dict)
    """Neighbour → when it was first found stale, in seconds since the epoch."""
    routed_down: frozenset[str] = frozenset()
    """The links that were down when this module last set the routes; while a watcher runs, it sets them."""
    report_written_at: float = 0.0
    error: str | None = None
    """Why the last poll failed; it is logged once."""
    key_tracker: PeerKeyTracker | None = None
    """In use while no watcher runs."""


class EventSource:
    """Compares each poll with the one before. *clock* returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._meshes: dict[str, _Mesh] = {}

    def poll(self, host: Host) -> list[Event]:
        """Return one event for each mesh and kind of change, in order of the meshes' names."""
        now = self._clock()
        found: list[Event] = []
        for mesh in store.meshes(host):
            memory = self._meshes.setdefault(mesh, _Mesh(compared_at=now))
            try:
                found += _changes(host, mesh, memory, now)
                memory.error = None
            except (WgmeshError, OSError) as error:
                # If it were raised, Salt would fire an event without content each second.
                if memory.error != str(error):
                    memory.error = str(error)
                    log.warning("wgmesh %s: the state of the links is unknown: %s", mesh, error)
        return found


@functools.cache
def process_source() -> EventSource:
    """Return the event source of this process.

    It must live as long as the process. Salt discards a beacon's module and its ``__context__`` at each refresh of the
    pillar, and a link that recovered afterwards would then never be reported.
    """
    return EventSource()


def _changes(host: Host, mesh: str, memory: _Mesh, now: float) -> Iterator[Event]:
    stored = Store(host=host, mesh=mesh)
    view = stored.view()
    if view is None:
        yield from _damaged_view(stored, memory, now)
        return
    report = link_report_file.read_report(host, mesh)
    if report is None or not report.from_watcher:
        memory.key_tracker = memory.key_tracker or PeerKeyTracker(host)
        memory.key_tracker.update((i.name, peer) for i in view.interfaces for peer in i.peers)
        report = _report_from_counters(host, view, memory, now)
        if report.down.keys() != memory.routed_down:
            memory.routed_down = frozenset(report.down)
            # Without the watcher nothing else moves them: the master pushes only to nodes whose views change.
            apply.reroute(host, view)
    yield from _link_changes(report, memory, now)
    yield from _drift(host, view, memory, now)


def _link_changes(report: LinkReport, memory: _Mesh, now: float) -> Iterator[Event]:
    down = frozenset(n for n, link in report.links.items() if link.state in TROUBLE)
    went_down, came_up = ("link-down", "link-up") if report.from_watcher else ("stale", "recovered")
    repeat = bool(down) and now - memory.reported_at > REPEAT_AFTER
    if repeat or down - memory.reported_down:
        new = down if repeat else down - memory.reported_down
        yield _event(went_down, report.mesh, neighbours=sorted(new), down=sorted(down))
    # A neighbour that left the view has no link that could have recovered.
    recovered = (memory.reported_down - down) & report.links.keys()
    if recovered:
        yield _event(came_up, report.mesh, neighbours=sorted(recovered), down=sorted(down))
    if repeat or down != memory.reported_down:
        memory.reported_down, memory.reported_at = down, now


def _drift(host: Host, view: View, memory: _Mesh, now: float) -> Iterator[Event]:
    """Report drift that two comparisons in a row have found: an apply may be in progress during one of them.

    The comparison takes no lock and changes nothing.
    """
    if now - memory.compared_at < DRIFT_CHECK_INTERVAL:
        return
    memory.compared_at = now
    try:
        found = (*apply.apply(host, view, dry_run=True).lines, *_half_renamed(view), *_underlay_changed(host))
    except (WgmeshError, OSError) as error:
        found = (str(error),)
    lasting, memory.drift = bool(found) and found == memory.drift, found
    if not found:
        memory.drift_reported_at = None
    elif lasting and (memory.drift_reported_at is None or now - memory.drift_reported_at > REPEAT_AFTER):
        memory.drift_reported_at = now
        yield _event("drift", view.mesh, changes=list(found[:MAX_DRIFT_LINES]))


def _damaged_view(stored: Store, memory: _Mesh, now: float) -> Iterator[Event]:
    """Report a view that can't be read as drift: the master then pushes it again."""
    is_due = memory.drift_reported_at is None or now - memory.drift_reported_at > REPEAT_AFTER
    if is_due and stored.has_damaged_view():
        memory.drift_reported_at = now
        yield _event("drift", stored.mesh, changes=[f"{stored.folder / VIEW} is damaged"])


def _half_renamed(view: View) -> Iterator[str]:
    """Report that an apply died while it renamed interfaces: the view that the master knows of is another."""
    if others := interface_rename.half_renamed(view):
        yield f"interfaces: not named after the access interface: {', '.join(others)}"


def _underlay_changed(host: Host) -> Iterator[str]:
    """Report that this node has other addresses than it published: its neighbours connect to the published ones."""
    published, now = store.published_underlay(host), facts.underlay(host)
    if published not in (None, now):
        yield f"facts: underlay {', '.join(published)} -> {', '.join(now)}"


def _event(kind: str, mesh: str, **fields: Any) -> Event:
    return {"tag": kind, "mesh": mesh, **fields}


def _report_from_counters(host: Host, view: View, memory: _Mesh, now: float) -> LinkReport:
    """Derive the state of the links from WireGuard's own counters, and write it to the report of links."""
    stats = {}
    for device, dumped in wg_cli.parse_dump(host.run("wg", "show", "all", "dump")).items():
        stats.update({(device, s.public_key): s for s in dumped.stats})
    links: dict[str, LinkStatus] = {}
    for interface in view.interfaces:
        for peer in interface.peers:
            key = interface.name, peer.public_key
            # A neighbour with two keys runs one of them: the counters of both together are those of the link.
            listed = [stats[interface.name, k] for k in peer.keys if (interface.name, k) in stats]
            received, sent = sum(s.received for s in listed), sum(s.sent for s in listed)
            if not listed:
                memory.peers.pop(key, None)
                continue
            before = memory.peers.get(key) or traffic_staleness.TrafficWatch(received=received, sent=sent)
            memory.peers[key] = before.sample(received, sent, now)
            links[peer.node] = _link(peer.node, interface.name, memory, memory.peers[key].is_stale(now))
    report = LinkReport(mesh=view.mesh, from_watcher=False, links=MappingProxyType(dict(sorted(links.items()))))
    _write_report(host, report, memory, now)
    return report


def _link(node: str, interface: str, memory: _Mesh, is_stale: bool) -> LinkStatus:
    if is_stale:
        memory.stale_since.setdefault(node, time.time())
    else:
        memory.stale_since.pop(node, None)
    state = LinkState.DOWN if is_stale else LinkState.UP
    return LinkStatus(neighbour=node, interface=interface, state=state, since=memory.stale_since.get(node, 0.0))


def _write_report(host: Host, report: LinkReport, memory: _Mesh, now: float) -> None:
    is_due = now - memory.report_written_at > REPORT_REFRESH
    if is_due or link_report_file.read_report(host, report.mesh) != report:
        link_report_file.write_report(host, report)
        memory.report_written_at = now


def links(host: Host) -> dict[str, Mapping[str, Any]]:
    """Return mesh → the report of its links, by the watcher or else by the beacon; empty where neither runs."""
    found: dict[str, Mapping[str, Any]] = {}
    for mesh in store.meshes(host):
        report = link_report_file.read_report(host, mesh) or LinkReport(mesh=mesh, from_watcher=False)
        found[mesh] = report.as_dict()
    return found
