"""From what the master knows to what the nodes run: plan, prove, publish, push, confirm.

``draft`` has no effect at all, and is what ``salt-run wgmesh.plan`` and ``verify`` show; ``converge`` makes
it real. Both read the same inventory, and neither believes an event.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import salt.utils.event

from saltext_wgmesh.core import facts as facts_module
from saltext_wgmesh.core import health as health_module
from saltext_wgmesh.core import names, verify
from saltext_wgmesh.core import policy as policy_module
from saltext_wgmesh.core import rotation as rotation_module
from saltext_wgmesh.core.errors import LedgerError, PlanError, PolicyError, Problem, ProofError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.rotation import Rotation
from saltext_wgmesh.core.secrecy import Secrecy
from saltext_wgmesh.core.types import Facts, MeshPolicy, Plan, Policy, Rejection, View
from saltext_wgmesh.master import checkup, fleet, guard, inventory, pinned, presharing, rotate, steps
from saltext_wgmesh.master.keyring import Secret
from saltext_wgmesh.master.ledger import Head, Ledger
from saltext_wgmesh.master.push import push
from saltext_wgmesh.master.record import Origin
from saltext_wgmesh.master.round import NOTHING, Asked, Report

log = logging.getLogger(__name__)

STEP_PATIENCE = 30.0
"""Seconds after a step of a rollout in which its links must be heard for the next to follow at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan for one mesh beside what is published now."""

    policy: MeshPolicy
    head: Head
    plan: Plan
    health: Health
    drained: frozenset[str]
    origin: Origin
    """What the plan was made from; while a rollout is under way not all that is known now."""
    facts: Mapping[str, Facts]
    """Those that are believed."""
    rejected: tuple[Rejection, ...]
    reasons: Mapping[str, str]
    """Accepted nodes with facts that are not in the plan → why."""
    entries: Mapping[str, dict[str, Any]]
    """Node → its record as the ledger keeps it: a view with its digest, or a reason."""
    source: guard.Source
    """What it was made from, and what is held."""
    rotation: Rotation = rotation_module.NOTHING
    """As it is from now on."""
    secrecy: Secrecy = field(default_factory=Secrecy)
    fresh: Secret | None = field(default=None, repr=False)
    """The secret that must be kept before this is published."""

    @property
    def digests(self) -> dict[str, str]:
        """Node → digest of its record."""
        return {node: entry["digest"] for node, entry in self.entries.items()}

    @property
    def changed(self) -> dict[str, dict[str, Any]]:
        """The records that differ from the published ones."""
        return {n: e for n, e in self.entries.items() if self.head.digests.get(n) != e["digest"]}


def draft(
    opts: dict[str, Any],
    ledger: Ledger,
    found: inventory.Inventory | None = None,
    health: Mapping[str, Health] | None = None,
    answers: steps.Answers = MappingProxyType({}),
    asked: Asked = NOTHING,
) -> list[Draft]:
    """A draft for every mesh of the policy, and for those that it has no more and that nodes may still have, in order
    of name; by *health*, or what the ledger has of it. A rollout goes on as far as the *answers* of nodes allow.

    Raises PolicyError or PlanError with everything that is wrong, over all meshes.
    """
    found = found or _in_force(ledger, inventory.read(opts))
    policy = policy_module.parse(found.policy)
    look = guard.Look(
        ledger=ledger,
        report=facts_module.parse(found.mine, found.accepted),
        accepted=found.accepted,
        confirmed=asked.confirm,
    )
    sources: dict[str, guard.Source] = {}
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for name in sorted({*policy.meshes, *(mesh for mesh in ledger.meshes() if ledger.head(mesh).digests)}):
        try:
            sources[name] = guard.source(look, name, policy.meshes.get(name), found.policy.get(name))
            known = (health or {}).get(name) or ledger.health(name)
            one = _draft_mesh(ledger, sources[name], found, known, answers, asked)
            one = one if sources[name].retired else _with_turns(ledger, one, asked)
            drafts.append(_with_preshared_keys(opts, ledger, one, renew=name in asked.renew))
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    _refuse_conflicts(policy, sources)
    return drafts


def _refuse_conflicts(policy: Policy, sources: Mapping[str, guard.Source]) -> None:
    """PolicyError if a mesh stands in the way of others that is there only because its end is held."""
    gone = {mesh: one for mesh, one in sources.items() if one.held and mesh not in policy.meshes}
    if not gone:
        return
    try:
        policy_module.parse({mesh: one.raw_policy for mesh, one in sources.items() if not one.retired})
    except PolicyError as error:
        held = [Problem(where=f"wgmesh:{mesh}", what=one.held["why"], do=one.held["do"]) for mesh, one in gone.items()]
        raise PolicyError([*error.problems, *held]) from None


def _draft_mesh(
    ledger: Ledger,
    source: guard.Source,
    found: inventory.Inventory,
    health: Health,
    answers: steps.Answers,
    asked: Asked,
) -> Draft:
    mesh, believed = source.policy, source.believed
    head = ledger.head(mesh.name)
    wanted = Origin(
        policy=mesh,
        facts=believed.facts,
        register=head.register,
        health=health,
        drained=(head.drained | asked.drain).difference(asked.undrain).intersection(found.accepted),
        turns=frozenset(head.rotation.turns),
        raw_policy=source.raw_policy,
    )
    # Without nodes there is nobody to lose a packet.
    goal = (wanted, wanted.plan()) if source.retired else None
    origin, plan = goal or steps.next_step(ledger, mesh.name, wanted, answers, found.accepted)
    # Who has no accepted key is told nothing: there is nobody to tell.
    reasons = {n: why for n, why in _reasons(mesh, believed, plan).items() if n in found.accepted}
    entries = _entries(plan, reasons, {r.node for r in believed.rejected}, head)
    if source.retired:
        reasons = {n: f"the policy has the mesh {mesh.name} no more" for n in head.digests if n in found.accepted}
        entries = {n: _farewell(why) for n, why in reasons.items()}
    return Draft(
        policy=mesh,
        head=head,
        plan=plan,
        health=health,
        drained=wanted.drained,
        origin=origin,
        facts=believed.facts,
        rejected=believed.rejected,
        reasons=reasons,
        entries=entries,
        source=source,
    )


def _in_force(ledger: Ledger, found: inventory.Inventory) -> inventory.Inventory:
    """*found*, with what was rolled back as it was then."""
    return replace(found, policy=pinned.in_force(ledger, found.policy))


def _farewell(reason: str) -> dict[str, Any]:
    return {"reason": reason, "removed": True, "digest": f"removed: {reason}"}


def _with_turns(ledger: Ledger, one: Draft, asked: Asked) -> Draft:
    """The draft with those told to turn to their next key who may now."""
    rotation = rotate.step(ledger, one.policy, _scene(one, one.head), asked.rotate)
    origin = replace(one.origin, turns=frozenset(rotation.turns))
    if origin == one.origin:
        return replace(one, rotation=rotation)
    plan = rotation_module.turned(one.plan, origin.turns)
    entries = _entries(plan, one.reasons, {r.node for r in one.rejected}, one.head)
    return replace(one, plan=plan, origin=origin, rotation=rotation, entries=entries)


def _scene(one: Draft, head: Head) -> rotate.Scene:
    return rotate.Scene(plan=one.plan, head=head, health=one.health, now=time.time())


def _with_preshared_keys(opts: dict[str, Any], ledger: Ledger, one: Draft, *, renew: bool) -> Draft:
    """*one* with what stands for each pair's preshared key."""
    found = presharing.mark(opts, ledger, one.policy, one.plan, one.health, renew=renew)
    entries = one.entries
    if found.plan is not one.plan:
        entries = {n: _entry(found.plan.views[n]) if n in found.plan.views else e for n, e in entries.items()}
    return replace(one, plan=found.plan, entries=entries, secrecy=found.secrecy, fresh=found.fresh)


