"""The last step of a run: nodes are told to apply what is published, and their answers are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.transition.push_order import Wave, push_order
from saltext_wgmesh.master.fleet.jobs import JobResult
from saltext_wgmesh.master.fleet.port import Fleet
from saltext_wgmesh.master.records.acknowledgement import Ack, Digests, error_text
from saltext_wgmesh.master.records.mesh_records import Acks
from saltext_wgmesh.master.requests.request import ConvergeRequest

RECENT_ANSWER = 30.0
"""Seconds after an answer in which a node that counts as down is waited for all the same: its links may be down, or in
hold-down, while it answers jobs."""
DRIFT_RETRY_AFTER = 10.0
"""Seconds after a push before a node that reports drift is pushed to again."""

Wanted = Mapping[str, Digests]
"""Node → mesh → digest of what is published for it; never empty for a node."""
SaveAck = Callable[[str, Ack], None]
"""Writes the acknowledgements of a node to the ledger."""
ViewsOf = Callable[[str, str, "str | None"], "tuple[View | None, View | None]"]
"""Node, mesh and acknowledged digest → the view of that digest, and the view that the node is to run.

None where there is none, or none that this version can read.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushInput:
    """The inputs of a push."""

    wanted: Wanted
    acks: Acks
    views_of: ViewsOf
    request: ConvergeRequest
    responsive: Set[str]
    """Nodes that answered in this run when they were asked for their links."""
    down: Set[str]
    now: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAnswer:
    """The outcome of a push for one node, in one of its meshes."""

    node: str
    mesh: str
    is_silent: bool = False
    error: str | None = None
    """Why it did not apply its assignment. None: it did, or it did not answer."""

    @property
    def has_applied(self) -> bool:
        """Whether it runs what is published."""
        return not self.is_silent and self.error is None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """The outcome of a push."""

    acks: Acks
    """The acknowledgements of all nodes that have an assignment."""
    answers: tuple[NodeAnswer, ...] = ()
    blocked_by: Mapping[str, str]
    """Mesh → why the nodes after some wave were not told of it."""


def collect_late_returns(fleet: Fleet, acks: Acks, now: float) -> dict[str, Ack]:
    """Node → its acknowledgements, for those nodes that answered an earlier push after the run had stopped waiting."""
    pending = {node: ack.pending for node, ack in acks.items() if ack.pending and ack.pending.job}
    late = fleet.late_returns({node: push.job for node, push in pending.items()})
    # The plan may have changed since. The answer is about what was pushed then, not about what is wanted now.
    return {node: acks[node].after(answer, pending[node].digests, now) for node, answer in late.items()}


def push(fleet: Fleet, given: PushInput, save_ack: SaveAck) -> PushResult:
    """Tell every node that does not run what is published to apply it, wave by wave.

    A node that left a push unanswered is told again after a pause, or as soon as it is responsive. A view that a node
    rolled back is pushed to no other node, until the plan changes or an operator asks for a node by name. Each answer
    is saved when it arrives, so that a run which dies here forgets none.
    """
    wanted, request = given.wanted, given.request
    acks = _settle(given, save_ack)
    blocked = rollback_blocks(wanted, acks)
    presumed_down = given.down - request.retry - request.started - given.responsive
    not_awaited = presumed_down - _answered_lately(given)
    answers: list[NodeAnswer] = []
    in_earlier_waves: set[str] = set()
    for wave, members in _waves(given, acks):
        if wave.withdraws:
            blocked = {**_blocked_by_unanswered(in_earlier_waves - presumed_down, wanted, acks), **blocked}
        in_earlier_waves |= set(members)
        allowed = [n for n in members if n in request.retry or not blocked.keys() & acks[n].missing(wanted[n])]
        due = [node for node in allowed if _is_due(node, acks[node], given)]
        answered = _tell(fleet, due, not_awaited, acks, given)
        for node in due:
            acks[node] = acks[node].after(
                answered.returned.get(node), wanted[node], given.now, answered.unanswered.get(node, "")
            )
            save_ack(node, acks[node])
            answers += _node_answers(node, answered, acks[node], wanted[node])
        refusals = _refusals(members, wanted, acks)
        # A refusal may be a rollback, and then says more by which node it is.
        blocked = {**blocked, **refusals, **(rollback_blocks(wanted, acks) if refusals else {})}
    return PushResult(acks=acks, answers=tuple(answers), blocked_by=blocked)


