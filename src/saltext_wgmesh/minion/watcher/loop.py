"""The watcher's loop: packets, timers, and what is done now and then for all meshes of this node."""

from __future__ import annotations

import contextlib
import gc
import heapq
import logging
import random
import selectors
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.link_report import MAX_FAULTS
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import journal
from saltext_wgmesh.minion.state import link_report_file
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import kernel_events
from saltext_wgmesh.minion.watcher.error_log import ErrorLog
from saltext_wgmesh.minion.watcher.link import MonitoredLink
from saltext_wgmesh.minion.watcher.mesh import MeshMonitor
from saltext_wgmesh.minion.watcher.relay_check import RelayCheck
from saltext_wgmesh.minion.watcher.slices import Steps, finish, in_slices
from saltext_wgmesh.minion.watcher.transport import Transport
from saltext_wgmesh.minion.watcher.view_reader import view_steps

log = logging.getLogger("wgmesh.watch")

MAINTAIN_EVERY = 0.2
"""Seconds between two checks of views, graces and probes."""
RECONCILE_EVERY = 10.0
"""Seconds between two comparisons with the kernel's routes."""
SLICE = 0.01
"""Seconds of other work between two looks for packets: a small part of the 0.3 s in which a link is found down."""
TIMERS_AT_ONCE = 100
"""Timers that are handled between two looks for packets."""
ROUTES_EVERY = 0.05
"""Seconds between two changes of routes at least, since each is a process. The first change after a pause is made at
once."""
COMMAND_POLL = 0.005
"""Seconds between two looks whether a program has ended."""
HEARTBEAT_EVERY = 5.0
"""Seconds between two writes of reports that have not changed: a report without a recent write is not trusted."""

FileStamp = tuple[int, int]
"""Time of the last change in nanoseconds, and inode."""


