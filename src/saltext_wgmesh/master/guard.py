"""From what a mesh is planned: from what the master reads now, unless that would take too much out of it (ADR 11).

Then the part that is too much is held until the operator confirms it: a policy that drops too much gives way to the
published one, and nodes whose keys or facts went are planned for as if they had not. So the mesh that runs goes on
being looked after meanwhile, and nothing that was held is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saltext_wgmesh.core import facts as facts_module
from saltext_wgmesh.core import plan as planner
from saltext_wgmesh.core import prune, rules
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.facts import Believed, FactsReport
from saltext_wgmesh.core.prune import Loss, Outline
from saltext_wgmesh.core.types import MeshPolicy
from saltext_wgmesh.master import record
from saltext_wgmesh.master.ledger import Ledger

Held = dict[str, Any]
"""What is held, in plain values: ``digest``, ``nodes``, ``links``, ``why`` and ``do``. Empty: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one mesh is planned from."""

    policy: MeshPolicy
    raw_policy: Any = field(repr=False)
    believed: Believed
    held: Held = field(default_factory=dict)
    passed: Loss = prune.NOTHING
    """What may go, by its size or the operator's word, and has not gone yet."""
    retired: bool = False
    """Whether the mesh is to go: the policy has it no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the master reads, and what it is beside."""

    ledger: Ledger
    report: FactsReport
    accepted: Mapping[str, str]
    confirmed: frozenset[str] = frozenset()
    """Digests of losses that the operator wants."""


def source(look: Look, mesh: str, policy: MeshPolicy | None, raw_policy: Any) -> Source:
    """From what *mesh* is to be planned now; *policy* is None if it has none. PlanError as by ``believe``."""
    head = look.ledger.head(mesh)
    if not head.generation and policy is not None:
        return Source(policy=policy, raw_policy=raw_policy, believed=_believe(look, policy))
    before = record.origin_of(look.ledger, mesh)
    wanted = Source(
        policy=policy or before.policy,
        raw_policy=raw_policy if policy else before.raw_policy,
        believed=_believe(look, policy) if policy else Believed(facts={}, rejected=()),
        retired=policy is None,
    )
    if policy is not None and raw_policy == before.raw_policy and wanted.believed.facts == before.facts:
        return wanted
    outline = planner.outline(before.policy, before.facts)
    lost = prune.loss(outline, _outline(wanted))
    passed, fresh = lost & passed_of(look.ledger, mesh), lost - passed_of(look.ledger, mesh)
    too_much = bool(fresh) if wanted.retired else prune.is_too_much(fresh, outline, wanted.policy.prune_guard)
    if not too_much or fresh.digest(mesh) in look.confirmed:
        return replace(wanted, passed=passed | fresh)
    found = Source(
        policy=before.policy,
        raw_policy=before.raw_policy,
        believed=_believe(look, before.policy),
        held=_told(look, wanted, outline, fresh),
    )
    return _as_if_not(look, found, outline, wanted.policy.prune_guard)


def held_of(ledger: Ledger, mesh: str) -> Held:
    """What was held of *mesh* when it was last planned."""
    return dict(ledger.guard(mesh).get("held", {}))


def passed_of(ledger: Ledger, mesh: str) -> Loss:
    """What may go from *mesh*, and had not gone when it was last planned."""
    return prune.loss_from_dict(ledger.guard(mesh).get("passed", {}))


def keep(ledger: Ledger, mesh: str, found: Source) -> None:
    """Both are remembered, as *found* says."""
    ledger.keep_guard(mesh, {"held": found.held, "passed": found.passed.as_dict() if found.passed else {}})


def refuse_unknown(confirm: str, held: Mapping[str, Held]) -> None:
    """Return if *confirm* is the digest of what one mesh holds; LedgerError with what is held."""
    if any(one and one["digest"] == confirm for one in held.values()):
        return
    now = "; ".join(f"{mesh}: confirm={one['digest']}, {one['why']}" for mesh, one in held.items() if one)
    raise LedgerError(f"confirm={confirm} is not what is held now, nothing was changed. Held: {now or 'nothing'}")


def _as_if_not(look: Look, found: Source, before: Outline, percent: int) -> Source:
    """*found*, which is by the published policy; where keys and facts alone are too much, as if they had not gone."""
    mesh, believed = found.policy.name, found.believed
    gone = prune.loss(before, _outline(found))
    passed = gone & passed_of(look.ledger, mesh)
    lost = gone - passed
    if not prune.is_too_much(lost, before, percent):
        return replace(found, passed=passed | lost)
    # Who alone is gone since something is held goes: a key that is deleted must not wait for another decision.
    earlier = Loss(nodes=frozenset(held_of(look.ledger, mesh).get("nodes", ())))
    stays = lost if prune.is_too_much(lost - earlier, before, percent) else lost & earlier
    known = look.ledger.head(mesh).facts
    facts = dict(believed.facts) | {node: known[node] for node in stays.nodes if node in known}
    for node in {node for pair in stays.pairs for node in pair} & facts.keys() & known.keys():
        facts[node] = replace(facts[node], underlay=known[node].underlay)
    return replace(found, believed=replace(believed, facts=dict(sorted(facts.items()))), passed=passed | (lost - stays))


def _told(look: Look, wanted: Source, before: Outline, lost: Loss) -> Held:
    digest = lost.digest(wanted.policy.name)
    parts = []
    if lost.nodes:
        reasons = Counter(_why(look, wanted, node) for node in lost.nodes)
        causes = ", ".join(f"{count} {why}" for why, count in sorted(reasons.items()))
        parts.append(f"{len(lost.nodes)} of {len(before.members)} nodes ({causes})")
    if lost.pairs:
        parts.append(f"{len(lost.pairs)} of {len(before.pairs)} direct links")
    limit = (
        "which takes the operator's word" if wanted.retired else f"more than prune_guard: {wanted.policy.prune_guard} %"
    )
    return {
        "digest": digest,
        "nodes": sorted(lost.nodes),
        "links": lost.links,
        "why": f"this would drop {' and '.join(parts)}, {limit}; until then the mesh goes on without it",
        "do": f"put back what is missing, or have it dropped: salt-run wgmesh.converge confirm={digest}",
    }


def _why(look: Look, wanted: Source, node: str) -> str:
    """As the end of a count: *2 have no accepted key*."""
    if wanted.retired:
        return "in a mesh that the policy has no more"
    if node not in look.accepted:
        return "without an accepted key"
    if rules.rule_for(wanted.policy, node) is None:
        return f"matched by no entry of wgmesh:{wanted.policy.name}:nodes"
    if node not in wanted.believed.facts:
        return "without facts that can be believed"
    return "that can't be placed, for lack of relays or of an address family"


def _believe(look: Look, policy: MeshPolicy) -> Believed:
    return facts_module.believe(policy, look.report, look.ledger.head(policy.name).facts, look.accepted)


def _outline(found: Source) -> Outline:
    return Outline() if found.retired else planner.outline(found.policy, found.believed.facts)
