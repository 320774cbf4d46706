"""Keeps the kernel's routes of one mesh in step with the state of its links."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Set
from itertools import groupby

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device import desired, ip_cli, route_selection
from saltext_wgmesh.core.device.state import MAIN_TABLE, RouteEntry
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.liveness.link_report import LinkReport
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.system import kernel
from saltext_wgmesh.minion.system.host import Host

log = logging.getLogger("wgmesh.watch")


class RouteUpdater:
    """The routes of one view. Only routes of the project's own protocol number are touched.

    *devices* are the interfaces of the view that exist now: a route over any other is left for later. A command that
    fails is logged and not repeated here. An apply may be changing the node, and the next reconciliation sets what is
    then missing.
    """

    def __init__(self, host: Host, view: View) -> None:
        self._host = host
        self._view = view
        self._candidates = route_selection.candidate_routes(view)
        self._entries: dict[tuple[int, str], RouteEntry] = {}
        """The routes as they were last set, by place."""
        self._blocked: dict[str, str] = {}
        """Prefix → the device of a foreign route, in whose place no route is set."""

    def desired_entries(self, report: LinkReport) -> Iterator[RouteEntry]:
        """The routes that the kernel should have while the links are as *report* says."""
        families = {4, 6} if self._host.has_ipv6 else {4}
        for route in route_selection.select(self._candidates, report.down, report.blackholed):
            if address_family(route.prefix) in families:
                yield desired.route_entry(self._view.mesh, route, self._view.addresses)

    def update_routes(self, report: LinkReport, devices: Set[str]) -> None:
        """Set the routes that differ from those set last. Reads nothing from the kernel, so it takes milliseconds."""
        self._replace((e for e in self.desired_entries(report) if self._entries.get(e.key) != e), devices)

    def reconcile_routes(self, report: LinkReport, devices: Set[str]) -> None:
        """Set the routes that differ from those of the kernel, since an apply, or another program, may change them."""
        try:
            live = {entry.key: entry for entry in self._live()}
            desired = list(self.desired_entries(report))
            self._find_blocked(e.prefix for e in desired if e.key not in live and e.table == MAIN_TABLE)
        except HostError as error:
            log.warning("%s: the kernel's routes cannot be read: %s", self._view.mesh, error)
            return
        self._entries = {e.key: live[e.key] for e in desired if e.key in live}
        self.update_routes(report, devices)

    def _find_blocked(self, missing: Iterable[str]) -> None:
        """Find the foreign routes of the prefixes that have no route of ours: they stay, since we did not make them."""
        prefixes = frozenset(missing)
        own = {interface.name for interface in self._view.interfaces}
        blocked = kernel.foreign_routes(self._host, own, prefixes) if prefixes else {}
        for prefix in sorted(blocked.keys() - self._blocked.keys()):
            message = "%s: %s has a route by %s that this program did not make: remove it, or the mesh is not reached"
            log.warning(message, self._view.mesh, prefix, blocked[prefix])
        self._blocked = blocked

    def delete_stale_routes(self, report: LinkReport, devices: Set[str]) -> None:
        """Delete the routes over *devices* that this view does not have.

        An apply deletes the routes of the view before. It does not see a route that the watcher sets after the apply
        has read the kernel's.
        """
        desired = {entry.key for entry in self.desired_entries(report)}
        try:
            stale = [e for e in self._live() if e.device in devices and e.key not in desired]
            for family in {e.family for e in stale}:
                self._host.ip_batch(family, [ip_cli.route_line("del", e) for e in stale if e.family == family])
        except HostError as error:
            log.warning("%s: routes of the view before cannot be deleted: %s", self._view.mesh, error)

    def _live(self) -> Iterable[RouteEntry]:
        protocol = str(constants.ROUTE_PROTOCOL)
        return ip_cli.parse_routes(self._host.run("ip", "-json", "route", "show", "table", "all", "proto", protocol))

    def _replace(self, entries: Iterable[RouteEntry], devices: Set[str]) -> None:
        settable = (e for e in entries if e.device is None or e.device in devices)
        changed = [e for e in settable if e.table != MAIN_TABLE or e.prefix not in self._blocked]
        for family, group in groupby(sorted(changed, key=lambda e: (e.family, e.key)), key=lambda e: e.family):
            listed = list(group)
            try:
                self._host.ip_batch(family, [ip_cli.route_line("replace", e) for e in listed])
            except HostError as error:
                # Not recorded as set: the next update tries them again.
                log.warning("%s: routes cannot be set: %s", self._view.mesh, error)
                continue
            self._entries |= {e.key: e for e in listed}
