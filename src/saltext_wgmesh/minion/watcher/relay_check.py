"""The relay's regular look at its own firewall and forwarding, in a thread: ``nft`` may take longer than a link may."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from saltext_wgmesh.core.errors import HostError, WgmeshError
from saltext_wgmesh.core.liveness.link_report import MAX_FAULT, MAX_FAULTS
from saltext_wgmesh.core.model.policy import Role
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system import relay_firewall
from saltext_wgmesh.minion.system.host import Host

log = logging.getLogger("wgmesh.watch")

CHECK_EVERY = 10.0
"""Seconds between two checks. A table that another program flushed is back within this time."""


class RelayCheck:
    """The faults of this node as a relay, by mesh; they are looked for in the background."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._views: Mapping[str, View] = {}
        self._faults: dict[str, tuple[str, ...]] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, views: Mapping[str, View]) -> None:
        """Check the relays among *views*, mesh → view, from now on. No thread runs on a node that is no relay."""
        self._views = {mesh: view for mesh, view in views.items() if view.role is Role.RELAY}
        if self._views and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="relay-check", daemon=True)
            self._thread.start()
        self._wake.set()

    def faults(self, mesh: str) -> tuple[str, ...]:
        """Return what was found last for *mesh*, in words; empty if nothing is wrong or nothing is known yet."""
        return self._faults.get(mesh, ()) if mesh in self._views else ()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            for mesh, view in self._views.items():
                try:
                    self.check(mesh, view)
                except (OSError, ValueError, WgmeshError) as error:
                    log.warning("%s: the relay cannot be checked: %s", mesh, error)
            self._wake.wait(CHECK_EVERY)

    def check(self, mesh: str, view: View) -> None:
        """Put the table of *view* back where it is missing, and take down what is wrong."""
        store = Store(host=self._host, mesh=mesh)
        if store.is_locked() or store.view() != view:
            # An apply or a removal is ahead of this thread, and decides on the table.
            return
        fault = self._table_fault(store, view)
        faults = (*([fault] if fault else []), *relay_firewall.forwarding_faults(self._host, view))
        # ``nft`` repeats the rules that it refuses, which may be long.
        found = tuple(each[:MAX_FAULT] for each in faults[:MAX_FAULTS])
        if found != self._faults.get(mesh, ()):
            for each in found:
                log.warning("%s: %s", mesh, each)
        self._faults[mesh] = found

    def _table_fault(self, store: Store, view: View) -> str | None:
        """Put the table of *view* back if it is missing; return in words why that failed, or None.

        The table is written under the lock of the mesh: an apply that begins after the look at the view must not find
        its own table replaced.
        """
        try:
            if relay_firewall.pending(self._host, view) is None:
                return None
        except HostError as error:
            return relay_firewall.tracked_fault(error)
        with store.locked():
            return relay_firewall.table_fault(self._host, view) if store.view() == view else None
