"""The last step of a run: nodes are told to apply what is published, and their answers are kept."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.transition.push_order import Wave, push_order, revokes_key
from saltext_wgmesh.master.fleet.jobs import JobResult, Urgent, nothing_urgent
from saltext_wgmesh.master.fleet.port import Fleet
from saltext_wgmesh.master.records.acknowledgement import Ack, Digests
from saltext_wgmesh.master.records.conduct import AWAITED_SECONDS, DRIFT, NEVER
from saltext_wgmesh.master.records.mesh_records import Acks
from saltext_wgmesh.master.records.push_answer import PushAnswer, parse_push_answer
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
    changes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Mesh → fingerprint of its policy. A node holds back the changes of one policy for a limited time."""
    valid_keys: Mapping[str, Container[str]] = field(default_factory=lambda: MappingProxyType({}))
    """Mesh → the public keys of all nodes that it knows."""
    is_urgent: Urgent = nothing_urgent
    """Whether another run must tell of a revoked key: then no answer is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """One node that is to be told, and when."""

    node: str
    wave: Wave
    can_wait: frozenset[str]
    """The meshes whose change disturbs links of the node, and takes no former key from it."""
    revokes: bool
    """Whether a former key is taken from the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Obstacle:
    """One answer of a node, or the lack of one, that may hold back a mesh's changes from other nodes."""

    node: str
    mesh: str
    why: str


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
    """Mesh → why nodes whose links its change disturbs were not told of it."""


def collect_late_returns(fleet: Fleet, acks: Acks, now: float) -> dict[str, Ack]:
    """Node → its acknowledgements, for those nodes that answered an earlier push after the run had stopped waiting."""
    pending = {node: ack.pending for node, ack in acks.items() if ack.pending and ack.pending.job}
    late = fleet.late_returns({node: push.job for node, push in pending.items()}).returned
    # The plan may have changed since. The answer is about what was pushed then, not about what is wanted now.
    answers = {node: parse_push_answer(answer, pending[node].digests) for node, answer in late.items()}
    return {node: acks[node].after(answer, pending[node].digests, now) for node, answer in answers.items()}


def push(fleet: Fleet, given: PushInput, save_ack: SaveAck) -> PushResult:
    """Tell every node that does not run what is published to apply it, wave by wave.

    A node that left a push unanswered is told again after a pause, or as soon as it is responsive. A view that a node
    rolled back is pushed to it again if the plan changes or an operator asks for it by name.

    A node that rolled back its view, or could not apply it, holds back changes of the same policy that disturb links
    of other nodes. It does so for ``HOLD_LIMIT`` seconds, however often it refuses. All other changes go out.

    Each answer is saved when it arrives, so that a run which dies here forgets none.
    """
    wanted, request = given.wanted, given.request
    acks = _settle(given, save_ack)

    def blocking(obstacles: Iterable[_Obstacle]) -> dict[str, str]:
        return _blocks(list(obstacles), acks, given, save_ack)

    blocked = blocking(_rollbacks(wanted, acks))
    presumed_down = given.down - request.retry - request.started - given.responsive
    not_awaited = presumed_down - _answered_lately(given)
    answers: list[NodeAnswer] = []
    in_earlier_waves: set[str] = set()
    waves = _waves(given, acks)
    last_revoking = max((wave for wave, turns in waves if any(turn.revokes for turn in turns)), default=None)
    is_interrupted = False
    for wave, turns in waves:
        # The refusals of a wave that was not waited for are not known, so the next run tells the rest.
        turns = [turn for turn in turns if turn.revokes] if is_interrupted else turns
        # A node that has not answered may still send by what this wave takes away, so silence blocks it too.
        if wave.withdraws:
            blocked = {**blocking(_unanswered(in_earlier_waves - presumed_down, wanted, acks)), **blocked}
        members = [turn.node for turn in turns]
        in_earlier_waves |= set(members)
        # Decided wave by wave: what an earlier wave refused may hold back this one.
        due = [turn.node for turn in turns if _may_be_told(turn, acks, blocked, given)]
        # No node of an earlier wave delays a revocation because it says that it is still applying.
        is_impatient = last_revoking is not None and wave < last_revoking
        answered = _tell(fleet, due, not_awaited, acks, given, is_impatient=is_impatient)
        is_interrupted |= answered.is_interrupted
        for node in due:
            raw = answered.returned.get(node)
            answer = None if raw is None else parse_push_answer(raw, wanted[node])
            acks[node] = _with_conduct(node, acks[node], answer, answered, given)
            acks[node] = acks[node].after(answer, wanted[node], given.now, answered.unanswered.get(node, ""))
            save_ack(node, acks[node])
            answers += _node_answers(node, answer, acks[node], wanted[node])
        refusals = blocking(_refusals(members, wanted, acks))
        # A refusal may be a rollback, and then says more by which node it is.
        blocked = {**blocked, **refusals, **(blocking(_rollbacks(wanted, acks)) if refusals else {})}
    _note_holds(acks, given, save_ack)
    return PushResult(acks=acks, answers=tuple(answers), blocked_by=blocked)


