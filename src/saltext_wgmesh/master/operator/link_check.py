"""Nodes and links of the published meshes that are down, as the nodes report now: for ``salt-run``'s exit status."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext_wgmesh.core.liveness.down_now import DownNow, down_now, is_coming_up, is_up
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState
from saltext_wgmesh.core.liveness.mesh_health import Health, LinkStates
from saltext_wgmesh.core.model.pairs import NodePair, node_pair
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.master.drafting.next_step import ReportsByNode
from saltext_wgmesh.master.fleet import link_survey
from saltext_wgmesh.master.fleet.port import Fleet, SaltFleet
from saltext_wgmesh.master.records import inventory
from saltext_wgmesh.master.records import published as record
from saltext_wgmesh.master.records.ledger import Ledger

LINKS_TIMEOUT = 20.0
"""Seconds to wait for links that are coming up. A node calls a link down that is not up within 15."""
LINKS_POLL_INTERVAL = 1.0
"""Seconds between two questions to the ends of links that are coming up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mesh:
    """One published mesh, and the health that the master keeps of it."""

    plan: Plan
    health: Health
    neighbours: Mapping[str, frozenset[str]]
    pairs: frozenset[NodePair] = field(default_factory=frozenset)

    def states(self, reports: ReportsByNode) -> LinkStates:
        """The states that the ends report. A link that a watcher does not know yet is new."""
        known = link_survey.reports_on_neighbours(self.plan.mesh, self.neighbours, reports)
        return {n: {**self._new(n, reports[n].get(self.plan.mesh)), **states} for n, states in known.items()}

    def _new(self, node: str, report: LinkReport | None) -> dict[str, LinkState]:
        is_watched = report is not None and report.from_watcher
        return dict.fromkeys(self.neighbours[node], LinkState.NEW) if is_watched else {}

    def doubtful(self, reports: ReportsByNode) -> set[str]:
        """The ends of links that are not known to be up."""
        states = self.states(reports)
        return {node for pair in self.pairs if not is_up(pair, states) for node in pair}

    def coming_up(self, reports: ReportsByNode) -> set[str]:
        """The ends of links that are new."""
        states = self.states(reports)
        return {node for pair in self.pairs if is_coming_up(pair, states) for node in pair}


def down_in(plan: Plan, health: Health, reports: ReportsByNode | None) -> DownNow:
    """The nodes and links of *plan* that are down by the nodes' *reports*; None: by the health alone."""
    mesh = _mesh(plan, health)
    return down_now(plan.members, mesh.pairs, health, None if reports is None else mesh.states(reports))


def await_links(opts: dict[str, Any], meshes: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Mesh → the nodes and links of it that are down, among *meshes*, after links that are new had time to come up.

    Relays are asked first, since they hear all other nodes. Only ends of links that they do not call up are asked too.
    """
    ledger = Ledger.of(opts)
    published = {mesh: record.published(ledger, mesh).plan for mesh in meshes if ledger.head(mesh).generation}
    found = {mesh: _mesh(plan, ledger.health(mesh)) for mesh, plan in published.items()}
    reports = _ask(SaltFleet(opts=opts), found.values(), frozenset(inventory.accepted_keys(opts)))
    return {mesh: down_in(one.plan, one.health, reports).names for mesh, one in found.items()}


def _ask(fleet: Fleet, meshes: Collection[_Mesh], accepted: Collection[str]) -> ReportsByNode:
    deadline = time.monotonic() + LINKS_TIMEOUT
    first = {n for mesh in meshes for n, m in mesh.plan.members.items() if m.is_relay or not mesh.neighbours[n]}
    reports = dict(link_survey.query(fleet, first & set(accepted)))
    doubtful = {node for mesh in meshes for node in mesh.doubtful(reports)} - first
    reports |= link_survey.query(fleet, doubtful & set(accepted))
    while time.monotonic() < deadline:
        # A node that did not answer is not asked again: only links that are coming up are waited for.
        again = {node for mesh in meshes for node in mesh.coming_up(reports)} & reports.keys()
        if not again:
            break
        time.sleep(LINKS_POLL_INTERVAL)
        reports |= link_survey.query(fleet, again)
    return reports


def _mesh(plan: Plan, health: Health) -> _Mesh:
    pairs = frozenset(node_pair(link.a, link.b) for link in plan.links)
    return _Mesh(plan=plan, health=health, neighbours=link_survey.neighbours(plan), pairs=pairs)
