"""From what the master knows to what nodes run: examine, plan, prove, publish, push, confirm. No event is believed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

import salt.utils.event

from saltext_wgmesh.core import health as health_module
from saltext_wgmesh.core import names
from saltext_wgmesh.core import policy as policy_module
from saltext_wgmesh.core import rotation as rotation_module
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.master import checkup, fleet, guard, inventory, pinned, presharing, rotate, steps
from saltext_wgmesh.master.draft import Draft, draft, in_force, prove, scene
from saltext_wgmesh.master.ledger import Head, Ledger
from saltext_wgmesh.master.push import hear_late, push
from saltext_wgmesh.master.round import NOTHING, Asked, Report

log = logging.getLogger(__name__)

STEP_PATIENCE = 30.0
"""Seconds after a step of a rollout in which its links must be heard for the next to follow at once."""


def converge(opts: dict[str, Any], asked: Asked = NOTHING, *, waited_for: bool = True) -> list[Report]:
    """Have every mesh examined, planned, proved, published and pushed; the caller holds the gate.

    Nothing is published unless every mesh's plan holds; nodes whose view is unchanged are not spoken to. Where nobody
    waits for the reports, and all is as it was when the last run left nothing to do, nothing is planned: no reports.
    """
    ledger = Ledger.of(opts)
    read = inventory.read(opts)
    found = in_force(ledger, read)
    silent = {mesh: ledger.health(mesh).silent for mesh in ledger.meshes()}
    health, answers = checkup.examine(opts, ledger, asked, found.accepted)
    hear_late(opts, ledger)
    if asked.rebalance:
        health = {mesh: health_module.rested(known) for mesh, known in health.items()}
        for mesh, known in health.items():
            ledger.keep_health(mesh, known)
    regretted = pinned.regret(ledger, read.policy, health, time.time())
    if regretted:
        found = in_force(ledger, read)
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
        look = scene(one, ledger.head(report.mesh))
        report.rotating = rotate.waiting(ledger, look)
        report.warnings = rotate.warnings(one.head, one.facts, wanted)
        if report.mesh in regretted:
            log.warning("wgmesh %s: %s", report.mesh, regretted[report.mesh])
            report.warnings.insert(0, regretted[report.mesh])
        report.goes_on = rotate.goes_on(ledger, one.policy, look)
    for one, report in zip(drafts, reports, strict=True):
        presharing.conclude(ledger, report)
        known = health.get(report.mesh, Health())
        report.goes_on |= not report.stopped and _goes_on(ledger, one, report)
        report.unheard = sorted(known.silent - silent.get(report.mesh, frozenset()) - known.down)
        if report.eventful:
            log.log(logging.WARNING if report.newly_held else logging.INFO, "wgmesh %s", report.as_dict())
            _announce(opts, report)
    done = all(r.clean and not (r.eventful or r.waiting or r.rotating or r.other_preshared_key) for r in reports)
    ledger.settle(_basis(ledger, found, health) if done else "")
    return reports


def _goes_on(ledger: Ledger, one: Draft, report: Report) -> bool:
    """Whether the next step of a rollout is worth another look now; later, the schedule looks."""
    # Relays that are about to leave were drained by the policy before.
    drained = one.origin.policy != one.policy and not report.not_acknowledged
    is_fresh = time.time() - ledger.head(report.mesh).published_at < STEP_PATIENCE
    return is_fresh and (drained or steps.may_go_on(ledger, report.mesh))


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
        look = scene(one, head)
        nodes = rotation_module.to_tell(head.rotation, one.health.down, look.now)
        if nodes:
            ledger.keep(one.policy.name, replace(head, rotation=rotation_module.told(head.rotation, nodes, look.now)))
            tell |= set(nodes)
        if head.rotation.turns:
            ask |= rotation_module.unsaid(head.rotation, look.look(ledger))
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
    """Mesh → the addresses that were reserved for *node* and are free now; LedgerError if it is still there. The caller
    holds the gate."""
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
            homes = {leaf: relays for leaf, relays in head.register.homes.items() if leaf != node}
            ledger.keep(mesh, replace(head, register=replace(head.register, addresses=addresses, homes=homes)))
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
