"""The watcher: a program that finds dead links in a fraction of a second and routes around them.

Run as ``python -I -m saltext_wgmesh.minion.watch``; with ``--supervise`` it is started again whenever it ends. It knows
no Salt and no master: it reads the views that were applied on this node, speaks BFD with each neighbour, has the
kernel's routes follow, and says how the links are in a file. When it dies the routes stay as they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import importlib.metadata
import json
import logging
import os
import random
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from saltext_wgmesh.core import bfd, names
from saltext_wgmesh.core.device import family_of
from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.minion import linkfile, meshwatch, unjudged
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.meshwatch import MeshWatch
from saltext_wgmesh.minion.sockets import Received, Udp, canonical
from saltext_wgmesh.minion.watched import Watched

log = logging.getLogger("wgmesh.watch")

TEND_EVERY = 0.2
"""Seconds between looks at views, graces and probes."""
MEND_EVERY = 10.0
ALIVE_EVERY = 5.0
RESTART_AFTER = 1.0
COMMAND = (sys.executable, "-I", "-m", "saltext_wgmesh.minion.watch")
"""Isolated: neither the folder in which it is started nor PYTHONPATH has a say in what is imported."""
DRAIN = 1024
"""Packets that are read from a socket before anything else is done."""
LOCK = "watch.lock"
SUPERVISOR_LOCK = "supervise.lock"
LOG = "watch.log"
LOG_SIZE = 1_000_000
"""Bytes from which on a log is put aside at the next start."""
AUTOGROUP = Path("/proc/self/autogroup")
PRIORITY = -15
"""As of nice(1): on a busy node our own lateness would look like dead links."""
PID = "watch.pid"
"""Who holds the lock: process id and version of the package, as JSON."""


@dataclass(slots=True)
class _Family:
    """The sockets of one address family."""

    sender: Udp
    reflector: Udp | None = None
    """None while another program has the port."""
    listeners: dict[int, Udp] = field(default_factory=dict)
    """By index of the interface."""


class Watcher:
    """All meshes of this node."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.meshes: dict[str, MeshWatch] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        """Mesh → what its view file was when it was read last."""
        self._families: dict[int, _Family] = {}
        self._selector = selectors.DefaultSelector()
        self._by_discriminator: dict[int, tuple[MeshWatch, Watched]] = {}
        self._by_address: dict[tuple[int, str], tuple[MeshWatch, Watched]] = {}
        self._timers: list[tuple[float, int]] = []
        """When to tick which session (its discriminator); entries that were overtaken are skipped."""
        self._mended = self._alive = time.monotonic()
        self._is_deaf = False
        """Whether another program had a port that we want."""
        self._judging: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Watch until the process is ended."""
        next_tend = 0.0
        while True:
            first = min(next_tend, self._timers[0][0] if self._timers else next_tend)
            ready = self._selector.select(max(0.0, first - time.monotonic()))
            # Whatever has come is heard before anybody's time is up: our own delay is no verdict on others.
            for key, _ in ready:
                key.data()
            now = time.monotonic()
            self._tick(now)
            if now >= next_tend:
                self._tend(now)
                next_tend = time.monotonic() + TEND_EVERY

    # -- views ------------------------------------------------------------------------------------------

    def _tend(self, now: float) -> None:
        if self._reload():
            self._index(now)
        for mesh in self.meshes.values():
            if mesh.rest(now):
                for link in mesh.links.values():
                    self._follow(mesh, link, now)
            indices = mesh.indices
            mesh.tend(now)
            if mesh.indices != indices:
                self._index(now)
        if now - self._mended > MEND_EVERY:
            self._mended = now
            for mesh in self.meshes.values():
                mesh.mend()
            if self._is_deaf:
                self._index(now)
        if now - self._alive > ALIVE_EVERY:
            self._alive = now
            self._have_judged()
            for mesh in self.meshes.values():
                # Whole: after a leap of the clock the beacon took us for dead, and wrote what it knew.
                mesh.dirty = True
        self._probe(now)

    def _have_judged(self) -> None:
        """Applies that died are judged, by a process of their own: this one has to watch."""
        if self._judging is not None and self._judging.poll() is None:
            return
        try:
            found = unjudged.left(self.host)
            self._judging = unjudged.judge(found) if found else None
        except OSError as error:
            log.warning("whether an apply died nobody can tell or judge now: %s", error)

    def _reload(self) -> bool:
        """Each view that is new or another than before is adopted; whether there was one, or one is gone."""
        found = dict(_views(self.host))
        changed = False
        for name in self.meshes.keys() - found.keys():
            log.info("%s: there is no view any more", name)
            self.meshes.pop(name).end()
            del self._seen[name]
            linkfile.remove(self.host, name)
            changed = True
        for name, (path, stamp) in found.items():
            if self._seen.get(name) == stamp:
                continue
            self._seen[name] = stamp
            try:
                view = meshwatch.read_view(path.read_text())
            except (OSError, ValueError, ViewError) as error:
                log.warning("%s: %s can't be read: %s", name, path, error)
                continue
            if name in self.meshes:
                self.meshes[name].update(view)
            else:
                self.meshes[name] = MeshWatch(self.host, view)
            log.info("%s: watching %d links", name, len(self.meshes[name].links))
            changed = True
        return changed

    def _index(self, now: float) -> None:
        """Every link is found by its discriminator and by where it is heard, and has its timer and sockets."""
        self._by_discriminator = {}
        self._by_address = {}
        wanted: dict[int, dict[int, str]] = {}
        for mesh in self.meshes.values():
            for link in mesh.links.values():
                self._by_discriminator[link.session.discriminator] = mesh, link
                index = mesh.indices.get(link.interface.name)
                if index is not None:
                    self._by_address[index, canonical(link.peer.address)] = mesh, link
                    wanted.setdefault(family_of(link.peer.address), {})[index] = link.interface.name
                self._schedule(link)
        self._is_deaf = False
        for number, devices in wanted.items():
            self._listen(number, devices)

    def _listen(self, number: int, devices: dict[int, str]) -> None:
        """There is a listener on each of *devices*, and no other of this family."""
        if number not in self._families:
            self._families[number] = _Family(sender=Udp(number))
            self._register(self._families[number].sender, self._echo)
        family = self._families[number]
        if family.reflector is None and (reflector := self._opened(number, names.SBFD_PORT)):
            family.reflector = reflector
            self._register(reflector, lambda got: self._reflect(number, got))
        for index in family.listeners.keys() - devices.keys():
            gone = family.listeners.pop(index)
            self._selector.unregister(gone)
            gone.close()
        for index, device in devices.items():
            if index not in family.listeners and (listener := self._opened(number, names.BFD_PORT, device)):
                family.listeners[index] = listener
                self._register(listener, self._hear)

    def _opened(self, number: int, port: int, device: str | None = None) -> Udp | None:
        """A socket; None, until it is tried again, while another program has the port."""
        try:
            return Udp(number, port, device)
        except OSError as error:
            log.warning("UDP port %d on %s can't be heard: %s", port, device or "all devices", error)
            self._is_deaf = True
            return None

    def _register(self, udp: Udp, heed) -> None:  # type: ignore[no-untyped-def]
        def drain() -> None:
            for _ in range(DRAIN):
                got = udp.receive()
                if got is None:
                    return
                heed(got)

        self._selector.register(udp, selectors.EVENT_READ, drain)

    # -- packets ----------------------------------------------------------------------------------------

    def _hear(self, got: Received) -> None:
        """A control packet (RFC 5880 section 6.8.6)."""
        if got.ttl != names.BFD_TTL:
            return
        try:
            packet = bfd.decode(got.data)
        except bfd.BfdError:
            return
        place = self._session_of(packet, got)
        if place is None:
            return
        mesh, link = place
        now = time.monotonic()
        answer = link.session.receive(packet, now)
        if answer is not None:
            self._send(mesh, link, answer)
        self._follow(mesh, link, now)

    def _session_of(self, packet: bfd.Packet, got: Received) -> tuple[MeshWatch, Watched] | None:
        """By the discriminator, once the other end knows it (section 6.8.6): its address may change meanwhile."""
        if not packet.your_discriminator:
            return self._by_address.get((got.interface, got.source))
        place = self._by_discriminator.get(packet.your_discriminator)
        return place if place and place[0].indices.get(place[1].interface.name) == got.interface else None

    def _tick(self, now: float) -> None:
        """Every session whose time has come ticks."""
        while self._timers and self._timers[0][0] <= now:
            due, number = heapq.heappop(self._timers)
            place = self._by_discriminator.get(number)
            if place is None or place[1].scheduled != due:
                continue
            mesh, link = place
            link.scheduled = float("inf")
            packet = link.session.tick(now, random.random())
            if packet is not None:
                self._send(mesh, link, packet)
            self._follow(mesh, link, now)

    def _follow(self, mesh: MeshWatch, link: Watched, now: float) -> None:
        if mesh.judge(link, now):
            mesh.steer()
        self._schedule(link)

    def _schedule(self, link: Watched) -> None:
        due = link.session.next_at()
        if due < link.scheduled:
            link.scheduled = due
            heapq.heappush(self._timers, (due, link.session.discriminator))

    def _send(self, mesh: MeshWatch, link: Watched, packet: bfd.Packet) -> None:
        index = mesh.indices.get(link.interface.name)
        if index is None:
            return
        family = self._families[family_of(link.peer.address)]
        # What can't be sent is as good as lost.
        with contextlib.suppress(OSError):
            family.sender.send(packet.encode(), (link.peer.address, names.BFD_PORT), mesh.source, index)

    # -- probes through relays ----------------------------------------------------------------------------

    def _probe(self, now: float) -> None:
        for mesh in self.meshes.values():
            for link, target in mesh.probes(now):
                packet = bfd.Packet(
                    state=bfd.State.UP,
                    demand=True,
                    multiplier=meshwatch.PROBES,
                    my_discriminator=link.session.discriminator,
                    your_discriminator=meshwatch.discriminator(target.peer.address),
                    desired_min_tx=int(meshwatch.PROBE_EVERY * 1e6),
                    required_min_rx=0,
                )
                family = self._families[family_of(target.peer.address)]
                index = mesh.indices.get(link.interface.name, 0)
                with contextlib.suppress(OSError):
                    family.sender.send(packet.encode(), (target.peer.address, names.SBFD_PORT), mesh.source, index)

    def _reflect(self, number: int, got: Received) -> None:
        """A probe that is for us is answered, by whatever way leads back (RFC 7880 section 7.2)."""
        mesh = next((m for m in self.meshes.values() if got.interface in m.indices.values()), None)
        with contextlib.suppress(bfd.BfdError, OSError):
            packet, reflector = bfd.decode(got.data), self._families[number].reflector
            if (
                mesh
                and reflector
                and packet.your_discriminator == meshwatch.discriminator(got.destination)
                and packet.demand
            ):
                answer = bfd.reflect(packet).encode()
                reflector.send(answer, (got.source, got.port), got.destination)

    def _echo(self, got: Received) -> None:
        """A probe of ours came back."""
        with contextlib.suppress(bfd.BfdError):
            place = self._by_discriminator.get(bfd.decode(got.data).your_discriminator)
            if place is not None and got.port == names.SBFD_PORT:
                place[1].echoed = time.monotonic()


