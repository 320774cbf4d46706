"""Keeps the kernel's routes and rules of one mesh in step with the view and with the state of its links."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Protocol

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device import desired, ip_cli, route_selection
from saltext_wgmesh.core.device.descriptions import refused_rules_text
from saltext_wgmesh.core.device.route_selection import CandidateRoute, KernelRoute
from saltext_wgmesh.core.device.state import MAIN_TABLE, RouteEntry, RuleEntry
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.liveness.link_report import DownLinks
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.system import kernel
from saltext_wgmesh.minion.system.host import Host, Line, first_failure
from saltext_wgmesh.minion.watcher.slices import Steps, change_aside, finish, groups_of, read_aside

log = logging.getLogger("wgmesh.watch")

BLOCKED_SHOWN = 3
"""Foreign routes that are logged each; the others are counted."""
Place = tuple[int, str]
"""Table and prefix, which identify a route."""


class PathStates(Protocol):
    """The states of links as routes need them: a report of all links, or the links themselves."""

    @property
    def down(self) -> DownLinks: ...
    @property
    def blackholed(self) -> Set[str]: ...


class RouteUpdater:
    """The routes and rules of one view. Only those of the project's own numbers are touched.

    *devices* are the interfaces of the view that exist now: a route over any other is left for later. A command that
    fails is logged. An apply may be changing the node, and the next update tries the same routes again.

    A method whose name ends in ``steps`` works in slices. Routes of other slices may be updated between: each slice
    selects by the states of its own moment, and sets what differs. ``ip`` may take any time for that, so a slice notes
    its routes before: a later one then sets what differs from these, and ``ip`` runs in the same order.
    """

    def __init__(self, host: Host, view: View, *, load: bool = True) -> None:
        """*load* False: the caller takes the ``load_steps`` before it uses the routes."""
        self._host = host
        self._view = view
        self._tables = {route_selection.MAIN: MAIN_TABLE, route_selection.TRUNK: constants.trunk_table(view.mesh)}
        self._candidates: dict[Place, CandidateRoute] = {}
        self._by_neighbour: dict[str, list[Place]] = {}
        """Neighbour → the routes that may lead to it: no other can change with its link."""
        self._entries: dict[Place, RouteEntry] = {}
        """The routes as they were last set, or are about to be."""
        self._running: dict[Place, object] = {}
        """The routes that ``ip`` has not set yet → what tells the last attempt from those before."""
        self._refused: set[Place] = set()
        """The routes that could not be set at the last attempt."""
        self._refused_rules: dict[int, Set[RuleEntry]] = {}
        """Address family → the rules that the kernel did not take at the last look."""
        self._set_since: set[Place] = set()
        """The routes that were set since the kernel's were read: what was read of them is out of date."""
        self._blocked: dict[str, str] | None = None
        """Prefix → the device of a foreign route, in whose place no route is set; None: not yet read."""
        if load:
            finish(self.load_steps())

    def load_steps(self) -> Steps[None]:
        """Find the candidates of the view."""
        for group in groups_of(route_selection.candidates(self._view)):
            for candidate in group:
                if candidate is not None:
                    place = self._tables[candidate.table], candidate.prefix
                    self._candidates[place] = candidate
                    for hop in candidate.hops:
                        self._by_neighbour.setdefault(hop.neighbour, []).append(place)
            yield None

    def desired_entries(self, states: PathStates) -> Iterator[RouteEntry]:
        """The routes that the kernel should have while the links are as *states* says."""
        return self._desired(self._candidates, states)

    def update_steps(
        self, states: PathStates, devices: Set[str], neighbours: Collection[str] | None = None
    ) -> Steps[None]:
        """Set the routes that differ from those set last. Nothing is read from the kernel.

        Before the first reconciliation no route of the main table is set: it may have a foreign route in its place.
        *neighbours* are those whose links changed; None: all.
        """
        chosen: dict[Place, None] = dict.fromkeys(self._refused)
        for neighbour in self._by_neighbour if neighbours is None else neighbours:
            chosen |= dict.fromkeys(self._by_neighbour.get(neighbour, ()))
            yield None
        for group in groups_of(self._candidates if neighbours is None else chosen):
            yield from self._set_steps(group, states, devices)
            yield None

    def reconcile_steps(self, states: PathStates, devices: Set[str], *, delete_stale: bool = False) -> Steps[None]:
        """Set the routes that differ from those of the kernel, since an apply, or another program, may change them.

        *delete_stale*: also delete the routes and rules that this view does not have. An apply deletes those of the
        view before. It does not see a route that the watcher sets after the apply has read the kernel's.
        """
        self._set_since = set()
        try:
            live = yield from self._live_steps()
            yield from self._find_blocked_steps(live)
        except HostError as error:
            log.warning("%s: the kernel's routes cannot be read: %s", self._view.mesh, error)
            return
        for group in groups_of(self._candidates):
            for place in group:
                if place not in self._set_since and place not in self._running:
                    self._entries.pop(place, None)
                    if place in live:
                        self._entries[place] = live[place]
            yield from self._set_steps(group, states, devices)
            yield None
        # After the routes: a packet that finds nothing in its table goes on to the main one, where it may loop.
        yield from self.reconcile_rules_steps(devices, delete_stale=delete_stale)
        if delete_stale:
            yield from self._delete_stale_steps(live, devices)

    def reconcile_rules_steps(self, devices: Set[str], *, delete_stale: bool = False) -> Steps[bool]:
        """Add the rules that the kernel lacks, and return whether there were such; *delete_stale* as above."""
        families = self._families
        wanted = desired.rule_entries(self._view, families)
        if not wanted and not delete_stale:
            return False
        restored: list[RuleEntry] = []
        for family in families:
            try:
                live, inverted = yield from self._live_rules_steps(family)
            except HostError as error:
                log.warning("%s: rules cannot be read: %s", self._view.mesh, error)
                continue
            missing = sorted(
                r for r in wanted if r.family == family and r.device in devices and r not in live | inverted
            )
            stale = sorted(live.difference(wanted)) if delete_stale else []
            adding = {ip_cli.rule_line("add", rule): rule for rule in missing}
            lines = [*adding, *(ip_cli.rule_line("del", rule) for rule in stale)]
            refused = yield from self._run_steps({family: lines}, "rules cannot be restored")
            restored += [rule for line, rule in adding.items() if line not in refused]
        for rule in restored:
            log.info("%s: the rule for packets from %s (IPv%d) was restored", self._view.mesh, rule.device, rule.family)
        return bool(restored)

    def update_routes(self, states: PathStates, devices: Set[str]) -> None:
        """Take the ``update_steps`` for all routes at once."""
        finish(self.update_steps(states, devices))

    def reconcile_routes(self, states: PathStates, devices: Set[str]) -> None:
        """Take the ``reconcile_steps`` at once."""
        finish(self.reconcile_steps(states, devices))

    def delete_stale_routes(self, states: PathStates, devices: Set[str]) -> None:
        """Take the ``reconcile_steps`` at once, and delete the routes over *devices* that this view does not have."""
        finish(self.reconcile_steps(states, devices, delete_stale=True))

    # -- internals --------------------------------------------------------------------------------------

    @property
    def _families(self) -> tuple[int, ...]:
        return (4, 6) if self._host.has_ipv6 else (4,)

    def _desired(self, places: Iterable[Place], states: PathStates) -> Iterator[RouteEntry]:
        families, down, blackholed = self._families, states.down, states.blackholed
        for place in places:
            one = self._candidates[place]
            if address_family(one.prefix) in families:
                device = route_selection.select_device(one, down, blackholed)
                route = KernelRoute(prefix=one.prefix, table=one.table, device=device)
                yield desired.route_entry(self._view.mesh, route, self._view.addresses)

    def _live_steps(self) -> Steps[dict[Place, RouteEntry]]:
        """The project's routes of all meshes as the kernel has them."""
        text = yield from read_aside(self._host.run, *kernel.OWN_ROUTES)
        live: dict[Place, RouteEntry] = {}
        for group in groups_of(ip_cli.each_route(text)):
            live |= {entry.key: entry for entry in group if entry}
            yield None
        return live

    def _find_blocked_steps(self, live: Collection[Place]) -> Steps[None]:
        """Find the foreign routes of the prefixes that have no route of ours: they stay, since we did not make them."""
        families, missing = self._families, set[str]()
        for group in groups_of(self._candidates.keys()):
            missing |= {p for t, p in group if t == MAIN_TABLE and (t, p) not in live and address_family(p) in families}
            yield None
        blocked: dict[str, str] = {}
        if missing:
            text = yield from read_aside(self._host.run, *kernel.ALL_ROUTES)
            own = {interface.name for interface in self._view.interfaces}
            for routes in groups_of(ip_cli.each_main_route(text)):
                blocked |= kernel.foreign_among(routes, own, missing)
                yield None
        self._warn_of_blocked(blocked)
        self._blocked = blocked

    def _warn_of_blocked(self, blocked: dict[str, str]) -> None:
        """Log those of *blocked* that were not blocked before, at most some of them by name."""
        new = sorted(blocked.keys() - (self._blocked or {}).keys())
        for prefix in new[:BLOCKED_SHOWN]:
            message = "%s: %s has a route by %s that this program did not make: remove it, or the mesh is not reached"
            log.warning(message, self._view.mesh, prefix, blocked[prefix])
        if len(new) > BLOCKED_SHOWN:
            log.warning("%s: %d more prefixes have such routes", self._view.mesh, len(new) - BLOCKED_SHOWN)

    def _live_rules_steps(self, family: int) -> Steps[tuple[set[RuleEntry], Set[RuleEntry]]]:
        """The rules of this mesh as the kernel has them, and those that it takes none of."""
        text = yield from read_aside(self._host.run, *kernel.own_rules(family))
        table = self._tables[route_selection.TRUNK]
        refused = ip_cli.parse_inverted_rules(text, family)
        if refused and refused != self._refused_rules.get(family):
            log.warning("%s: %s", self._view.mesh, refused_rules_text(refused))
        self._refused_rules[family] = refused
        return {rule for rule in ip_cli.parse_rules(text, family) if rule.table == table}, refused

    def _delete_stale_steps(self, live: dict[Place, RouteEntry], devices: Set[str]) -> Steps[None]:
        for group in groups_of(live.values()):
            stale = [e for e in group if e.device in devices and e.key not in self._candidates]
            lines = {e.family: [ip_cli.route_line("del", o) for o in stale if o.family == e.family] for e in stale}
            yield from self._run_steps(lines, "routes of the view before cannot be deleted")
            yield None

    def _set_steps(self, places: Iterable[Place], states: PathStates, devices: Set[str]) -> Steps[None]:
        """Set those of the routes at *places* that differ from those set last."""
        differing = (e for e in self._desired(places, states) if self._entries.get(e.key) != e)
        changed = {ip_cli.route_line("replace", e): e for e in differing if self._may_set(e, devices)}
        lines: dict[int, list[Line]] = {}
        for line, entry in sorted(changed.items(), key=lambda item: (item[1].family, item[1].key)):
            lines.setdefault(entry.family, []).append(line)
        attempt = object()
        self._entries |= {e.key: e for e in changed.values()}
        self._running |= {e.key: attempt for e in changed.values()}
        refused = yield from self._run_steps(lines, "routes cannot be set")
        # A later attempt for a route, which ``ip`` makes after this one, decides about that route.
        last = {line: e.key for line, e in changed.items() if self._running.get(e.key) is attempt}
        failed = {key for line, key in last.items() if line in refused}
        self._refused = (self._refused - set(last.values())) | failed
        self._set_since |= {e.key for e in changed.values()}
        for key in last.values():
            del self._running[key]
        for key in failed:
            self._entries.pop(key, None)

    def _run_steps(self, lines: Mapping[int, Sequence[Line]], failure: str) -> Steps[Collection[Line]]:
        """Run *lines*, of each address family, by ``ip``; log *failure* with the first reason, and return the lines
        that failed.

        A line that fails keeps no other from being run. The kernel may refuse one for a reason of its own, such as a
        table of another program.
        """
        if not any(lines.values()):
            return ()
        refused = yield from change_aside(self._run_lines, lines)
        if refused:
            log.warning("%s: %s: %s", self._view.mesh, failure, first_failure(refused))
        return refused

    def _run_lines(self, lines: Mapping[int, Sequence[Line]]) -> dict[Line, str]:
        refused: dict[Line, str] = {}
        for family, listed in lines.items():
            refused |= self._host.ip_batch_each(family, listed)
        return refused

    def _may_set(self, entry: RouteEntry, devices: Set[str]) -> bool:
        is_free = entry.table != MAIN_TABLE or (self._blocked is not None and entry.prefix not in self._blocked)
        return is_free and (entry.device is None or entry.device in devices)
