"""The survey of links: what nodes, asked now, report of their links, and which nodes and links are down by that.

An event only says where to look, and none of it is believed. The nodes that it names are asked by a job, whose returns
Salt authenticates. With them are asked the nodes that should hear the suspects. A second job then goes to the nodes
that should hear any other neighbour that the first answers report as down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.liveness import mesh_health as health_module
from saltext_wgmesh.core.liveness.link_report import MAX_NAME, LinkReport, LinkState
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model import untrusted
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.untrusted import Refused
from saltext_wgmesh.master.drafting.next_step import ReportsByNode
from saltext_wgmesh.master.fleet.jobs import JobResult, PresumedDead, Urgent, no_hint, nothing_urgent
from saltext_wgmesh.master.fleet.port import Fleet
from saltext_wgmesh.master.records.acknowledgement import Ack
from saltext_wgmesh.master.records.conduct import ASKED_SECONDS
from saltext_wgmesh.master.records.mesh_records import Acks, LedgerSnapshot, MeshRecords
from saltext_wgmesh.master.records.silence import Silence
from saltext_wgmesh.master.requests.request import ConvergeRequest

log = logging.getLogger(__name__)

MAX_MESHES = 1000
"""Meshes that are read of one node's return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unreadable:
    """A report that cannot be read."""

    node: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """The answers to a question."""

    reports: ReportsByNode
    job: JobResult

    def and_then(self, other: _Answers) -> _Answers:
        """These and the *other* ones, of different nodes."""
        job = JobResult(
            unanswered={**self.job.unanswered, **other.job.unanswered},
            waited={**self.job.waited, **other.job.waited},
            is_interrupted=self.job.is_interrupted or other.job.is_interrupted,
        )
        return _Answers(reports={**self.reports, **other.reports}, job=job)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The outcome of a survey."""

    health: Mapping[str, Health]
    """Mesh → its health now."""
    reports: ReportsByNode
    """The reports of the nodes that answered."""
    waited: Mapping[str, float]
    """Node → seconds for which the run waited for it."""
    silences: Mapping[str, Silence]
    """Node → its silence, of all that have not answered since it began."""
    is_interrupted: bool = False
    """Whether a key was revoked while nodes were asked. The answers so far say nothing of those that are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _SurveyedMesh:
    """One published mesh, as a survey needs it."""

    plan: Plan
    neighbours: Mapping[str, frozenset[str]]
    """Node → the nodes that it has a link to."""
    health: Health
    """As of the survey before."""
    in_transition: frozenset[str]
    """Nodes whose answers decide on the next step of a transition."""
    accepted: Collection[str]
    """The nodes with an accepted key: no other node is a witness."""

    def first_questions(self, request: ConvergeRequest) -> set[str]:
        """The nodes that are asked by the first job, besides the hints."""
        found = _recovery_witnesses(self.health, self.neighbours)
        found |= _nodes_to_ask(self.plan, self.neighbours, request.suspects)
        found |= self.in_transition
        # A node that did not answer an earlier survey, or was away, may answer now.
        return (
            found | (self.health.unresponsive - self.health.down_nodes) | (request.started & self.plan.members.keys())
        )

    def second_questions(self, reports: ReportsByNode) -> set[str]:
        """The nodes that should hear the neighbours that *reports* call down."""
        reported = reports_on_neighbours(self.plan.mesh, self.neighbours, reports)
        return _nodes_to_ask(self.plan, self.neighbours, _reported_down(reported))

    def presumed_dead(self, reports: ReportsByNode, mute: Collection[str]) -> frozenset[str]:
        """The nodes that are down by *reports*, which may still lack answers; *mute* nodes have no vote."""
        reported = reports_on_neighbours(self.plan.mesh, self.neighbours, reports)
        return health_module.confirmed_down(self.health, self.neighbours, reported, self.accepted, mute)

    def judged(self, reports: ReportsByNode, asked: Collection[str], now: float, mute: Collection[str]) -> Health:
        """The health after a survey in which *asked* nodes gave *reports*; *mute* nodes have no vote."""
        reported = reports_on_neighbours(self.plan.mesh, self.neighbours, reports)
        return health_module.update(self.health, self.neighbours, reported, asked, now, self.accepted, mute)


