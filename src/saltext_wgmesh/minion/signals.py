"""What changed on this node since it was last told: links that died or came back, and drift. Read by the beacon."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core import renaming, stale, wgtext
from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.core.types import View
from saltext_wgmesh.minion import apply, facts, linkfile, store
from saltext_wgmesh.minion.following import Follower
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Store

log = logging.getLogger(__name__)

REPEAT = 60.0
"""Seconds after which what still lasts is told again: an event may have been lost."""
DRIFT_EVERY = 15.0
"""Seconds between two comparisons of the node with its view, which cost five commands."""
DRIFT_LINES = 20
"""Differences that one event carries at most."""
ALIVE_EVERY = 5.0
TROUBLE = (LinkState.DOWN, LinkState.MUTE)

Signal = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class _Mesh:
    """What is remembered of one mesh. Times are of the monotonic clock."""

    told: frozenset[str] = frozenset()
    """Neighbours that were last told to be in trouble."""
    told_at: float = 0.0
    drift: tuple[str, ...] = ()
    """As seen at the last look."""
    drift_told_at: float | None = None
    compared_at: float = 0.0
    peers: dict[tuple[str, str], stale.Peer] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    """Neighbour → when it was first found stale, in seconds since the epoch."""
    routed: frozenset[str] = frozenset()
    """The links that were down when the routes were last set; while a watcher runs, they are its."""
    written_at: float = 0.0
    error: str | None = None
    """Why the last look failed; it is logged once."""
    follower: Follower | None = None
    """While no watcher runs."""


class Signals:
    """The memory between two looks. It lives as long as the process: Salt forgets a beacon's own at each refresh."""

    def __init__(self) -> None:
        self._meshes: dict[str, _Mesh] = {}

    def look(self, host: Host) -> list[Signal]:
        """One signal for each mesh and kind of news, in order of the meshes' names."""
        now = time.monotonic()
        found: list[Signal] = []
        for mesh in store.meshes(host):
            memory = self._meshes.setdefault(mesh, _Mesh(compared_at=now))
            try:
                found += _news(host, mesh, memory, now)
                memory.error = None
            except (WgmeshError, OSError) as error:
                # If it were raised, Salt would fire an event without content each second.
                if memory.error != str(error):
                    memory.error = str(error)
                    log.warning("wgmesh %s: how its links are can't be told: %s", mesh, error)
        return found


MEMORY = Signals()
"""The process's: an imported module outlives those of Salt's loader."""


def _news(host: Host, mesh: str, memory: _Mesh, now: float) -> Iterator[Signal]:
    view = Store(host=host, mesh=mesh).view()
    if view is None:
        return
    report = linkfile.read(host, mesh)
    if report is None or not report.watched:
        memory.follower = memory.follower or Follower(host)
        memory.follower.look((i.name, peer) for i in view.interfaces for peer in i.peers)
        report = _from_counters(host, view, memory, now)
        if report.down.keys() != memory.routed:
            memory.routed = frozenset(report.down)
            # Nobody else does: the watcher is gone, and the master speaks to those whose view changes.
            apply.reroute(host, view)
    yield from _links(report, memory, now)
    yield from _drift(host, view, memory, now)


def _links(report: LinkReport, memory: _Mesh, now: float) -> Iterator[Signal]:
    bad = frozenset(n for n, link in report.links.items() if link.state in TROUBLE)
    down, up = ("link-down", "link-up") if report.watched else ("stale", "recovered")
    repeat = bool(bad) and now - memory.told_at > REPEAT
    if repeat or bad - memory.told:
        yield _signal(down, report.mesh, neighbours=sorted(bad if repeat else bad - memory.told), down=sorted(bad))
    # Who left the view has no link any more that could be back.
    back = (memory.told - bad) & report.links.keys()
    if back:
        yield _signal(up, report.mesh, neighbours=sorted(back), down=sorted(bad))
    if repeat or bad != memory.told:
        memory.told, memory.told_at = bad, now


def _drift(host: Host, view: View, memory: _Mesh, now: float) -> Iterator[Signal]:
    """Told when it is seen twice: an apply may be under way. The comparison takes no lock and changes nothing."""
    if now - memory.compared_at < DRIFT_EVERY:
        return
    memory.compared_at = now
    try:
        seen = (*apply.apply(host, view, dry_run=True).lines, *_between(view), *_moved(host))
    except (WgmeshError, OSError) as error:
        seen = (str(error),)
    lasting, memory.drift = bool(seen) and seen == memory.drift, seen
    if not seen:
        memory.drift_told_at = None
    elif lasting and (memory.drift_told_at is None or now - memory.drift_told_at > REPEAT):
        memory.drift_told_at = now
        yield _signal("drift", view.mesh, changes=list(seen[:DRIFT_LINES]))


def _between(view: View) -> Iterator[str]:
    """That an apply died on the way to other names: what the master has acknowledged of this node is another view."""
    if others := renaming.unfinished(view):
        yield f"interfaces: not named after the access interface: {', '.join(others)}"


def _moved(host: Host) -> Iterator[str]:
    """That this node has other addresses than it published, if it has: those who open connections to it use them."""
    told, now = store.told_underlay(host), facts.underlay(host)
    if told not in (None, now):
        yield f"facts: underlay {', '.join(told)} -> {', '.join(now)}"


def _signal(kind: str, mesh: str, **fields: Any) -> Signal:
    return {"tag": kind, "mesh": mesh, **fields}


def _from_counters(host: Host, view: View, memory: _Mesh, now: float) -> LinkReport:
    """Where no watcher runs: WireGuard's own counters, and the file says what they say."""
    stats = {}
    for device, dumped in wgtext.parse_dump(host.run("wg", "show", "all", "dump")).items():
        stats.update({(device, s.public_key): s for s in dumped.stats})
    links: dict[str, Link] = {}
    for interface in view.interfaces:
        for peer in interface.peers:
            key = interface.name, peer.public_key
            # Of a neighbour with two keys, both: it runs one.
            listed = [stats[interface.name, k] for k in peer.keys if (interface.name, k) in stats]
            seen = sum(s.received for s in listed), sum(s.sent for s in listed)
            if not listed:
                memory.peers.pop(key, None)
                continue
            before = memory.peers.get(key) or stale.Peer(received=seen[0], sent=seen[1])
            memory.peers[key] = before.seen(*seen, now)
            links[peer.node] = _link(peer.node, interface.name, memory, memory.peers[key].stale(now))
    report = LinkReport(mesh=view.mesh, watched=False, links=MappingProxyType(dict(sorted(links.items()))))
    _keep(host, report, memory, now)
    return report


def _link(node: str, interface: str, memory: _Mesh, is_stale: bool) -> Link:
    if is_stale:
        memory.since.setdefault(node, time.time())
    else:
        memory.since.pop(node, None)
    state = LinkState.DOWN if is_stale else LinkState.UP
    return Link(neighbour=node, interface=interface, state=state, since=memory.since.get(node, 0.0))


def _keep(host: Host, report: LinkReport, memory: _Mesh, now: float) -> None:
    if now - memory.written_at > ALIVE_EVERY or linkfile.read(host, report.mesh) != report:
        linkfile.write(host, report)
        memory.written_at = now


def links(host: Host) -> dict[str, Mapping[str, Any]]:
    """Mesh → the report of its links, of the watcher or else of the beacon; without either it is empty."""
    found: dict[str, Mapping[str, Any]] = {}
    for mesh in store.meshes(host):
        report = linkfile.read(host, mesh) or LinkReport(mesh=mesh, watched=False)
        found[mesh] = report.as_dict()
    return found
