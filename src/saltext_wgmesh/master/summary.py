"""The summary of a run: a report for each mesh."""

from __future__ import annotations

from dataclasses import replace

from saltext_wgmesh.master.drafting import key_rotation, next_step, policy_pin
from saltext_wgmesh.master.records.decisions import PolicyPin
from saltext_wgmesh.master.report import MeshReport
from saltext_wgmesh.master.run import Publication, RunOutcome

FOLLOW_UP_WINDOW = 30.0
"""Seconds after a step of a transition in which its links must come up for the next run to follow at once."""


def summarize(outcome: RunOutcome) -> list[MeshReport]:
    """A report for each mesh, in order of their names."""
    # One key serves a node in all of its meshes, so a request in one of them explains the key in all.
    rotations = (known for one in outcome.published for known in (one.draft.head.rotation, one.draft.rotation))
    requested = frozenset(node for known in rotations for node in known.requested)
    heads = outcome.heads
    return [_report(outcome, replace(one, head=heads[one.mesh]), requested) for one in outcome.published]


def _report(outcome: RunOutcome, one: Publication, requested: frozenset[str]) -> MeshReport:
    drafted, head, mesh = one.draft, one.head, one.mesh
    answers = [answer for answer in outcome.pushed.answers if answer.mesh == mesh]
    rejected = {rejection.node for rejection in drafted.rejected}
    laggards = head.psk_rollover.laggards
    context = drafted.rotation_context(head, outcome.pushed.acks, outcome.now)
    return MeshReport(
        mesh=mesh,
        generation=head.generation,
        published=one.was_published,
        changed=tuple(sorted(drafted.changed)),
        applied=tuple(answer.node for answer in answers if answer.has_applied),
        failed={answer.node: answer.error for answer in answers if answer.error is not None},
        silent=tuple(answer.node for answer in answers if answer.is_silent),
        not_acknowledged=outcome.behind(one),
        unplaced=drafted.reasons,
        rejected=tuple(str(rejection) for rejection in drafted.rejected),
        down=tuple(sorted([*drafted.health.down_nodes, *("--".join(pair) for pair in drafted.health.down_links)])),
        needs_attention=tuple(sorted(n for n in rejected if n in drafted.plan.members or n in drafted.reasons)),
        enrolling=outcome.enrolling[mesh],
        held_loss=drafted.source.held,
        newly_held=one.newly_held,
        psk_laggards=tuple(sorted(laggards)),
        psk_unacknowledged=tuple(sorted(node for node, laggard in laggards.items() if laggard.notified)),
        newly_unresponsive=_newly_unresponsive(outcome, mesh),
        newly_unanswered=_newly_unanswered(outcome, one),
        push_blocked_by=outcome.pushed.blocked_by.get(mesh, ""),
        transition_waits_for=tuple(head.transition.describe()),
        policy_pin=_policy_pin(outcome, mesh),
        rotating=key_rotation.rotation_blockers(context),
        warnings=_warnings(outcome, one, requested),
        has_follow_up=_transition_continues(outcome, one)
        or key_rotation.rotation_can_continue(drafted.policy, context),
    )


def _policy_pin(outcome: RunOutcome, mesh: str) -> PolicyPin | None:
    """The pin by which this run planned *mesh*. A pin whose policy in the pillar has changed has ended."""
    snapshot = outcome.found.snapshot
    ended = mesh in policy_pin.outdated_pins(snapshot, outcome.found.pillar_policy)
    return None if ended else PolicyPin.of(mesh, snapshot.mesh(mesh).pin)


def _warnings(outcome: RunOutcome, one: Publication, requested: frozenset[str]) -> tuple[str, ...]:
    """The reason of a rollback, addresses that should not be in use, and keys that changed unexpectedly."""
    blame = outcome.found.blames.get(one.mesh)
    unexpected_keys = key_rotation.warnings(one.draft.head, one.draft.facts, requested)
    return (*((blame.warning,) if blame else ()), *one.draft.warnings, *unexpected_keys)


def _newly_unresponsive(outcome: RunOutcome, mesh: str) -> tuple[str, ...]:
    """The nodes that did not answer in this run, did so before, and are not known to be down."""
    health = outcome.found.snapshot.mesh(mesh).health
    return tuple(sorted(health.unresponsive - outcome.before.mesh(mesh).health.unresponsive - health.down_nodes))


def _newly_unanswered(outcome: RunOutcome, one: Publication) -> tuple[str, ...]:
    """The nodes that left this push unanswered, but none before it, and are not known to be down."""
    pending = {node: outcome.pushed.acks[node].pending for node in outcome.behind(one)}
    told = {answer.node for answer in outcome.pushed.answers if answer.mesh == one.mesh and answer.is_silent}
    first = {node for node, push in pending.items() if node in told and push is not None and push.tries == 1}
    return tuple(sorted(first - one.draft.health.down_nodes))


def _transition_continues(outcome: RunOutcome, one: Publication) -> bool:
    """Whether the next step of a transition may be possible within seconds; later, the scheduled runs look."""
    # A time in the future was written while the clock was ahead: it says nothing of how recent the generation is.
    is_recent = 0 <= outcome.now - one.head.published_at < FOLLOW_UP_WINDOW
    if one.mesh in outcome.pushed.blocked_by or not is_recent:
        return False
    # While the policy is not the pillar's, leaving relays are drained. Once every node has applied that, they may go.
    is_drained = one.draft.inputs.policy != one.draft.policy and not outcome.behind(one)
    records = replace(outcome.found.snapshot.mesh(one.mesh), head=one.head, acks=outcome.pushed.acks)
    return is_drained or next_step.transition_can_continue(records)