def _entry(view: View) -> dict[str, Any]:
    return {**view.as_dict(), "digest": view.digest()}


def _reasons(mesh: MeshPolicy, believed: facts_module.Believed, plan: Plan) -> dict[str, str]:
    strangers = {
        node: f"no entry of wgmesh:{mesh.name}:nodes matches this id"
        for node in believed.facts
        if node not in plan.members and node not in plan.left_out
    }
    refused = {r.node: f"{r.reason}; {r.do}" for r in believed.rejected if r.node not in plan.members}
    return dict(sorted({**strangers, **refused, **plan.left_out}.items()))


def _entries(plan: Plan, reasons: Mapping[str, str], refused: Container[str], head: Head) -> dict[str, dict[str, Any]]:
    """The record of each node. One that was a member and is no more in the policy is told to leave; one
    that only can't be placed now keeps what it runs."""
    entries = {node: _entry(view) for node, view in plan.views.items()}
    for node, reason in reasons.items():
        was_stranger = head.digests.get(node, "reason:").startswith("reason:")
        if node in plan.left_out:
            entries[node] = {"reason": reason, "pending": True, "digest": f"reason: {reason}"}
        elif was_stranger or node in refused:
            entries[node] = {"reason": reason, "digest": f"reason: {reason}"}
        else:
            entries[node] = _farewell(reason)
    return dict(sorted(entries.items()))


