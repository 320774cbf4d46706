"""The prune guard: a mesh is planned from what the master reads now, unless too much of it would go (ADR 11).

A loss that is too large is held until the operator confirms it. A policy that drops too much gives way to the
published one. Nodes whose keys or facts vanished are planned for as if these were still there. So the running mesh is
still maintained, and what is held can come back.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.inputs import node_matching, trusted_facts
from saltext_wgmesh.core.inputs.key_claims import KeyOwners, key_owners
from saltext_wgmesh.core.inputs.trusted_facts import ParsedFacts, TrustedFacts
from saltext_wgmesh.core.keys import rotation
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.core.planning import planner, prune_guard
from saltext_wgmesh.core.planning.prune_guard import Loss, Membership
from saltext_wgmesh.master.records.decisions import GuardRecord, HeldLoss
from saltext_wgmesh.master.records.mesh_records import MeshRecords


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSource:
    """Policy and facts that one mesh is planned from, and the loss that they hold or allow."""

    policy: MeshPolicy
    raw_policy: Any = field(repr=False)
    believed: TrustedFacts
    held: HeldLoss | None = None
    approved_loss: Loss = prune_guard.NO_LOSS
    """The loss that may go, by its size or by confirmation, and has not gone yet."""
    is_retired: bool = False
    """Whether the mesh is to go: the policy no longer has it."""

    @property
    def guard(self) -> GuardRecord:
        """The guard's record once this is planned."""
        return GuardRecord(held=self.held, approved_loss=self.approved_loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardInput:
    """Facts and keys as the master reads them, the same for all meshes."""

    report: ParsedFacts
    accepted: Mapping[str, str]
    """Minion id → fingerprint of its accepted Salt key."""
    owners: KeyOwners = field(default_factory=lambda: MappingProxyType({}))
    """The owners of public keys, by the records of all meshes."""
    flapping: Container[str] = ()
    """Nodes that published other facts too often, and keep their last good ones for now."""
    confirmed: frozenset[str] = frozenset()
    """Digests of losses that the operator confirmed."""


def choose_source(given: GuardInput, records: MeshRecords, policy: MeshPolicy | None, raw_policy: Any) -> PlanSource:
    """Return the source that the mesh is to be planned from now; PlanError as by ``believe``.

    *policy* is the pillar's, and *raw_policy* its plain form; None if the pillar no longer has the mesh.
    """
    if not records.head.generation and policy is not None:
        return PlanSource(policy=policy, raw_policy=raw_policy, believed=_believe(given, records, policy))
    before = records.history.current().inputs
    wanted = PlanSource(
        policy=policy or before.policy,
        raw_policy=raw_policy if policy else before.raw_policy,
        believed=_believe(given, records, policy) if policy else TrustedFacts(facts={}, rejected=()),
        is_retired=policy is None,
    )
    if policy is not None and raw_policy == before.raw_policy and wanted.believed.facts == before.facts:
        return wanted
    outline = planner.membership(before.policy, before.facts)
    lost = prune_guard.loss(outline, _outline(wanted))
    # A loss that was approved may take several runs, as relays are drained first. It is not asked for twice.
    approved = lost & records.guard.approved_loss
    unapproved = lost - records.guard.approved_loss
    limit = wanted.policy.prune_guard
    # A whole mesh never goes by its size alone.
    is_too_much = bool(unapproved) if wanted.is_retired else prune_guard.exceeds_guard(unapproved, outline, limit)
    if not is_too_much or unapproved.digest(records.mesh) in given.confirmed:
        return replace(wanted, approved_loss=approved | unapproved)
    published = PlanSource(
        policy=before.policy,
        raw_policy=before.raw_policy,
        believed=_believe(given, records, before.policy),
        held=_held_loss(given, wanted, outline, unapproved),
    )
    return _restore_vanished(given, records, published, outline, limit)


def require_known_digest(confirm: str, held: Mapping[str, HeldLoss | None]) -> None:
    """Return if *confirm* is the digest of a held loss; LedgerError with those that are *held*, by mesh."""
    losses = {mesh: loss for mesh, loss in held.items() if loss}
    if any(loss.digest == confirm for loss in losses.values()):
        return
    now = "; ".join(f"{mesh}: confirm={loss.digest}, {loss.why}" for mesh, loss in losses.items())
    raise LedgerError(f"confirm={confirm} is not what is held now, nothing was changed. Held: {now or 'nothing'}")


def _restore_vanished(
    given: GuardInput, records: MeshRecords, found: PlanSource, before: Membership, limit: int
) -> PlanSource:
    """*found*, which is by the published policy, with the nodes and links restored whose loss is too large.

    These are lost although the policy is the published one: their keys or facts vanished. A restored node keeps its
    public keys too: another node that publishes one of them does not get it.
    """
    gone = prune_guard.loss(before, _outline(found))
    approved = gone & records.guard.approved_loss
    lost = gone - approved
    if not prune_guard.exceeds_guard(lost, before, limit):
        return replace(found, approved_loss=approved | lost)
    # A node that alone vanished since something is held goes: revoking its key must not wait for another decision.
    held_before = Loss(nodes=frozenset(records.guard.held.nodes if records.guard.held else ()))
    restored = lost if prune_guard.exceeds_guard(lost - held_before, before, limit) else lost & held_before
    known = records.head.facts
    kept = {node: known[node] for node in restored.nodes if node in known}
    reserved = replace(given, owners={**given.owners, **key_owners([kept.values()])})
    believed = _believe(reserved, records, found.policy)
    facts = dict(believed.facts) | kept
    for node in {node for pair in restored.pairs for node in pair} & facts.keys() & known.keys():
        # Whether two leaves link directly depends on their underlay addresses, and on the networks around these.
        old = known[node]
        facts[node] = replace(facts[node], underlay=old.underlay, networks=old.networks, lans=old.lans)
    believed = replace(believed, facts=dict(sorted(facts.items())))
    return replace(found, believed=believed, approved_loss=approved | (lost - restored))


def _held_loss(given: GuardInput, wanted: PlanSource, before: Membership, lost: Loss) -> HeldLoss:
    digest = lost.digest(wanted.policy.name)
    parts = []
    if lost.nodes:
        reasons = Counter(_why(given, wanted, node) for node in lost.nodes)
        causes = ", ".join(f"{count} {why}" for why, count in sorted(reasons.items()))
        parts.append(f"{len(lost.nodes)} of {len(before.members)} nodes ({causes})")
    if lost.pairs:
        parts.append(f"{len(lost.pairs)} of {len(before.pairs)} direct links")
    limit = (
        "which the operator must confirm"
        if wanted.is_retired
        else f"more than prune_guard: {wanted.policy.prune_guard} %"
    )
    return HeldLoss(
        digest=digest,
        nodes=tuple(sorted(lost.nodes)),
        links=tuple(lost.links),
        why=f"this would drop {' and '.join(parts)}, {limit}; until then the mesh keeps them",
        remedy=f"restore what is missing, or confirm the loss: salt-run wgmesh.converge confirm={digest}",
    )


def _why(given: GuardInput, wanted: PlanSource, node: str) -> str:
    """The cause of one loss, to follow a count, as in *2 without an accepted key*."""
    if wanted.is_retired:
        return "in a mesh that the policy no longer has"
    if node not in given.accepted:
        return "without an accepted key"
    if node_matching.rule_for(wanted.policy, node) is None:
        return f"matched by no entry of wgmesh:{wanted.policy.name}:nodes"
    if node not in wanted.believed.facts:
        return "without facts that can be trusted"
    return "that can't be placed, for lack of relays or of an address family"


def _believe(given: GuardInput, records: MeshRecords, policy: MeshPolicy) -> TrustedFacts:
    return trusted_facts.select_facts(
        policy,
        given.report,
        records.head.facts,
        given.accepted,
        placed=records.head.placed,
        owners_elsewhere=given.owners,
        flapping=given.flapping,
        is_asked_for=functools.partial(rotation.is_step, records.head.rotation),
    )


def _outline(found: PlanSource) -> Membership:
    return Membership() if found.is_retired else planner.membership(found.policy, found.believed.facts)