def _with_conduct(node: str, ack: Ack, answer: PushAnswer | None, result: JobResult, given: PushInput) -> Ack:
    """*ack* with what this push says of the node: whether it kept the run waiting, and whether it had drifted."""
    conduct = ack.conduct
    if waited := result.waited.get(node):
        conduct = replace(conduct, awaited=conduct.awaited.longer(waited, AWAITED_SECONDS, given.now))
    if node in given.request.drifted and ack.covers(given.wanted[node]):
        # An event can name any node, and only the node itself says whether there was anything to change.
        changed = answer is not None and any(part.changed for part in answer.meshes.values())
        conduct = replace(conduct, drift=NEVER if changed else conduct.drift.once_more(given.now))
    return replace(ack, conduct=conduct)


def _may_be_told(turn: _Turn, acks: Acks, blocked: Mapping[str, str], given: PushInput) -> bool:
    """Whether a node is told in this run."""
    node, ack = turn.node, acks[turn.node]
    if node not in given.request.retry:
        missing = ack.missing(given.wanted[node])
        refused = ack.rolled_back(given.wanted[node]).keys()
        if missing & turn.can_wait & blocked.keys() or (refused and missing <= refused):
            return False
    return _is_due(node, ack, given)


def _blocks(
    obstacles: Iterable[_Obstacle], acks: dict[str, Ack], given: PushInput, save_ack: SaveAck
) -> dict[str, str]:
    """Mesh → why changes that disturb links wait, by the first of *obstacles* whose node may still hold them back."""
    found: dict[str, str] = {}
    for each in obstacles:
        change = given.changes.get(each.mesh, "")
        if acks[each.node].may_hold(each.mesh, change, given.now):
            found.setdefault(each.mesh, each.why)
            _set_ack(each.node, acks[each.node].holding(each.mesh, change, given.now), acks, save_ack)
    return found


def _note_holds(acks: dict[str, Ack], given: PushInput, save_ack: SaveAck) -> None:
    """Note since when each node has not acknowledged a change, and forget it of a node that has.

    It is forgotten only at the end of a push: in this push the node held back nothing.
    """
    for node, digests in given.wanted.items():
        ack = acks[node]
        missing = ack.missing(digests)
        ack = replace(ack, holds={m: h for m, h in ack.holds.items() if m in missing}) if ack.holds else ack
        for mesh in sorted(missing) if ack.pending else ():
            ack = ack.holding(mesh, given.changes.get(mesh, ""), given.now)
        _set_ack(node, ack, acks, save_ack)


def _set_ack(node: str, ack: Ack, acks: dict[str, Ack], save_ack: SaveAck) -> None:
    if ack != acks[node]:
        acks[node] = ack
        save_ack(node, ack)


def _answered_lately(given: PushInput) -> set[str]:
    """The nodes that answered a push so lately that an outage alone is no reason not to wait for them."""
    return {
        node
        for node in given.down
        if (ack := given.acks.get(node)) and not ack.awaits_answer and 0 <= given.now - ack.at < RECENT_ANSWER
    }


def _rollbacks(wanted: Wanted, acks: Acks) -> Iterator[_Obstacle]:
    """The views of what is published that nodes rolled back."""
    for node, digests in sorted(wanted.items()):
        for mesh, why in acks[node].rolled_back(digests).items():
            yield _Obstacle(node=node, mesh=mesh, why=f"blocked: {node}: {why}")


def _settle(given: PushInput, save_ack: SaveAck) -> dict[str, Ack]:
    """The acknowledgements of all nodes, without pushes of a plan that is no longer wanted."""
    found = {}
    for node, digests in given.wanted.items():
        before = given.acks.get(node, Ack())
        found[node] = before.settled(digests)
        if found[node] is not before:
            save_ack(node, found[node])
    return found