def prove(found: Draft) -> None:
    """Return if the plan holds its proof; ProofError with what does not."""
    problems: tuple[Problem, ...] = verify.check(found.plan)
    if problems:
        raise ProofError(problems)


def converge(opts: dict[str, Any], asked: Asked = NOTHING, *, waited_for: bool = True) -> list[Report]:
    """Have every mesh examined, planned, proved, published and pushed; the caller holds the gate.

    Nothing is published unless every mesh's plan holds; nodes whose view is unchanged are not spoken to. Where nobody
    waits for the reports, and all is as it was when the last run left nothing to do, nothing is planned: no reports.
    """
    ledger = Ledger.of(opts)
    read = inventory.read(opts)
    found = _in_force(ledger, read)
    silent = {mesh: ledger.health(mesh).silent for mesh in ledger.meshes()}
    health, answers = checkup.examine(opts, ledger, asked, found.accepted)
    if asked.rebalance:
        health = {mesh: health_module.rested(known) for mesh, known in health.items()}
        for mesh, known in health.items():
            ledger.keep_health(mesh, known)
    if not (waited_for or asked.insists) and ledger.settled() == _basis(ledger, found, health):
        return []
    drafts = draft(opts, ledger, found, health, answers, asked)
    for one in drafts:
        if one.changed:
            prove(one)
    pinned.loosen(ledger, read.policy)
    # One key serves a node in all its meshes: whichever asked for another, it is asked for.
    wanted = {n for one in drafts for known in (one.head.rotation, one.rotation) for n in known.wanted}
    reports = [_publish(opts, ledger, one) for one in drafts]
    _forget_deleted(opts, ledger, found, {node for one in drafts for node in one.plan.members})
    _enrol(opts, found, drafts, reports, asked.started)
    asked = replace(asked, drifted=asked.drifted | _have_keys_made(opts, ledger, drafts))
    push(opts, ledger, reports, asked, answers.keys())
    for one, report in zip(drafts, reports, strict=True):
        scene = _scene(one, ledger.head(report.mesh))
        report.rotating = rotate.waiting(ledger, scene)
        report.warnings = rotate.warnings(one.head, one.facts, wanted)
        report.goes_on = rotate.goes_on(ledger, one.policy, scene)
    for report in reports:
        presharing.conclude(ledger, report)
        known = health.get(report.mesh, Health())
        report.goes_on |= not report.stopped and _goes_on(ledger, report.mesh)
        report.unheard = sorted(known.silent - silent.get(report.mesh, frozenset()) - known.down)
        if report.eventful:
            log.log(logging.WARNING if report.newly_held else logging.INFO, "wgmesh %s", report.as_dict())
            _announce(opts, report)
    done = all(r.clean and not (r.eventful or r.waiting or r.rotating or r.other_preshared_key) for r in reports)
    ledger.settle(_basis(ledger, found, health) if done else "")
    return reports


def _goes_on(ledger: Ledger, mesh: str) -> bool:
    """Whether the next step of a rollout is worth another look now; later, the schedule looks."""
    return time.time() - ledger.head(mesh).published_at < STEP_PATIENCE and steps.may_go_on(ledger, mesh)


def _basis(ledger: Ledger, found: inventory.Inventory, health: Mapping[str, Health]) -> str:
    """A digest of all that a plan is made from, the planner included; what time alone changes is in the health."""
    believed = {
        mesh: [sorted(known.down), sorted(known.resting), sorted(known.cut), sorted(known.silent), sorted(known.links)]
        for mesh, known in health.items()
    }
    generations = {mesh: ledger.head(mesh).generation for mesh in ledger.meshes()}
    rotations = {mesh: rotate.remembered(ledger.head(mesh)) for mesh in ledger.meshes()}
    version = importlib.metadata.version("saltext-wgmesh")
    accepted, mine = sorted(found.accepted.items()), sorted(found.mine.items())
    # As Python writes them: what comes from YAML and from minions may have keys that JSON could not sort.
    parts = repr([version, found.policy, accepted, mine, believed, generations, rotations])
    return hashlib.sha256(parts.encode()).hexdigest()


def _enrol(
    opts: dict[str, Any],
    found: inventory.Inventory,
    drafts: Iterable[Draft],
    reports: Iterable[Report],
    started: Iterable[str],
) -> None:
    """A node that started, has a place in a mesh and published nothing under its present key applies the formula."""
    fresh = [n for n in sorted(started) if n in found.accepted and not _has_facts(found, n)]
    for one, report in zip(drafts, reports, strict=True):
        report.enrolling = [n for n in fresh if not one.source.retired and policy_module.rule_for(one.policy, n)]
    members = sorted({n for report in reports for n in report.enrolling})
    if members:
        log.info("wgmesh: %s started without facts: applying the formula there", ", ".join(members))
        fleet.enrol(opts, members)


