"""Gets a fresh WireGuard handshake with a neighbour whose link is down, by removing its peer and adding it again."""

from __future__ import annotations

import contextlib
import logging
import random
import subprocess
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Protocol

from saltext_wgmesh.core.device import desired, wg_cli
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.state import keys, psk_files
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.host import Host, environment
from saltext_wgmesh.minion.system.peer_keys import PeerKeyTracker
from saltext_wgmesh.minion.watcher.error_log import ErrorLog
from saltext_wgmesh.minion.watcher.link import MonitoredLink
from saltext_wgmesh.minion.watcher.slices import Steps, read_aside

log = logging.getLogger("wgmesh.watch")

REHANDSHAKE_AFTER = (2.0, 5.0, 15.0)
"""Seconds after a link went down at which its peer is removed and added again. Two packets of the BFD session are sent
before the first of them, one a second (RFC 5880 section 6.8.3): after a short interruption of the path one arrives."""
CALLER_REHANDSHAKE_AFTER = (3.0, 10.0, 25.0)
"""The same for a neighbour that only calls. It calls again at its own attempts, so those of this end are in between."""
REHANDSHAKE_EVERY = 30.0
"""Seconds between two later attempts."""
ATTEMPT_TIMEOUT = 25.0
"""Seconds after which a ``wg set`` that has not ended is ended: less than the time to the next attempt but two. A name
that is resolved takes less (``DNS_RETRIES``)."""
STOP_TIMEOUT = 1.0
"""Seconds to wait for all processes that were killed."""
REREAD_AFTER = 1.0
"""Seconds for which the view before is not read again."""


class Process(Protocol):
    """The part of ``subprocess.Popen`` that is needed here."""

    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A process that removes and adds one peer."""

    process: Process
    until: float
    """When it is ended, of the monotonic clock."""


def spawn(command: Sequence[str]) -> Process:
    """Start *command* without any of our pipes; OSError if that fails."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )


class Rehandshaker:
    """The attempts for one view, and the processes that still run for them.

    No process is waited for: a name in an endpoint may take long to be resolved. A neighbour has one process at most,
    for ATTEMPT_TIMEOUT. *start*, *choose* and *clock* stand for ``spawn``, ``random.choice`` and ``time.monotonic`` in
    tests.
    """

    def __init__(
        self,
        host: Host,
        view: View,
        peer_keys: PeerKeyTracker,
        *,
        start: Callable[[Sequence[str]], Process] = spawn,
        choose: Callable[[Sequence[str | None]], str | None] = random.choice,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._view = view
        self._store = Store(host=host, mesh=view.mesh)
        self._peer_keys = peer_keys
        self._start = start
        self._choose = choose
        self._clock = clock
        self._attempts: dict[str, _Attempt] = {}
        """Neighbour → the process that still runs for it."""
        self._is_stopped = False
        self._errors = ErrorLog(log)
        self._before: psk_files.PreviousPeers | None = None
        self._before_at = float("-inf")
        """When *_before* was read, of the monotonic clock."""

    def maintain(self, link: MonitoredLink, now: float, devices: Set[str]) -> None:
        """Remove and add the peer of *link* if an attempt is due at *now*.

        *devices* are the interfaces of the view that exist.
        """
        if self._is_stopped:
            return
        # A new link too: its first handshake may have come before the other end had this node as a peer. In state Init
        # packets arrive, so both ends have a session of WireGuard: a new one would interrupt it and repair nothing.
        is_dead = link.state in (LinkState.DOWN, LinkState.NEW) and link.session.state is bfd.BfdState.DOWN
        if is_dead and now - link.down_since >= _rehandshake_due(link) and not self._is_trying(link):
            self._readd_peer(link, devices, now)

    def _is_trying(self, link: MonitoredLink) -> bool:
        attempt = self._attempts.get(link.name)
        return attempt is not None and attempt.process.poll() is None

    def reap(self) -> None:
        """Forget the processes that have ended, and end those that have run for ATTEMPT_TIMEOUT."""
        now = self._clock()
        # One that was ended counts until the kernel lets go of it: a neighbour has one process at most.
        self._attempts = {name: each for name, each in self._attempts.items() if each.process.poll() is None}
        for each in self._attempts.values():
            if now >= each.until:
                each.process.kill()

    def stop_steps(self) -> Steps[None]:
        """End all processes, and start no further ones.

        One that still resolves a name would add a peer that the next view may not have.
        """
        self._is_stopped = True
        processes, self._attempts = [each.process for each in self._attempts.values()], {}
        for each in processes:
            each.kill()
        if processes:
            yield from read_aside(self._await_all, processes)

    def _await_all(self, processes: Sequence[Process]) -> None:
        end = self._clock() + STOP_TIMEOUT
        for each in processes:
            # The kernel may hold one back. It does nothing any longer when it is let go.
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.wait(max(0.0, end - self._clock()))

    def _readd_peer(self, link: MonitoredLink, devices: Set[str], now: float) -> None:
        """Start a ``wg set`` that removes and adds the peer of *link*: its next packet begins a handshake, whatever
        state both ends are in.

        A peer without an endpoint calls again by itself. It must be added again too: WireGuard refuses a handshake
        with an earlier time than the last one had (whitepaper, section 5.1), until the peer is added again. A node
        whose clock was ahead would stay away until its clock gets there.
        """
        link.rehandshakes += 1
        try:
            arguments = self._readd_arguments(link, now)
            if link.interface.name in devices:
                process = self._start(("wg", "set", link.interface.name, *arguments))
                self._attempts[link.name] = _Attempt(process, self._clock() + ATTEMPT_TIMEOUT)
        except (HostError, OSError) as error:
            self._errors.failed("%s: peers cannot be added again", self._view.mesh, error)

    def _readd_arguments(self, link: MonitoredLink, now: float) -> tuple[str, ...]:
        """Arguments of ``wg set`` for this attempt."""
        if now - self._before_at > REREAD_AFTER:
            # Once for all links that are down now: the view before has a peer for each of them.
            self._before, self._before_at = psk_files.previous_peers(self._store), now
        if link.peer.endpoint is None:
            return self._caller_arguments(link)
        peer, folder = link.peer, self._store.key_paths.psk_folder
        own = keys.key_to_run(self._host, self._view.activate_key) or ""
        # A neighbour with two keys may run either. The attempts take turns.
        key = self._peer_keys.try_other_key(link.interface.name, peer) if peer.next_key else peer.public_key
        psk_id = self._psk(link, own, key)
        arguments: tuple[str, ...] = ()
        places = (link.peer.endpoint, *peer.other_endpoints)
        # Each place is tried with each key: if both took turns at each attempt, some pairs would never be tried.
        endpoint = places[(link.rehandshakes - 1) // len(peer.keys) % len(places)]
        for config in desired.peer_configs(peer, key):
            chosen = replace(config, psk_id=psk_id, endpoint=endpoint)
            if config.public_key != key:
                arguments = (*arguments, "peer", config.public_key, "persistent-keepalive", "0")
            else:
                arguments = (*arguments, *wg_cli.remove_peer(key), *wg_cli.add_peer(chosen, folder))
                arguments += ("endpoint", endpoint) if wg_cli.is_host_name(endpoint) else ()
        return arguments

    def _caller_arguments(self, link: MonitoredLink) -> tuple[str, ...]:
        """Arguments of ``wg set`` that add the peer again with each of its keys: it decides which one it calls with."""
        peer, folder = link.peer, self._store.key_paths.psk_folder
        own = keys.key_to_run(self._host, self._view.activate_key) or ""
        active = self._peer_keys.active_key.get((link.interface.name, peer.node), peer.public_key)
        arguments: tuple[str, ...] = ()
        for config in desired.peer_configs(peer, active):
            chosen = replace(config, psk_id=self._psk(link, own, config.public_key))
            arguments += (*wg_cli.remove_peer(config.public_key), *wg_cli.add_peer(chosen, folder))
        return arguments

    def _psk(self, link: MonitoredLink, own: str, key: str) -> str | None:
        """The identifier of the preshared key of this attempt between the public keys *own* and *key*."""
        candidates = psk_files.candidate_psks(self._before, self._view, link.peer, (own, key))
        # Random after the first attempt: two ends that both alternate could miss each other for ever.
        return self._choose(candidates) if link.rehandshakes > 1 else candidates[0]


def _rehandshake_due(link: MonitoredLink) -> float:
    """Seconds after the link went down at which the next attempt is due."""
    first = REHANDSHAKE_AFTER if link.peer.endpoint else CALLER_REHANDSHAKE_AFTER
    later = link.rehandshakes - len(first)
    return first[link.rehandshakes] if later < 0 else first[-1] + REHANDSHAKE_EVERY * (later + 1)