class Loop:
    """Monitors all meshes of this node.

    Packets and timers come first. All other work is done in slices between them, since a pause of a detection time
    would make healthy links look down at both ends. No program is waited for: work that needs one pauses until the
    program has ended, while packets, timers, probes and reports go on.
    """

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
        self._relay_check = RelayCheck(host)
        self._recovery: subprocess.Popen[bytes] | None = None
        """The process that recovers interrupted applies, if one was started."""
        self._deletions = kernel_events.listen(self._selector)
        self._routing: dict[str, Task] = {}
        """Mesh → how its routes follow links at this moment; none: all have followed."""
        self._maintenance: Task | None = None
        """The round of maintenance that is in progress. It waits for no program."""
        self._following: Task | None = None
        """The round in which views and the kernel are followed. It may wait for programs."""
        self._next_maintenance = self._next_following = self._next_routing = 0.0
        self._is_lookup_due = False
        """Whether the transport has to be told of links."""
        self._errors = ErrorLog(log)
        self._is_preparing = False

    def prepare(self) -> None:
        """Read all views and build their links. Nothing of the node changes: a former watcher still runs."""
        self._is_preparing = True
        finish(self._reload_steps())
        self._is_preparing = False

    def run(self, *, is_successor: bool) -> None:
        """Monitor what is prepared, and all later views, until the process is ended; *is_successor* as of ``begin``."""
        self.begin(is_successor=is_successor)
        while True:
            self.turn()

    def begin(self, *, is_successor: bool) -> None:
        """Open the sockets of what is prepared, before anything else: the neighbours wait.

        *is_successor*: a former watcher ran until this moment, so the neighbours have their sessions with it still.
        """
        now = time.monotonic()
        for mesh in self._meshes.values():
            mesh.begin(is_successor=is_successor)
            mesh.apply_admin_down(now)
        finish(self._lookup_steps())
        self._views_changed()

    def turn(self) -> None:
        """Handle the packets and timers that are due, and do one slice of all other work. Wait if there is none."""
        # Packets before timers: if this process was delayed, what has arrived proves its link before it expires.
        for key, _ in self._selector.select(self._pause()):
            key.data()
        now = time.monotonic()
        self._tick(now)
        # After the timers: a link that has just expired is routed around in the same turn.
        if now >= self._next_routing and (changed := self._changed_meshes):
            self._next_routing = now + ROUTES_EVERY
            self._routing |= {name: Task(self._meshes[name].route_steps()) for name in changed}
        if self._maintenance is None and now >= self._next_maintenance:
            self._maintenance = Task(self._maintenance_steps(now))
        if self._following is None and now >= self._next_following:
            self._following = Task(self._following_steps(now))
        # One slice for all tasks together, so that their number does not delay packets.
        end = time.monotonic() + SLICE
        self._routing = {name: task for name, task in self._routing.items() if not task.advance(end)}
        if self._maintenance is not None and self._maintenance.advance(end):
            self._maintenance, self._next_maintenance = None, time.monotonic() + MAINTAIN_EVERY
        if self._following is not None and self._following.advance(end):
            self._following, self._next_following = None, time.monotonic() + MAINTAIN_EVERY

    def _pause(self) -> float:
        """Seconds to wait for a packet."""
        now, rounds = time.monotonic(), (self._maintenance, self._following)
        tasks = [task for task in (*self._routing.values(), *rounds) if task is not None]
        if not all(task.is_waiting for task in tasks):
            return 0.0
        due = [self._timers[0][0]] if self._timers else []
        due += [self._next_routing] if self._changed_meshes else []
        due += [self._next_maintenance] if self._maintenance is None else []
        due += [self._next_following] if self._following is None else []
        due += [now + COMMAND_POLL] if tasks else []
        return max(0.0, min(due) - now)

    @property
    def _changed_meshes(self) -> list[str]:
        """The meshes whose routes have to follow their links, and do not do so at this moment."""
        return [name for name, mesh in self._meshes.items() if mesh.changed_links and name not in self._routing]

    # -- sessions ---------------------------------------------------------------------------------------

    def _on_packet(self, mesh: MeshMonitor, link: MonitoredLink, packet: bfd.Packet) -> None:
        """Handle a control packet for *link*."""
        now = time.monotonic()
        answer = link.receive(packet, now)
        if answer is not None:
            self._transport.send(mesh, link, answer)
        self._follow_session(mesh, link, now)

    def _tick(self, now: float) -> None:
        """Tick the sessions whose timers are due, some at a time: packets come in between."""
        for _ in range(TIMERS_AT_ONCE):
            if not self._timers or self._timers[0][0] > now:
                return
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
        """Have state and timer follow what has happened to the session of *link*; routes follow at the next turn."""
        mesh.evaluate(link, now)
        self._schedule(link)

    def _schedule(self, link: MonitoredLink) -> None:
        due = link.session.next_at()
        # A timer that moved to a later time stays: when the present one is due, the session finds nothing to do.
        if due < link.next_timer:
            link.next_timer = due
            heapq.heappush(self._timers, (due, link.session.discriminator))

    # -- now and then -----------------------------------------------------------------------------------

    def _maintain(self, now: float) -> None:
        """Do a whole round of everything at once."""
        finish(self._following_steps(now))
        finish(self._maintenance_steps(now))

    def _following_steps(self, now: float) -> Steps[None]:
        """Follow the views on disk, and what other programs do to routes and keys."""
        if (yield from self._reload_steps()):
            self._is_lookup_due = True
            self._views_changed()
        for mesh in tuple(self._meshes.values()):
            yield from mesh.follow_kernel_steps(now)
        yield from self._reconcile_steps(now)

    def _views_changed(self) -> None:
        # The garbage collector would walk all links of a view again and again, each time for longer than a slice.
        gc.freeze()
        self._relay_check.watch({name: mesh.view for name, mesh in self._meshes.items()})

    def _maintenance_steps(self, now: float) -> Steps[None]:
        self._transport.resume()
        for mesh_name, mesh in tuple(self._meshes.items()):
            host_faults = (*self._relay_check.faults(mesh_name), *self._transport.port_faults)
            mesh.note_faults((*host_faults, *mesh.verdict.path_faults(now))[:MAX_FAULTS])
            for name in mesh.apply_admin_down(now):
                self._follow_session(mesh, mesh.links[name], now)
            indices = mesh.indices
            yield from mesh.maintain_steps(now)
            self._is_lookup_due |= mesh.indices != indices
        if self._is_lookup_due:
            self._is_lookup_due = False
            yield from self._lookup_steps()
        if now - self._heartbeat_at > HEARTBEAT_EVERY:
            self._heartbeat_at = now
            self._recover_applies()
            for mesh in self._meshes.values():
                # The whole report: after a leap of the clock the beacon may have replaced it with its own.
                mesh.is_report_due = True
        for mesh in self._meshes.values():
            for link, target in mesh.verdict.probes(now):
                self._transport.send_probe(mesh, link, target)
            for link in mesh.verdict.echoes(now):
                self._transport.send_echo(mesh, link, now)
        self._transport.end_echoes(now)

    def _reconcile_steps(self, now: float) -> Steps[None]:
        """Restore routes and rules: at once when the kernel tells of a deletion, and now and then in any case."""
        is_due = now - self._reconciled_at > RECONCILE_EVERY
        rules, routes = self._deletions.rules, self._deletions.routes
        if not (is_due or rules or routes):
            return
        if not is_due and any(Store(host=self._host, mesh=name).is_locked() for name in self._meshes):
            # An apply deletes what its view does not have. The watcher has another look when it is done.
            return
        self._deletions.rules = self._deletions.routes = False
        for mesh in self._meshes.values():
            yield from mesh.reconcile_steps() if is_due or routes else mesh.reconcile_rules_steps()
        if is_due:
            self._reconciled_at = now
            self._is_lookup_due |= bool(self._transport.port_faults)

    def _lookup_steps(self) -> Steps[None]:
        """Have the transport know all links, and each session its timer."""
        meshes = tuple(self._meshes.values())
        yield from self._transport.lookup_steps(meshes)
        for mesh in meshes:
            yield from in_slices(mesh.links.values(), self._schedule)

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
            self._errors.failed("%s: interrupted applies cannot be found or recovered", self._host.state_dir, error)

    def _reload_steps(self) -> Steps[bool]:
        """Monitor each view that is new or has changed, and no mesh without one; return whether anything changed."""
        found = dict(_view_files(self._host))
        changed = False
        for name in self._meshes.keys() - found.keys():
            log.info("%s: the view was removed", name)
            self._routing.pop(name, None)
            del self._stamps[name]
            yield from self._meshes.pop(name).stop_steps()
            link_report_file.remove_report(self._host, name)
            changed = True
        for name, (path, stamp) in found.items():
            if self._stamps.get(name) != stamp:
                # Also if it cannot be read: it is logged once, and read again when the file changes.
                self._stamps[name] = stamp
                changed |= yield from self._reload_one_steps(name, path)
        return changed

    def _reload_one_steps(self, name: str, path: Path) -> Steps[bool]:
        try:
            view = yield from self._read_steps(name, path)
            yield from self._monitor_steps(view)
        except ViewError as error:
            log.warning("%s: %s cannot be read: %s", name, path, error)
            return False
        log.info("%s: watching %d links", name, len(self._meshes[name].links))
        return True

    def _read_steps(self, name: str, path: Path) -> Steps[View]:
        try:
            view = yield from view_steps(path.read_text())
        except (OSError, ValueError) as error:
            raise ViewError(str(error)) from error
        if view.mesh != name:
            raise ViewError(f"it is a view of {view.mesh!r}")
        return view

    def _monitor_steps(self, view: View) -> Steps[None]:
        """Monitor *view*. ViewError if its parts do not fit together: then the view before stays monitored."""
        known = self._meshes.get(view.mesh)
        if known:
            yield from known.update_steps(view)
            return
        self._meshes[view.mesh] = mesh = MeshMonitor(self._host, view, load=False)
        try:
            yield from mesh.load_steps(view)
        except ViewError:
            del self._meshes[view.mesh]
            raise
        if not self._is_preparing:
            mesh.begin()


@dataclass(slots=True)
class Task:
    """Work in slices that the loop does between packets."""

    steps: Steps[None]
    is_waiting: bool = False
    """Whether it waits for a command."""

    def advance(self, end: float) -> bool:
        """Take steps until *end* of the monotonic clock, or until one waits; return whether all are done."""
        self.is_waiting = False
        for waits_for in self.steps:
            self.is_waiting = waits_for is not None
            if self.is_waiting or time.monotonic() >= end:
                return False
        return True


def _view_files(host: Host) -> Iterator[tuple[str, tuple[Path, FileStamp]]]:
    """Mesh, and its view file with its stamp, sorted by mesh."""
    for path in sorted(host.state_dir.glob("*/view.json")):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield path.parent.name, (path, (status.st_mtime_ns, status.st_ino))