def _waves(given: PushInput, acks: Acks) -> list[tuple[Wave, list[_Turn]]]:
    """The nodes that do not run what is published, or report drift, in the order in which they are to be told."""
    wanted = given.wanted
    behind = [n for n, digests in wanted.items() if n in given.request.drifted or not acks[n].covers(digests)]
    refusing = {node for node in behind if acks[node].rolled_back(wanted[node])}
    waves: dict[str, dict[str, Wave]] = {node: {} for node in behind}
    revoking: set[str] = set()
    for mesh in sorted({mesh for node in behind for mesh in wanted[node]}):
        members = [node for node in behind if mesh in wanted[node]]
        views = {node: given.views_of(node, mesh, acks[node].digests.get(mesh)) for node in members}
        valid = given.valid_keys.get(mesh, ())
        revoking |= {node for node, (old, new) in views.items() if old and new and revokes_key(old, new, valid)}
        for node, wave in push_order(views, refusing).items():
            waves[node][mesh] = wave
    # A node in several meshes is told once, so it waits for the later of its waves.
    turns = [
        _Turn(
            node=node,
            wave=max(by_mesh.values(), default=Wave.HARMLESS),
            can_wait=frozenset(m for m, wave in by_mesh.items() if wave is not Wave.HARMLESS and node not in revoking),
            revokes=node in revoking,
        )
        for node, by_mesh in sorted(waves.items())
    ]
    return [(wave, [turn for turn in turns if turn.wave is wave]) for wave in sorted({turn.wave for turn in turns})]


def _unanswered(told: Iterable[str], wanted: Wanted, acks: Acks) -> Iterator[_Obstacle]:
    """The nodes of those *told* that may still answer: what others may use is not withdrawn before they do."""
    for node in sorted(told):
        if _may_still_answer(acks[node], wanted[node]):
            why = f"{node} has not answered yet: what it may still use is not withdrawn"
            yield from (_Obstacle(node=node, mesh=mesh, why=why) for mesh in sorted(acks[node].missing(wanted[node])))


def _may_still_answer(ack: Ack, digests: Digests) -> bool:
    """Whether the node left the first push of its assignments unanswered."""
    return not ack.covers(digests) and not ack.has_given_up


def _tell(
    fleet: Fleet, due: list[str], not_awaited: Set[str], acks: Acks, given: PushInput, *, is_impatient: bool
) -> JobResult:
    if not due:
        return JobResult()
    # A node that left just this unanswered may have rolled it back, and its answer was lost with its path to the
    # master. Only an operator has it try once more.
    repeated = [node for node in due if node not in given.request.retry and _may_have_refused(node, acks[node], given)]
    impatient_of = {
        node
        for node in due
        if is_impatient
        or (node not in given.request.retry and acks[node].conduct.awaited.is_spent(AWAITED_SECONDS, given.now))
    }
    return fleet.apply(
        due, not_awaited, retry_rolled_back=not repeated, impatient_of=impatient_of, is_urgent=given.is_urgent
    )


def _is_slow(ack: Ack, given: PushInput) -> bool:
    """Whether runs have waited for the node's answers for as long as they may."""
    return ack.conduct.awaited.is_spent(AWAITED_SECONDS, given.now)


def _may_have_refused(node: str, ack: Ack, given: PushInput) -> bool:
    wanted = given.wanted[node]
    return ack.is_pending(wanted) or bool(ack.rolled_back(wanted))


def _is_due(node: str, ack: Ack, given: PushInput) -> bool:
    """Whether *node* is to be told now."""
    digests, request = given.wanted[node], given.request
    is_too_soon = 0 <= given.now - ack.at <= DRIFT_RETRY_AFTER or ack.conduct.drift.is_paused(DRIFT, given.now)
    if node in request.drifted and not is_too_soon:
        return True
    is_back = node in given.responsive and ack.awaits_answer and not _is_slow(ack, given)
    is_named = is_back or node in request.retry or node in request.started
    return not ack.covers(digests) and (is_named or ack.is_due(digests, given.now))


def _refusals(wave: Iterable[str], wanted: Wanted, acks: Acks) -> Iterator[_Obstacle]:
    """The nodes of this wave that could not apply what is published.

    A node that did not answer blocks no other, whatever it runs.
    """
    for node in wave:
        if error := acks[node].refused(wanted[node]):
            for mesh in sorted(acks[node].missing(wanted[node])):
                yield _Obstacle(node=node, mesh=mesh, why=f"{node}: {error}")


def _node_answers(node: str, answer: PushAnswer | None, ack: Ack, digests: Digests) -> list[NodeAnswer]:
    """The outcome for *node* in each of its meshes."""
    missing = ack.missing(digests)
    found = []
    for mesh in digests:
        error = answer.error_in([mesh]) if answer is not None and mesh in missing else None
        found.append(NodeAnswer(node=node, mesh=mesh, is_silent=answer is None, error=error))
    return found
