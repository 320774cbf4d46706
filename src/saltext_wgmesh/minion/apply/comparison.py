"""One mesh on this node, and how it differs from a view. Only this module reads both the kernel and a view."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device import desired, route_selection, tolerated
from saltext_wgmesh.core.device.descriptions import refused_rules_text
from saltext_wgmesh.core.device.diff import Change, RouteChange, diff
from saltext_wgmesh.core.device.state import KernelState
from saltext_wgmesh.core.liveness.link_report import NEVER_UP, LinkReport, LinkState
from saltext_wgmesh.core.model.view import Kind, View
from saltext_wgmesh.core.transition.interface_rename import interface_renames
from saltext_wgmesh.minion.apply import preconditions
from saltext_wgmesh.minion.apply.timeouts import DEFAULT, Timeouts
from saltext_wgmesh.minion.state import keys, link_report_file
from saltext_wgmesh.minion.state.store import Owned, Store
from saltext_wgmesh.minion.system import kernel
from saltext_wgmesh.minion.system.host import Host

log = logging.getLogger(__name__)

KEY_PLACEHOLDER = "(not made yet)"
"""The public key in a dry run on a node without a key."""
WATCHER_SETTLE = 0.5
"""Seconds within which the watcher has reported why it moved a route."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A node's kernel beside what a view asks of it, at one moment."""

    actual: KernelState
    desired: KernelState
    """Exactly as the view says."""
    effective: KernelState
    """The desired state, but with the endpoints of peers that are reachable where they are now."""
    at_boot: KernelState
    """The desired state as the boot files restore it, without knowledge of the links."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """The changes that an apply of the view makes."""
        return diff(self.actual, self.effective)

    @property
    def route_moves(self) -> tuple[Change, ...]:
        """Those of the changes by which a route takes another path."""
        return tuple(change for change in self.changes if _is_route_move(change))

    @property
    def unmet(self) -> tuple[Change, ...]:
        """The changes that the desired state still lacks. Any endpoint will do: peers may roam at any moment."""
        return diff(self.actual, tolerated.ignore_endpoints(self.desired, self.actual))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMesh:
    """One mesh on this node: what the kernel holds of it, and what the node keeps of it on disk."""

    host: Host
    mesh: str
    timeouts: Timeouts = DEFAULT

    @property
    def store(self) -> Store:
        """The state of the mesh on disk."""
        return Store(host=self.host, mesh=self.mesh)

    @property
    def watcher_is_alive(self) -> bool:
        """Whether a watcher watches the mesh: it can hold links down, and reports whether they are up."""
        return link_report_file.watcher_is_alive(self.host, self.mesh)

    def kernel_state(self) -> KernelState:
        """Return what the kernel holds of the mesh, without kernel settings: these have no value to go back to."""
        return self._state_in(kernel.snapshot(self.host), self.store.owned(), ())

    def compare(self, view: View, *, endpoints_set_by: View | None = None, when_stable: bool = False) -> Comparison:
        """Compare this node with *view*. HostError if a device of the view's is foreign.

        *endpoints_set_by* is the view whose endpoints the peers were given last; by default the applied one. A peer
        that has another endpoint than that has roamed. *when_stable* compares again if the watcher is just moving
        routes: it moves a route a moment before it reports why.
        """
        applied = self.store.view()
        found = self._compare(view, endpoints_set_by or applied, applied)
        only_moves = found.changes and found.changes == found.route_moves
        if when_stable and only_moves and self.watcher_is_alive and applied == view:
            time.sleep(WATCHER_SETTLE)
            found = self._compare(view, endpoints_set_by or applied, applied)
        return found

    def _compare(self, view: View, endpoints_set_by: View | None, applied: View | None) -> Comparison:
        host, owned = self.host, self.store.owned()
        public_key = keys.key_to_run(host, view.activate_key) or KEY_PLACEHOLDER
        local = desired.LocalNode(
            public_key=public_key,
            families=frozenset({4, 6} if host.has_ipv6 else {4}),
            advertised=kernel.ra_default_devices(host) if view.forward else (),
        )
        snapshot = kernel.snapshot(host, rules=_may_have_trunk(owned, view))
        preconditions.refuse_foreign_devices(self.store, view, snapshot)
        # The report is read after the kernel: an older report would undo what the watcher has moved in between.
        report = link_report_file.read_report(host, self.mesh)
        target = desired.desired_state(view, _routes_by_links(view, report, interface_renames(applied, view)), local)
        actual = self._state_in(snapshot, owned | Owned.by(view), [key for key, _ in target.sysctls])
        if refused := snapshot.refused_rules.intersection(target.rules):
            log.warning("%s: %s", self.mesh, refused_rules_text(refused))
            target = replace(target, rules=tuple(rule for rule in target.rules if rule not in refused))
        target = tolerated.follow_active_key(target, actual, view)
        if view.activate_key != public_key:
            # Interfaces run an orphaned key until the view activates the new one: neighbours may not accept it yet.
            target = tolerated.tolerate_running_key(target, actual, keys.orphaned_key(host), view)
        answering = _recently_handshaken(snapshot, actual)
        endpoints = desired.view_endpoints(endpoints_set_by) if endpoints_set_by else {}
        effective = tolerated.tolerate_roaming(target, actual, answering, endpoints, _peers_up(view, report))
        # A device with another name is created: its peers start with the endpoints that they have under the old name.
        effective = tolerated.carry_endpoints_over(
            effective, actual, interface_renames(endpoints_set_by, view), answering, endpoints
        )
        # While a key is being activated the node boots with the old one, until all its interfaces run the next one.
        booting = replace(local, public_key=keys.public_key(host) or public_key)
        at_boot = desired.desired_state(view, route_selection.select_routes(view), booting)
        return Comparison(actual=actual, desired=target, effective=effective, at_boot=at_boot)

    def _state_in(self, snapshot: kernel.Snapshot, owned: Owned, sysctls: Iterable[str]) -> KernelState:
        return kernel.mesh_state(self.host, snapshot, self.mesh, owned.interfaces, owned.prefixes, sysctls)


def _is_route_move(change: Change) -> bool:
    return isinstance(change, RouteChange) and bool(change.old and change.new)


def _may_have_trunk(owned: Owned, view: View) -> bool:
    """Return whether the mesh has a trunk here, or had one that an apply did not remove yet: only trunks have rules."""
    return any(map(constants.may_be_trunk, owned.interfaces)) or any(i.kind is Kind.TRUNK for i in view.interfaces)


def _recently_handshaken(snapshot: kernel.Snapshot, actual: KernelState) -> set[desired.PeerKey]:
    """Return the peers whose session is alive, so that their endpoint is proven."""
    now = time.time()
    return {
        (s.device, s.public_key)
        for s in snapshot.stats(d.name for d in actual.devices)
        # A handshake in the future was made while the clock was ahead, and proves nothing.
        if s.handshake_at is not None and -1 <= now - s.handshake_at < constants.REJECT_AFTER_TIME
    }


def _routes_by_links(
    view: View, report: LinkReport | None, new_names: Mapping[str, str]
) -> tuple[route_selection.KernelRoute, ...]:
    """Return the routes of *view* by the links that are up in *report*; without a report, those by the first choices.

    A link that the report lacks is not used yet: it must be created first. The same holds for a link that the report
    has on another interface. *new_names* are the interfaces that *view* renames, old to new.
    """
    if report is None:
        return route_selection.select_routes(view)
    known = {(n, new_names.get(link.interface, link.interface)) for n, link in report.links.items()}
    unknown = {p.node for i in view.interfaces for p in i.peers if (p.node, i.name) not in known}
    return route_selection.select_routes(view, {**dict.fromkeys(unknown, NEVER_UP), **report.down}, report.blackholed)


def _peers_up(view: View, report: LinkReport | None) -> frozenset[desired.PeerKey]:
    """Return the peers whose links the watcher reports as up."""
    up = (
        {n for n, link in report.links.items() if link.state is LinkState.UP}
        if report and report.from_watcher
        else set()
    )
    return frozenset((i.name, p.public_key) for i in view.interfaces for p in i.peers if p.node in up)