def survey(
    fleet: Fleet,
    snapshot: LedgerSnapshot,
    request: ConvergeRequest,
    accepted: Collection[str],
    clock: Callable[[], float],
    is_urgent: Urgent = nothing_urgent,
) -> Survey:
    """Ask nodes for their links, and judge the health of each mesh by the answers.

    No node is asked without a hint, a node or link in trouble, or a transition. A node that runs have waited for too
    long is asked too, and not waited for long. *clock* gives seconds since the epoch. The survey ends early if another
    run *is_urgent*.
    """
    began = clock()
    not_awaited = {n for n, ack in snapshot.acks.items() if ack.conduct.asked.is_spent(ASKED_SECONDS, began)}
    meshes = [_surveyed(records, accepted) for records in _to_survey(snapshot, request.hints | request.started)]
    silences = _still_silent(fleet if meshes else None, snapshot)
    mute = _without_vote(silences, began)
    first = set(request.hints).union(*(mesh.first_questions(request) for mesh in meshes)) & set(accepted)

    # Asked many times while answers arrive, and a return may be large.
    read_once = _ReadOnce()

    def presumed_dead(returned: Mapping[str, Any]) -> set[str]:
        reports = {node: read_once.reports(node, raw) for node, raw in returned.items()}
        return not_awaited.union(*(mesh.presumed_dead(reports, mute) for mesh in meshes))

    one = _query(fleet, first, presumed_dead, is_urgent)
    suspected = {node for mesh in meshes for node in mesh.second_questions(one.reports)}
    second = (suspected & set(accepted)) - first
    both = one.and_then(_query(fleet, second, presumed_dead, is_urgent))
    reports = both.reports
    now = clock()
    silences = _silences({n: known for n, known in silences.items() if n not in reports}, both.job.unanswered, now)
    mute = _without_vote(silences, now)
    health = {mesh: records.health for mesh, records in snapshot.meshes.items()}
    health |= {mesh.plan.mesh: mesh.judged(reports, first | second, now, mute) for mesh in meshes}
    return Survey(
        health=health,
        reports=reports,
        waited=both.job.waited,
        silences=silences,
        is_interrupted=both.job.is_interrupted,
    )


def put_off(snapshot: LedgerSnapshot) -> Survey:
    """A survey that asks no node: all is as it was after the survey before."""
    return Survey(
        health={mesh: records.health for mesh, records in snapshot.meshes.items()},
        reports={},
        waited={},
        silences={n: ack.silence for n, ack in snapshot.acks.items() if ack.silence},
    )


def acks_after(acks: Acks, surveyed: Survey, now: float) -> dict[str, Ack]:
    """Those *acks* that a survey changes: each silence, and how long the run waited for a node."""
    found = {}
    for node, ack in acks.items():
        conduct, silence = ack.conduct, surveyed.silences.get(node)
        if waited := surveyed.waited.get(node):
            conduct = replace(conduct, asked=conduct.asked.longer(waited, ASKED_SECONDS, now))
        if conduct is not ack.conduct or silence != ack.silence:
            found[node] = replace(ack, conduct=conduct, silence=silence)
    return found


def _still_silent(fleet: Fleet | None, snapshot: LedgerSnapshot) -> dict[str, Silence]:
    """Node → its silence, of those that have not answered since the last run either.

    Without a *fleet* no late answer is read: it matters only where there is something to ask for."""
    known = {n: ack.silence for n, ack in snapshot.acks.items() if ack.silence}
    jobs = {n: silence.job for n, silence in known.items() if silence.job}
    late = fleet.late_returns(jobs).returned if fleet and known else {}
    return {n: silence for n, silence in known.items() if n not in late}


def _silences(before: Mapping[str, Silence], unanswered: Mapping[str, str], now: float) -> dict[str, Silence]:
    """Node → its silence after a run that left the jobs *unanswered*, by node."""
    new = {
        n: before[n].went_on(job, now) if n in before else Silence(since=now, job=job) for n, job in unanswered.items()
    }
    return {**before, **new}


def _without_vote(silences: Mapping[str, Silence], now: float) -> set[str]:
    return {n for n, silence in silences.items() if silence.costs_vote(now)}


def query(fleet: Fleet, nodes: Collection[str], presumed_dead: PresumedDead = no_hint) -> ReportsByNode:
    """Node → its reports now. Nodes that did not answer are missing; reports that cannot be read are logged.

    Nodes that are *presumed_dead* are not waited for long.
    """
    return _query(fleet, nodes, presumed_dead).reports


def _query(
    fleet: Fleet, nodes: Collection[str], presumed_dead: PresumedDead, is_urgent: Urgent = nothing_urgent
) -> _Answers:
    """The same, with the rest of the job's result."""
    result = fleet.links(sorted(nodes), presumed_dead, is_urgent=is_urgent) if nodes else JobResult()
    found, unreadable = _parse(result.returned)
    for each in unreadable:
        log.warning("wgmesh: ignored a link report of %s: %s", each.node, each.why)
    return _Answers(reports=found, job=result)


