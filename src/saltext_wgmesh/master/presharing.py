"""Preshared keys in a converge: which secrets are meant, and the plan with what stands for the keys."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saltext_wgmesh.core import policy as policy_module
from saltext_wgmesh.core import secrecy
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.secrecy import OFF, Secrecy, Seen
from saltext_wgmesh.core.types import MeshPolicy, Plan
from saltext_wgmesh.master import inventory
from saltext_wgmesh.master.keyring import Keyring, Secret
from saltext_wgmesh.master.ledger import Head, Ledger
from saltext_wgmesh.master.round import Report

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A plan whose peers have the identifiers of their keys."""

    plan: Plan
    secrecy: Secrecy
    """As it stands once this is published."""
    fresh: Secret | None = field(default=None, repr=False)
    """A secret that must be kept before this is published."""


def mark(
    opts: Mapping[str, Any], ledger: Ledger, mesh: MeshPolicy, plan: Plan, health: Health, *, renew: bool
) -> Marked:
    """*plan* as the policy wants it, one step on from what is published. Nothing is written. *renew*: with another
    secret."""
    head = ledger.head(mesh.name)
    if not mesh.preshared_keys and head.secrecy == Secrecy():
        return Marked(plan=plan, secrecy=head.secrecy)
    keyring = Keyring.of(opts, mesh.name)
    lost = head.secrecy.secrets - keyring.names()
    if lost:
        told = "wgmesh %s: secrets of preshared keys are gone from %s: new keys are made"
        log.warning(told, mesh.name, keyring.folder)
    before = secrecy.without(head.secrecy, lost)
    seen = _seen(ledger, mesh.name, head, plan, health)
    fresh = Secret.make() if mesh.preshared_keys and (renew or before.secret == OFF) else None
    if fresh:
        after = secrecy.start(before, fresh.name, seen)
    elif not mesh.preshared_keys and before.secret != OFF:
        after = secrecy.start(before, OFF, seen)
    else:
        after = secrecy.proceed(before, seen)
    return Marked(plan=marked(opts, plan, after, fresh), secrecy=after, fresh=fresh)


def _seen(ledger: Ledger, mesh: str, head: Head, plan: Plan, health: Health) -> Seen:
    records = {node: ledger.acknowledged(node) for node in head.digests}

    def left(node: str) -> bool:
        silent = records[node].get("silent", {})
        return "job" in silent and silent["digests"].get(mesh) == head.digests[node]

    return Seen(
        members=plan.members.keys(),
        published=head.digests.keys(),
        runs={node for node, known in records.items() if known.get("digests", {}).get(mesh) == head.digests[node]},
        unanswered=set(filter(left, records)),
        deaf=health.silent | health.down,
        now=time.time(),
    )


def marked(opts: Mapping[str, Any], plan: Plan, state: Secrecy, fresh: Secret | None = None) -> Plan:
    """*plan* with the identifiers of the keys as *state* has them; of secrets that are gone, with none."""
    if not (state.secrets or fresh):
        return plan
    keyring = Keyring.of(opts, plan.mesh)
    found = {name: keyring.secret(name) for name in state.secrets} | ({fresh.name: fresh} if fresh else {})
    secrets = {name: secret for name, secret in found.items() if secret}
    known = replace(state, stages={n: name if name in secrets else OFF for n, name in state.stages.items()})
    return secrecy.mark(plan, known, lambda name, one, other: secrets[name].key(plan.mesh, one, other))


def keep(opts: Mapping[str, Any], mesh: str, fresh: Secret | None) -> None:
    """The secret of a plan that is about to be published is here."""
    if fresh:
        Keyring.of(opts, mesh).keep(fresh)


def tidy(opts: Mapping[str, Any], mesh: str, before: Secrecy, after: Secrecy) -> None:
    """Only secrets are here that are needed now, or were until now: a pillar with those before may be under way."""
    if (before, after) != (Secrecy(), Secrecy()):
        Keyring.of(opts, mesh).drop(before.secrets | after.secrets)


def conclude(ledger: Ledger, report: Report) -> None:
    """After the push: who has taken up the last preshared keys is remembered, and who has not is told of."""
    head = ledger.head(report.mesh)
    after = secrecy.conclude(head.secrecy, head.digests.keys() - set(report.not_acknowledged))
    if after != head.secrecy:
        ledger.keep(report.mesh, replace(head, secrecy=after))
    report.other_preshared_key = sorted(after.lags)
    report.told_in_vain = sorted(node for node, lag in after.lags.items() if lag.told)


def to_renew(opts: dict[str, Any], mesh: str | None) -> list[str]:
    """The meshes that are to get other preshared keys: *mesh*, or all that have some. LedgerError if there is none."""
    meshes = policy_module.parse(inventory.raw_policy(opts)).meshes
    found = [name for name, policy in meshes.items() if policy.preshared_keys and mesh in (None, name)]
    if not found:
        what = "no mesh has preshared keys" if mesh is None else f"{mesh} has no preshared keys"
        if mesh is not None and mesh not in meshes:
            what = f"{mesh} is not in the policy"
        raise LedgerError(f"{what}: set preshared_keys: true under wgmesh:{mesh or '<mesh>'} in the pillar")
    return found
