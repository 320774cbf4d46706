"""Gets a fresh WireGuard handshake with a neighbour whose link is down, by removing its peer and adding it again."""

from __future__ import annotations

import logging
import random
import subprocess
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
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
from saltext_wgmesh.minion.watcher.link import MonitoredLink

log = logging.getLogger("wgmesh.watch")

REHANDSHAKE_AFTER = (2.0, 5.0, 15.0)
"""Seconds after a link went down at which its peer is removed and added again. Two packets of the BFD session are sent
before the first of them, one a second (RFC 5880 section 6.8.3): after a short interruption of the path one arrives."""
REHANDSHAKE_EVERY = 30.0
"""Seconds between two later attempts."""


class Process(Protocol):
    """The part of ``subprocess.Popen`` that is needed here."""

    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


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

    No process is waited for: a name in an endpoint may take long to be resolved. *start* and *choose* stand for
    ``spawn`` and ``random.choice`` in tests.
    """

    def __init__(
        self,
        host: Host,
        view: View,
        peer_keys: PeerKeyTracker,
        *,
        start: Callable[[Sequence[str]], Process] = spawn,
        choose: Callable[[Sequence[str | None]], str | None] = random.choice,
    ) -> None:
        self._host = host
        self._view = view
        self._peer_keys = peer_keys
        self._start = start
        self._choose = choose
        self._processes: list[Process] = []

    def maintain(self, link: MonitoredLink, now: float, devices: Set[str]) -> None:
        """Remove and add the peer of *link* if an attempt is due at *now*.

        *devices* are the interfaces of the view that exist.
        """
        # A new link too: its first handshake may have come before the other end had this node as a peer. In state Init
        # packets arrive, so both ends have a session of WireGuard: a new one would interrupt it and repair nothing.
        is_dead = link.state in (LinkState.DOWN, LinkState.NEW) and link.session.state is bfd.BfdState.DOWN
        if is_dead and now - link.down_since >= _rehandshake_due(link):
            self._readd_peer(link, devices)

    def reap(self) -> None:
        """Forget the processes that have ended."""
        self._processes = [process for process in self._processes if process.poll() is None]

    def stop(self) -> None:
        """End all processes: one that still resolves a name would add a peer that the next view may not have."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []

    def _readd_peer(self, link: MonitoredLink, devices: Set[str]) -> None:
        """Start a ``wg set`` that removes and adds the peer of *link*: its next packet begins a handshake, whatever
        state both ends are in.

        A peer without an endpoint cannot be called. It only gets the preshared key of this attempt.
        """
        link.rehandshakes += 1
        try:
            arguments = self._readd_arguments(link)
            if arguments and link.interface.name in devices:
                self._processes.append(self._start(("wg", "set", link.interface.name, *arguments)))
        except (HostError, OSError) as error:
            log.warning("%s: the peer %s cannot be added again: %s", self._view.mesh, link.name, error)

    def _readd_arguments(self, link: MonitoredLink) -> tuple[str, ...]:
        """Arguments of ``wg set`` for this attempt; empty if there is nothing to change."""
        peer, store = link.peer, Store(host=self._host, mesh=self._view.mesh)
        folder = store.key_paths.psk_folder
        own = keys.key_to_run(self._host, self._view.activate_key) or ""
        # A neighbour with two keys may run either. The attempts take turns, unless only the neighbour can call.
        has_two_keys = bool(peer.next_key and peer.endpoint)
        key = self._peer_keys.try_other_key(link.interface.name, peer) if has_two_keys else peer.public_key
        candidates = psk_files.candidate_psks(store, self._view, peer, (own, key))
        # Random after the first attempt: two ends that both alternate could miss each other for ever.
        psk_id = self._choose(candidates) if link.rehandshakes > 1 else candidates[0]
        arguments: tuple[str, ...] = ()
        for config in desired.peer_configs(peer, key):
            chosen = replace(config, psk_id=psk_id)
            if config.public_key != key:
                arguments = (*arguments, "peer", config.public_key, "persistent-keepalive", "0")
            elif peer.endpoint is None:
                return wg_cli.set_psk(chosen, folder) if len(candidates) > 1 else ()
            else:
                arguments = (*arguments, *wg_cli.remove_peer(key), *wg_cli.add_peer(chosen, folder))
                arguments += ("endpoint", peer.endpoint) if wg_cli.is_host_name(peer.endpoint) else ()
        return arguments


def _rehandshake_due(link: MonitoredLink) -> float:
    """Seconds after the link went down at which the next attempt is due."""
    later = link.rehandshakes - len(REHANDSHAKE_AFTER)
    if later < 0:
        return REHANDSHAKE_AFTER[link.rehandshakes]
    return REHANDSHAKE_AFTER[-1] + REHANDSHAKE_EVERY * (later + 1)
