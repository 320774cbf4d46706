"""The watcher's loop: packets, timers, and what is done now and then for all meshes of this node."""

from __future__ import annotations

import contextlib
import heapq
import logging
import random
import selectors
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.minion.apply import journal
from saltext_wgmesh.minion.state import former_version, link_report_file
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher.link import MonitoredLink
from saltext_wgmesh.minion.watcher.mesh import MeshMonitor
from saltext_wgmesh.minion.watcher.transport import Transport

log = logging.getLogger("wgmesh.watch")

MAINTAIN_EVERY = 0.2
"""Seconds between two checks of views, graces and probes."""
RECONCILE_EVERY = 10.0
"""Seconds between two comparisons with the kernel's routes."""
HEARTBEAT_EVERY = 5.0
"""Seconds between two writes of reports that have not changed: a report without a recent write is not trusted."""

FileStamp = tuple[int, int]
"""Time of the last change in nanoseconds, and inode."""


class Loop:
    """Monitors all meshes of this node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._meshes: dict[str, MeshMonitor] = {}
        self._stamps: dict[str, FileStamp] = {}
        """Mesh → its view file as it was read last."""
        self._selector = selectors.DefaultSelector()
        self._transport = Transport(self._selector, self._on_packet)
        self._timers: list[tuple[float, int]] = []
        """A heap: when to tick which session (its discriminator). An entry that a later one has replaced is skipped."""
        self._reconciled_at = self._heartbeat_at = time.monotonic()
        self._recovery: subprocess.Popen[bytes] | None = None
        """The process that recovers interrupted applies, if one was started."""

    def run(self) -> None:
        """Monitor until the process is ended."""
        next_maintenance = 0.0
        while True:
            first = min(next_maintenance, self._timers[0][0] if self._timers else next_maintenance)
            ready = self._selector.select(max(0.0, first - time.monotonic()))
            # Packets before timers: if this process was delayed, what has arrived proves its link before it expires.
            for key, _ in ready:
                key.data()
            now = time.monotonic()
            self._tick(now)
            if now >= next_maintenance:
                self._maintain(now)
                next_maintenance = time.monotonic() + MAINTAIN_EVERY

    # -- sessions ---------------------------------------------------------------------------------------

    def _on_packet(self, mesh: MeshMonitor, link: MonitoredLink, packet: bfd.Packet) -> None:
        """Handle a control packet for *link*."""
        now = time.monotonic()
        answer = link.session.receive(packet, now)
        if answer is not None:
            self._transport.send(mesh, link, answer)
        self._follow_session(mesh, link, now)

    def _tick(self, now: float) -> None:
        """Tick each session whose timer is due."""
        while self._timers and self._timers[0][0] <= now:
            due, discriminator = heapq.heappop(self._timers)
            found = self._transport.link_of(discriminator)
            if found is None or found[1].next_timer != due:
                continue
            mesh, link = found
            link.next_timer = float("inf")
            packet = link.session.tick(now, random.random())
            if packet is not None:
                self._transport.send(mesh, link, packet)
            self._follow_session(mesh, link, now)

    def _follow_session(self, mesh: MeshMonitor, link: MonitoredLink, now: float) -> None:
        """Have state, routes and timer follow what has happened to the session of *link*."""
        if mesh.evaluate(link, now):
            mesh.update_routes()
        self._schedule(link)

    def _schedule(self, link: MonitoredLink) -> None:
        due = link.session.next_at()
        # A timer that moved to a later time stays: when the present one is due, the session finds nothing to do.
        if due < link.next_timer:
            link.next_timer = due
            heapq.heappush(self._timers, (due, link.session.discriminator))

    # -- now and then -----------------------------------------------------------------------------------

    def _maintain(self, now: float) -> None:
        if self._reload_views():
            self._rebuild_lookup()
        for mesh in self._meshes.values():
            if mesh.apply_admin_down(now):
                for link in mesh.links.values():
                    self._follow_session(mesh, link, now)
            indices = mesh.indices
            mesh.maintain(now)
            if mesh.indices != indices:
                self._rebuild_lookup()
        if now - self._reconciled_at > RECONCILE_EVERY:
            self._reconciled_at = now
            for mesh in self._meshes.values():
                mesh.reconcile_routes()
            if self._transport.ports_missing:
                self._rebuild_lookup()
        if now - self._heartbeat_at > HEARTBEAT_EVERY:
            self._heartbeat_at = now
            self._recover_applies()
            for mesh in self._meshes.values():
                # The whole report: after a leap of the clock the beacon may have replaced it with its own.
                mesh.is_report_due = True
        for mesh in self._meshes.values():
            for link, target in mesh.verdict.probes(now):
                self._transport.send_probe(mesh, link, target)

    def _rebuild_lookup(self) -> None:
        """Have the transport know all links, and each session its timer."""
        self._transport.rebuild_lookup(self._meshes.values())
        for mesh in self._meshes.values():
            for link in mesh.links.values():
                self._schedule(link)

    def _recover_applies(self) -> None:
        """Have interrupted applies recovered by a process of their own: a rollback takes longer than a link may wait.

        One such process runs at a time.
        """
        if self._recovery is not None and self._recovery.poll() is None:
            return
        try:
            interrupted = journal.interrupted(self._host)
            self._recovery = journal.spawn_recovery(interrupted) if interrupted else None
        except OSError as error:
            log.warning("interrupted applies cannot be found or recovered: %s", error)

    def _reload_views(self) -> bool:
        """Monitor each view that is new or has changed, and no mesh without one; return whether anything changed."""
        found = dict(_view_files(self._host))
        changed = False
        for name in self._meshes.keys() - found.keys():
            log.info("%s: the view was removed", name)
            self._meshes.pop(name).stop()
            del self._stamps[name]
            link_report_file.remove_report(self._host, name)
            changed = True
        for name, (path, stamp) in found.items():
            if self._stamps.get(name) == stamp:
                continue
            # Also if it cannot be read: it is logged once, and read again when the file changes.
            self._stamps[name] = stamp
            try:
                view = former_version.view_from_text(path.read_text())
            except (OSError, ValueError, ViewError) as error:
                log.warning("%s: %s cannot be read: %s", name, path, error)
                continue
            if name in self._meshes:
                self._meshes[name].update(view)
            else:
                self._meshes[name] = MeshMonitor(self._host, view)
            log.info("%s: watching %d links", name, len(self._meshes[name].links))
            changed = True
        return changed


def _view_files(host: Host) -> Iterator[tuple[str, tuple[Path, FileStamp]]]:
    """Mesh, and its view file with its stamp, sorted by mesh."""
    for path in sorted(host.state_dir.glob("*/view.json")):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield path.parent.name, (path, (status.st_mtime_ns, status.st_ino))