def _views(host: Host) -> Iterator[tuple[str, tuple[Path, tuple[int, int]]]]:
    for path in sorted(host.state_dir.glob("*/view.json")):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield path.parent.name, (path, (status.st_mtime_ns, status.st_ino))


@contextlib.contextmanager
def alone(host: Host, name: str = LOCK) -> Iterator[bool]:
    """Whether no other watcher runs on this node (or whoever has the lock *name*); none begins until the end of the
    block."""
    host.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(host.run_dir / name, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def supervise(host: Host) -> None:
    """A watcher runs, again and again, until this process is ended; what it says is in a file, where no journal is."""
    path = host.run_dir / LOG
    while True:
        if path.exists() and path.stat().st_size > LOG_SIZE:
            path.replace(path.with_suffix(".log.1"))
        with open(path, "ab") as log_file:
            subprocess.run(COMMAND, check=False, stdout=log_file, stderr=log_file)
        time.sleep(RESTART_AFTER)


def main() -> int:
    """Watch, unless another does already; the exit status."""
    host = Host()
    if "--supervise" in sys.argv[1:]:
        with alone(host, SUPERVISOR_LOCK) as free:
            if free:
                supervise(host)
        return 0
    # The journal has the time itself (systemd.exec(5), JOURNAL_STREAM).
    time_of_day = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    logging.basicConfig(level=logging.INFO, format=f"{time_of_day}%(message)s", stream=sys.stderr)
    with alone(host) as free:
        if not free:
            print("another watcher runs on this node", file=sys.stderr)
            return 0
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
            # Where sessions are scheduled against each other, this is what counts (sched(7), autogroup).
            AUTOGROUP.write_text(str(PRIORITY))
        told = {"pid": os.getpid(), "version": importlib.metadata.version("saltext-wgmesh")}
        with contextlib.suppress(OSError):
            (host.run_dir / PID).write_text(json.dumps(told))
        Watcher(host).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