def _answered_lately(given: PushInput) -> set[str]:
    """The nodes that answered a push so lately that an outage alone is no reason not to wait for them."""
    return {
        node
        for node in given.down
        if (ack := given.acks.get(node)) and not ack.awaits_answer and 0 <= given.now - ack.at < RECENT_ANSWER
    }


def rollback_blocks(wanted: Wanted, acks: Acks) -> dict[str, str]:
    """Mesh → why it is pushed to no other node, where a node rolled back just what is published; sorted by mesh."""
    found: dict[str, str] = {}
    for node, digests in sorted(wanted.items()):
        for mesh, why in acks[node].rolled_back(digests).items():
            found.setdefault(mesh, f"blocked: {node}: {why}")
    return dict(sorted(found.items()))


def _settle(given: PushInput, save_ack: SaveAck) -> dict[str, Ack]:
    """The acknowledgements of all nodes, without pushes of a plan that is no longer wanted."""
    found = {}
    for node, digests in given.wanted.items():
        before = given.acks.get(node, Ack())
        found[node] = before.settled(digests)
        if found[node] is not before:
            save_ack(node, found[node])
    return found


def _waves(given: PushInput, acks: Acks) -> list[tuple[Wave, list[str]]]:
    """The nodes that do not run what is published, or report drift, in the order in which they are to be told."""
    wanted = given.wanted
    behind = [n for n, digests in wanted.items() if n in given.request.drifted or not acks[n].covers(digests)]
    wave_of: dict[str, Wave] = {}
    for mesh in sorted({mesh for node in behind for mesh in wanted[node]}):
        members = [node for node in behind if mesh in wanted[node]]
        views = {node: given.views_of(node, mesh, acks[node].digests.get(mesh)) for node in members}
        # A node in several meshes is told once, so it waits for the later of its waves.
        wave_of |= {node: max(wave, wave_of.get(node, Wave.HARMLESS)) for node, wave in push_order(views).items()}
    return [(wave, sorted(n for n in behind if wave_of[n] is wave)) for wave in sorted(set(wave_of.values()))]


def _blocked_by_unanswered(told: Iterable[str], wanted: Wanted, acks: Acks) -> dict[str, str]:
    """Mesh → why what others may use in it is not withdrawn yet: a node of those *told* may still answer."""
    found: dict[str, str] = {}
    for node in sorted(told):
        if _may_still_answer(acks[node], wanted[node]):
            why = f"{node} has not answered yet: what it may still use is not withdrawn"
            for mesh in acks[node].missing(wanted[node]):
                found.setdefault(mesh, why)
    return found


def _may_still_answer(ack: Ack, digests: Digests) -> bool:
    """Whether the node left the first push of its assignments unanswered."""
    return not ack.covers(digests) and not ack.has_given_up


def _tell(fleet: Fleet, due: list[str], not_awaited: Set[str], acks: Acks, given: PushInput) -> JobResult:
    if not due:
        return JobResult()
    # A node that left just this unanswered may have rolled it back, and its answer was lost with its path to the
    # master. Only an operator has it try once more.
    repeated = [node for node in due if node not in given.request.retry and acks[node].is_pending(given.wanted[node])]
    return fleet.apply(due, not_awaited, retry_rolled_back=not repeated)


def _is_due(node: str, ack: Ack, given: PushInput) -> bool:
    """Whether *node* is to be told now."""
    digests, request = given.wanted[node], given.request
    if node in request.drifted and not 0 <= given.now - ack.at <= DRIFT_RETRY_AFTER:
        return True
    is_back = node in given.responsive and ack.awaits_answer
    is_named = is_back or node in request.retry or node in request.started
    return not ack.covers(digests) and (is_named or ack.is_due(digests, given.now))


def _refusals(wave: Iterable[str], wanted: Wanted, acks: Acks) -> dict[str, str]:
    """Mesh → why it is pushed to no further node: a node of this wave could not apply what is published.

    A node that did not answer blocks no other, whatever it runs.
    """
    found: dict[str, str] = {}
    for node in wave:
        if error := acks[node].refused(wanted[node]):
            for mesh in acks[node].missing(wanted[node]):
                found.setdefault(mesh, f"{node}: {error}")
    return found


def _node_answers(node: str, answered: JobResult, ack: Ack, digests: Digests) -> list[NodeAnswer]:
    """The outcome for *node* in each of its meshes."""
    answer, missing = answered.returned.get(node), ack.missing(digests)
    found = []
    for mesh in digests:
        error = error_text(answer, {mesh: ""}) if answer is not None and mesh in missing else None
        found.append(NodeAnswer(node=node, mesh=mesh, is_silent=answer is None, error=error))
    return found