def _have_keys_made(opts: dict[str, Any], ledger: Ledger, drafts: Iterable[Draft]) -> frozenset[str]:
    """Those who are to get another key were told to make one; nobody waits for it, since it is they who then tell the
    master. Returns those who turned a while ago, and are to be asked once more what they run."""
    tell: set[str] = set()
    ask: set[str] = set()
    for one in drafts:
        head = ledger.head(one.policy.name)
        scene = _scene(one, head)
        nodes = rotation_module.to_tell(head.rotation, one.health.down, scene.now)
        if nodes:
            ledger.keep(one.policy.name, replace(head, rotation=rotation_module.told(head.rotation, nodes, scene.now)))
            tell |= set(nodes)
        if head.rotation.turns:
            ask |= rotation_module.unsaid(head.rotation, scene.look(ledger))
    if tell:
        log.info("wgmesh: %s are to make another key", ", ".join(sorted(tell)))
        fleet.renew(opts, sorted(tell))
    return frozenset(ask)


def _has_facts(found: inventory.Inventory, node: str) -> bool:
    raw = found.mine.get(node)
    return isinstance(raw, Mapping) and raw.get("salt_key") == found.accepted[node]


def _announce(opts: dict[str, Any], report: Report) -> None:
    """One event says what was done. That nobody hears it is no reason to fail."""
    try:
        with salt.utils.event.get_event("master", sock_dir=opts["sock_dir"], opts=opts, listen=False) as bus:
            bus.fire_event(report.as_dict(), names.CONVERGED_TAG.format(mesh=report.mesh))
    except Exception as error:
        log.warning("wgmesh %s: the event of this converge was not fired: %s", report.mesh, error)


def release(opts: dict[str, Any], node: str) -> dict[str, list[str]]:
    """Mesh → the addresses that were reserved for *node* and are free now; LedgerError if it is still there."""
    if node in inventory.accepted_keys(opts):
        raise LedgerError(f"{node} has an accepted key: delete it first, 'salt-key -d {node}'")
    ledger = Ledger.of(opts)
    freed = {}
    for mesh in ledger.meshes():
        head = ledger.head(mesh)
        addresses = dict(head.register.addresses)
        if node in head.digests:
            raise LedgerError(f"{node} is in the published plan of {mesh}: run 'salt-run wgmesh.converge' first")
        if node in addresses:
            freed[mesh] = list(addresses.pop(node))
            ledger.keep(mesh, replace(head, register=replace(head.register, addresses=addresses)))
    if not freed:
        raise LedgerError(f"no addresses are reserved for {node}")
    return freed


def _publish(opts: dict[str, Any], ledger: Ledger, one: Draft) -> Report:
    mesh, head = one.policy.name, one.head
    generation = head.generation + 1 if one.changed else head.generation
    new = Head(
        generation=generation,
        digests=one.digests,
        register=one.plan.register,
        facts=one.facts,
        published_at=time.time() if one.changed else head.published_at,
        drained=one.drained,
        kept=one.origin.kept,
        rotation=one.rotation,
        secrecy=one.secrecy,
    )
    presharing.keep(opts, mesh, one.fresh)
    if one.changed:
        origin = {
            **one.origin.as_dict(),
            "reasons": dict(one.reasons),
            "published_at": new.published_at,
            "retired": one.source.retired,
        }
        ledger.publish(mesh, new, one.changed, origin)
    elif new != head:
        ledger.keep(mesh, new)
    newly_held = bool(one.source.held) and one.source.held != guard.held_of(ledger, mesh)
    guard.keep(ledger, mesh, one.source)
    presharing.tidy(opts, mesh, head.secrecy, new.secrecy)
    return Report(
        mesh=mesh,
        generation=generation,
        published=bool(one.changed),
        changed=sorted(one.changed),
        left_out=dict(one.reasons),
        waiting=steps.waits_for(one.origin.kept),
        down=sorted([*one.health.down, *("--".join(pair) for pair in one.health.cut)]),
        held=one.source.held,
        newly_held=newly_held,
        rejected=[str(r) for r in one.rejected],
        to_mend=sorted({r.node for r in one.rejected if r.node in one.plan.members or r.node in one.reasons}),
    )


def _forget_deleted(opts: dict[str, Any], ledger: Ledger, found: inventory.Inventory, planned: Container[str]) -> None:
    """Nothing is kept of nodes whose key is gone, but their addresses: a re-used id inherits nothing. Whose removal is
    held, and who is *planned* for until then, stays as it was."""
    for node in ledger.nodes():
        if node not in found.accepted and node not in planned:
            ledger.forget(node)
    for node in found.mine:
        if node not in found.accepted and node not in planned:
            inventory.drop_mine(opts, node)