def neighbours(plan: Plan) -> dict[str, frozenset[str]]:
    """Node → the nodes that it has a link to."""
    found: dict[str, set[str]] = {node: set() for node in plan.members}
    for link in plan.links:
        found[link.a].add(link.b)
        found[link.b].add(link.a)
    return {node: frozenset(others) for node, others in found.items()}


def reports_on_neighbours(
    mesh: str, around: Mapping[str, frozenset[str]], reports: ReportsByNode
) -> health_module.LinkStates:
    """Node → neighbour → the state of their link, in *mesh*.

    Reports of a node on others than its neighbours in the plan, *around* it, are left out.
    """
    return MappingProxyType(
        {
            node: {n: link.state for n, link in by_mesh[mesh].links.items() if n in around[node]}
            for node, by_mesh in reports.items()
            if mesh in by_mesh and node in around
        }
    )


def _surveyed(records: MeshRecords, accepted: Collection[str]) -> _SurveyedMesh:
    head, plan = records.head, records.history.current_plan()
    return _SurveyedMesh(
        plan=plan,
        neighbours=neighbours(plan),
        health=records.health,
        in_transition=frozenset(head.transition.nodes(head.digests, head.allocations.relay_numbers)),
        accepted=accepted,
    )


def _to_survey(snapshot: LedgerSnapshot, hints: Collection[str]) -> list[MeshRecords]:
    """The published meshes that may have something to ask for.

    Recovering nodes alone are no reason: that they recovered is forgotten after some time, without a question.
    """
    return [
        records
        for records in snapshot.meshes.values()
        if records.head.generation
        and (hints or records.head.transition or records.health.nodes or records.health.links)
    ]


class _ReadOnce:
    """Reads each return once, however often it is asked for."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[Any, dict[str, LinkReport]]] = {}
        """Node → its return, and the reports in it."""

    def reports(self, node: str, raw: Any) -> dict[str, LinkReport]:
        """Mesh → report in *raw*, the return of *node*, of those that can be read."""
        if node not in self._read or self._read[node][0] is not raw:
            self._read[node] = raw, _parse({node: raw})[0][node]
        return self._read[node][1]


def _parse(returned: Mapping[str, Any]) -> tuple[dict[str, dict[str, LinkReport]], list[_Unreadable]]:
    """The reports in what nodes returned, and for each node the last one that cannot be read."""
    found: dict[str, dict[str, LinkReport]] = {node: {} for node in returned}
    unreadable: dict[str, _Unreadable] = {}
    for node, raw in returned.items():
        try:
            by_mesh = _by_mesh(raw)
        except ViewError as error:
            unreadable[node] = _Unreadable(node=node, why=str(error))
            continue
        for mesh, report in by_mesh.items():
            try:
                found[node][mesh] = LinkReport.from_dict(report)
            except ViewError as error:
                unreadable[node] = _Unreadable(node=node, why=str(error))
    return found, [*unreadable.values()]


def _by_mesh(raw: Any) -> Mapping[str, Any]:
    """*raw*, a return of ``wgmesh.links``, with names of meshes as keys; ViewError if it is anything else."""
    checked = untrusted.bounded(raw, untrusted.RETURN_BOUNDS)
    if isinstance(checked, Refused):
        raise ViewError(f"it {checked.reason}")
    if not isinstance(checked, Mapping):
        # An error of Salt, such as that the extension is not installed there.
        return {}
    if len(checked) > MAX_MESHES or not all(_is_name(mesh) for mesh in checked):
        raise ViewError(f"it has more than {MAX_MESHES} meshes, or one without a name")
    return checked


def _is_name(mesh: object) -> bool:
    return isinstance(mesh, str) and len(mesh) <= MAX_NAME and mesh.isprintable()


def _recovery_witnesses(health: Health, around: Mapping[str, frozenset[str]]) -> set[str]:
    """The nodes that can tell whether a node or link that was down is up again."""
    found = {n for node in health.down_nodes for n in around.get(node, ())} | {
        n for pair in health.down_links for n in pair
    }
    return found - health.down_nodes


def _nodes_to_ask(plan: Plan, around: Mapping[str, frozenset[str]], suspects: Collection[str]) -> set[str]:
    """The nodes that should hear *suspects*, and the suspects that are leaves.

    A leaf gets other relays only if it answers, since it must learn of them.
    """
    found = {n for suspect in suspects for n in around.get(suspect, ())} - set(suspects)
    return found | {s for s in suspects if s in around and not plan.members[s].is_relay}


def _reported_down(reported: health_module.LinkStates) -> set[str]:
    troubled = (LinkState.DOWN, LinkState.BLACKHOLE)
    return {n for states in reported.values() for n, state in states.items() if state in troubled}
