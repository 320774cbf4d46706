"""From what the master knows to what nodes run: read, assess, draft, prove, publish, push, summarize.

The ledger is read once, into values. Each step is given values and returns values. Only this module writes, at four
points: after the assessment, when it publishes, as answers to the push arrive, and at the end.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

from saltext_wgmesh.core.inputs import node_matching
from saltext_wgmesh.core.keys import rotation as rotation_module
from saltext_wgmesh.core.liveness import mesh_health as health_module
from saltext_wgmesh.core.model.stored_time import plausible
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.master.drafting import key_rotation, policy_pin, psk
from saltext_wgmesh.master.drafting.draft import Draft, DraftInput, draft, effective_inventory, require_proof
from saltext_wgmesh.master.environment import Environment
from saltext_wgmesh.master.fleet import link_survey
from saltext_wgmesh.master.fleet.link_survey import Survey
from saltext_wgmesh.master.fleet.push import PushInput, PushResult, collect_late_returns, push
from saltext_wgmesh.master.records import mesh_records
from saltext_wgmesh.master.records.conduct import ENROLMENT
from saltext_wgmesh.master.records.inventory import Inventory
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.mesh_head import MeshHead
from saltext_wgmesh.master.records.mesh_records import LedgerSnapshot
from saltext_wgmesh.master.records.plan_inputs import Generation
from saltext_wgmesh.master.records.revocations import Identity, untold
from saltext_wgmesh.master.report import MeshReport, merge_rounds
from saltext_wgmesh.master.requests.request import ConvergeRequest
from saltext_wgmesh.master.run import Assessment, Publication, RunOutcome
from saltext_wgmesh.master.summary import summarize
from saltext_wgmesh.version import __version__

log = logging.getLogger(__name__)


def converge(
    env: Environment, request: ConvergeRequest = ConvergeRequest.EMPTY, *, interactive: bool = True
) -> list[MeshReport]:
    """Have every mesh assessed, planned, proved, published and pushed; the caller holds the run queue's lock.

    Nothing is published unless every mesh's plan holds its proof, and nodes whose assignments are unchanged are not
    pushed to. Unless the run is *interactive*, nothing is planned if all is as it was when the last run left nothing
    to do: then there are no reports.

    A revoked key is told before any node is asked for its links, since each node can make the master wait. If a key is
    revoked while nodes are asked, all begins once more.
    """
    told: set[Identity] = set()
    rounds: list[list[MeshReport]] = []
    while True:
        named = request.retry | request.started | request.drifted
        before = mesh_records.without_lost_assignments(env.ledger, mesh_records.read_snapshot(env.ledger), named)
        inventory = env.read_inventory()
        revoked = untold(before.meshes.values(), inventory.accepted, request.confirm)
        if revoked <= told:
            surveyed = _survey(env, before, inventory, request)
            if not surveyed.is_interrupted:
                rounds.append(_run(env, before, inventory, surveyed, request, interactive=interactive))
                return [*merge_rounds(rounds).values()]
        else:
            told |= revoked
            alone, unasked = ConvergeRequest(confirm=request.confirm), link_survey.put_off(before)
            rounds.append(_run(env, before, inventory, unasked, alone, interactive=interactive))


def _survey(env: Environment, before: LedgerSnapshot, inventory: Inventory, request: ConvergeRequest) -> Survey:
    is_urgent = env.watch_keys(inventory.accepted)
    return link_survey.survey(env.fleet, before, request, inventory.accepted, env.clock, is_urgent)


def _run(
    env: Environment,
    before: LedgerSnapshot,
    inventory: Inventory,
    surveyed: Survey,
    request: ConvergeRequest,
    *,
    interactive: bool,
) -> list[MeshReport]:
    """All steps after the survey."""
    found = _assess(env, before, inventory, surveyed, request)
    _save_assessment(env.ledger, before, found.snapshot)
    if not (interactive or request.forces_run) and before.idle_fingerprint == _fingerprint(found, {}, env.clock()):
        return []
    drafts = draft(_draft_input(env, found, request))
    # All proofs come before the first write: a plan that does not hold leaves every mesh as it is.
    _prove_changed(drafts)
    # Each view carries this name, and a node refuses the views of another ledger.
    env.ledger.ensure_name(env.new_ledger_name)
    published = _publish_all(env, found, drafts)
    found = replace(found, snapshot=_with_changed_facts(env, found.snapshot, drafts))
    # A node reads its view in the pillar, so nodes are told after all meshes are published.
    enrolling = _enrol(env, found.inventory, drafts, request.started)
    _request_new_keys(env, published)
    pushed = _push(env, found, published, request)
    outcome = RunOutcome(
        before=before, found=found, published=published, pushed=pushed, enrolling=enrolling, now=env.clock()
    )
    reports = summarize(outcome)
    _conclude(env, outcome, reports)
    return reports


# --- assess --------------------------------------------------------------------------------------------


def _assess(
    env: Environment, before: LedgerSnapshot, inventory: Inventory, surveyed: Survey, request: ConvergeRequest
) -> Assessment:
    """Conclude the health and the effective policy from what the nodes answered."""
    health = dict(surveyed.health)
    if request.rebalance:
        health = {mesh: health_module.clear_recovered(known) for mesh, known in health.items()}
    asked = before.with_acks(link_survey.acks_after(before.acks, surveyed, env.clock()))
    # A node that rolled back may have said so after the run before had stopped waiting for it.
    acks = collect_late_returns(env.fleet, asked.acks, env.clock())
    assessed = asked.with_health(health).with_acks(acks)
    rollbacks = policy_pin.auto_rollback(assessed, inventory.policy, env.clock())
    for mesh, (_, blame) in rollbacks.items():
        log.warning("wgmesh %s: %s", mesh, blame.warning)
    snapshot = assessed.with_pins({mesh: pin for mesh, (pin, _) in rollbacks.items()})
    return Assessment(
        pillar_policy=inventory.policy,
        inventory=effective_inventory(snapshot, inventory),
        snapshot=snapshot,
        reports=surveyed.reports,
        blames={mesh: blame for mesh, (_, blame) in rollbacks.items()},
    )


def _save_assessment(ledger: Ledger, before: LedgerSnapshot, after: LedgerSnapshot) -> None:
    """Write what the assessment changed.

    It is written before anything is planned, so that a policy that can't be planned costs no observation.
    """
    for mesh, records in after.meshes.items():
        if records.health != before.meshes[mesh].health:
            ledger.save_health(mesh, records.health)
    for node, ack in after.acks.items():
        if ack is not before.acks.get(node):
            ledger.save_ack(node, ack)
    for mesh, records in after.meshes.items():
        if records.pin != before.meshes[mesh].pin:
            ledger.save_pin(mesh, records.pin)


def _fingerprint(found: Assessment, new_heads: Mapping[str, MeshHead], now: float) -> str:
    """A digest of all that a plan is made from, the version of the planner included.

    Only the health, and the rotations that are due, change with time alone. *new_heads* are those that the run has
    written.
    """
    heads = {mesh: records.head for mesh, records in found.snapshot.meshes.items()} | dict(new_heads)
    health = {
        mesh: [
            sorted(known.down_nodes),
            sorted(known.recovering),
            sorted(known.down_links),
            sorted(known.unresponsive),
            sorted(known.links),
        ]
        for mesh, known in ((mesh, records.health) for mesh, records in found.snapshot.meshes.items())
    }
    # A time that a wrong clock wrote: one run more sets it right.
    generations = {m: (h.generation, _published_at(h, now) != h.published_at) for m, h in sorted(heads.items())}
    rotations = {mesh: key_rotation.rotation_fingerprint(head, now) for mesh, head in sorted(heads.items())}
    inventory = found.inventory
    accepted, mine = sorted(inventory.accepted.items()), sorted(inventory.mine.items())
    # As Python writes them: what comes from YAML and from minions may have keys that JSON can't sort.
    parts = repr([__version__, inventory.policy, accepted, mine, health, generations, rotations])
    return hashlib.sha256(parts.encode()).hexdigest()


def _draft_input(env: Environment, found: Assessment, request: ConvergeRequest) -> DraftInput:
    return DraftInput(
        snapshot=found.snapshot,
        inventory=found.inventory,
        secrets=env.secrets,
        now=env.clock(),
        reports=found.reports,
        request=request,
    )


def _prove_changed(drafts: Iterable[Draft]) -> None:
    """Return if every plan that would be published holds its proof; ProofError for the first that does not."""
    for one in drafts:
        # The published plan held its proof when it was published.
        if one.changed:
            require_proof(one)


# --- publish -------------------------------------------------------------------------------------------


def _publish_all(env: Environment, found: Assessment, drafts: Sequence[Draft]) -> list[Publication]:
    """Every draft stands in the ledger, and what is of no use any longer is gone from it."""
    for mesh in policy_pin.outdated_pins(found.snapshot, found.pillar_policy):
        env.ledger.save_pin(mesh, None)
    published = [_publish(env, found.snapshot, one) for one in drafts]
    _forget_deleted(env, found.inventory, {node for one in drafts for node in one.plan.members})
    return published


def _with_changed_facts(env: Environment, snapshot: LedgerSnapshot, drafts: Iterable[Draft]) -> LedgerSnapshot:
    """*snapshot* in which each node is noted that has other facts than before, which change the views of others."""
    changed = {
        node
        for one in drafts
        for node, facts in one.facts.items()
        if (before := one.head.facts.get(node))
        and before != facts
        and before.salt_key == facts.salt_key
        # Other keys that the master asked for are no whim of the node.
        and not rotation_module.is_step(one.head.rotation, before, facts)
    }
    now, acks = env.clock(), {node: snapshot.acks[node] for node in changed if node in snapshot.acks}
    noted = {n: replace(a, conduct=replace(a.conduct, facts=a.conduct.facts.once_more(now))) for n, a in acks.items()}
    for node, ack in noted.items():
        env.ledger.save_ack(node, ack)
    return snapshot.with_acks(noted)


def _publish(env: Environment, snapshot: LedgerSnapshot, one: Draft) -> Publication:
    mesh, before, changed = one.policy.name, one.head, one.changed
    publication = _publication(one, snapshot, env.clock())
    head = publication.head
    if one.new_secret:
        # Before the views that name its PSKs: a published view whose secret was lost can't be delivered.
        env.secrets(mesh).save(one.new_secret)
    if changed:
        generation = Generation(
            inputs=one.inputs,
            reasons=one.reasons,
            published_at=head.published_at,
            is_retired=one.source.is_retired,
        )
        env.ledger.publish(mesh, head, changed, generation)
    elif head != before:
        env.ledger.save_head(mesh, head)
    if one.source.guard != snapshot.mesh(mesh).guard:
        env.ledger.save_guard(mesh, one.source.guard)
    psk.drop_unused_secrets(env.secrets(mesh), before.psk_rollover, head.psk_rollover)
    return publication


def _publication(one: Draft, snapshot: LedgerSnapshot, now: float) -> Publication:
    was_published = bool(one.changed)
    held = one.source.held
    notified = rotation_module.to_notify(one.rotation, one.health.down_nodes, now)
    head = MeshHead(
        generation=one.head.generation + 1 if was_published else one.head.generation,
        digests=one.digests,
        without_view=one.without_view,
        allocations=one.plan.allocations,
        facts=one.facts,
        published_at=now if was_published else _published_at(one.head, now),
        drained=one.drained,
        transition=one.inputs.transition,
        # Written before the nodes are told: a node that was told twice would make no third key, but take longer.
        rotation=rotation_module.mark_notified(one.rotation, notified, now) if notified else one.rotation,
        psk_rollover=one.psk_rollover,
    )
    return Publication(
        draft=one,
        head=head,
        was_published=was_published,
        newly_held=held is not None and held != snapshot.mesh(one.policy.name).guard.held,
        notified=notified,
    )


def _published_at(head: MeshHead, now: float) -> float:
    """When the generation of *head* was published; 0 if there is none."""
    return plausible(head.published_at, now) if head.generation else 0.0


def _forget_deleted(env: Environment, inventory: Inventory, planned: Container[str]) -> None:
    """Nothing but the addresses is kept of nodes whose key is gone, so that a re-used minion id inherits nothing.

    Nodes whose removal is held are *planned* for, and keep everything until it is confirmed.
    """
    for node in env.ledger.nodes():
        if node not in inventory.accepted and node not in planned:
            env.ledger.forget(node)
    for node in inventory.mine:
        if node not in inventory.accepted and node not in planned:
            env.forget_facts(node)


# --- nodes that are told something beside their views --------------------------------------------------


def _enrol(
    env: Environment, inventory: Inventory, drafts: Iterable[Draft], started: Iterable[str]
) -> Mapping[str, tuple[str, ...]]:
    """Mesh → the nodes that were told to apply the formula.

    They started just now, have a place in the mesh, and have published no facts under their present Salt key.
    """
    fresh = [n for n in sorted(started) if n in inventory.accepted and not _has_facts(inventory, n)]
    now, acks = env.clock(), env.ledger.acks(fresh)
    # An event can name any node, so each is told seldom.
    fresh = [n for n in fresh if not acks[n].conduct.enrolment.is_paused(ENROLMENT, now)]
    enrolling = {
        one.policy.name: tuple(
            node for node in fresh if not one.source.is_retired and node_matching.rule_for(one.policy, node)
        )
        for one in drafts
    }
    nodes = sorted({node for members in enrolling.values() for node in members})
    if nodes:
        log.info("wgmesh: %s started without facts: applying the formula there", ", ".join(nodes))
        env.fleet.enrol(nodes)
        for node in nodes:
            conduct = acks[node].conduct
            noted = replace(conduct, enrolment=conduct.enrolment.once_more(now))
            env.ledger.save_ack(node, replace(acks[node], conduct=noted))
    return enrolling


def _has_facts(inventory: Inventory, node: str) -> bool:
    raw = inventory.mine.get(node)
    return isinstance(raw, Mapping) and raw.get("salt_key") == inventory.accepted[node]


def _request_new_keys(env: Environment, published: Iterable[Publication]) -> None:
    """Tell nodes to make another key. The run does not wait: they publish it, and that starts the next run."""
    nodes = sorted({node for one in published for node in one.notified})
    if nodes:
        log.info("wgmesh: requesting another key of %s", ", ".join(nodes))
        env.fleet.renew_keys(nodes)


# --- push ----------------------------------------------------------------------------------------------


def _push(
    env: Environment, found: Assessment, published: Sequence[Publication], request: ConvergeRequest
) -> PushResult:
    """Tell the nodes that are due to apply what is published."""
    by_mesh = {one.mesh: one for one in published}
    wanted: dict[str, dict[str, str]] = {}
    for mesh, one in by_mesh.items():
        for node, digest in one.head.digests.items():
            wanted.setdefault(node, {})[mesh] = digest
    now, acks = env.clock(), found.snapshot.acks

    def views_of(node: str, mesh: str, acknowledged: str | None) -> tuple[View | None, View | None]:
        return env.ledger.view_with_digest(node, mesh, acknowledged), by_mesh[mesh].draft.records[node].view

    contexts = (one.draft.rotation_context(one.head, acks, now) for one in published)
    # They are pushed to for their facts: these say whether the new key is active.
    unconfirmed = {node for context in contexts for node in key_rotation.unconfirmed_activations(context)}
    given = PushInput(
        wanted=wanted,
        acks=acks,
        views_of=views_of,
        request=replace(request, drifted=request.drifted | unconfirmed),
        responsive=found.reports.keys(),
        down=frozenset[str]().union(*(health_module.silent_nodes(one.draft.health) for one in published)),
        now=now,
        changes={one.mesh: policy_pin.policy_fingerprint(one.draft.source.raw_policy) for one in published},
        is_urgent=env.watch_keys(found.inventory.accepted),
        valid_keys={one.mesh: frozenset(k for f in one.draft.facts.values() for k in f.keys) for one in published},
    )
    return push(env.fleet, given, env.ledger.save_ack)


# --- finish -------------------------------------------------------------------------------------------


def _conclude(env: Environment, outcome: RunOutcome, reports: Sequence[MeshReport]) -> None:
    """Write what the answers to the push changed, announce the reports, and note whether anything is left to do."""
    heads = outcome.heads
    for one in outcome.published:
        if heads[one.mesh] != one.head:
            env.ledger.save_head(one.mesh, heads[one.mesh])
    _announce(env, reports)
    is_idle = all(report.leaves_nothing_to_do for report in reports)
    env.ledger.save_idle_fingerprint(_fingerprint(outcome.found, heads, env.clock()) if is_idle else "")


def _announce(env: Environment, reports: Iterable[MeshReport]) -> None:
    """Log and announce the reports of a run that changed something."""
    for report in reports:
        if report.made_changes:
            log.log(logging.WARNING if report.newly_held else logging.INFO, "wgmesh %s", report.as_dict())
            env.announce(report)
