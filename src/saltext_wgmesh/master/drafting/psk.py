"""Preshared keys (PSKs) in a run: the secret that each PSK is derived from, and the plan with the ids of the PSKs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.inputs import policy as policy_module
from saltext_wgmesh.core.keys import psk_rollover
from saltext_wgmesh.core.keys.psk_rollover import NO_SECRET, FleetState, PskRollover
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.master.records.mesh_records import MeshRecords
from saltext_wgmesh.master.records.psk_secrets import PskSecrets, Secret

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PskDraft:
    """A plan whose peers have the ids of their PSKs."""

    plan: Plan
    rollover: PskRollover
    """As it stands once the plan is published."""
    new_secret: Secret | None = field(default=None, repr=False)
    """A secret that must be saved before the plan is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PskInput:
    """The inputs of one mesh's PSKs."""

    policy: MeshPolicy
    plan: Plan
    health: Health
    now: float
    """Seconds since the epoch."""
    rotate: bool
    """Whether the operator wants another secret."""


def assign_psks(secrets: PskSecrets, records: MeshRecords, given: PskInput) -> PskDraft:
    """The plan with PSKs as the policy wants them, one step on from what is published. Nothing is written."""
    published = records.head.psk_rollover
    is_on = given.policy.preshared_keys
    if not is_on and published == PskRollover():
        return PskDraft(plan=given.plan, rollover=published)
    # A restore of the master without its ``pki_dir`` loses secrets, and no PSK can be derived from a lost one.
    lost = published.secrets - secrets.names()
    if lost:
        log.warning("wgmesh %s: secrets of PSKs are missing in %s: new PSKs are made", records.mesh, secrets.folder)
    before = psk_rollover.drop_lost(published, lost)
    state = _fleet_state(records, given)
    new_secret = Secret.make() if is_on and (given.rotate or before.secret == NO_SECRET) else None
    if new_secret:
        after = psk_rollover.begin_epoch(before, new_secret.name, state)
    elif not is_on and before.secret != NO_SECRET:
        after = psk_rollover.begin_epoch(before, NO_SECRET, state)
    else:
        after = psk_rollover.advance_epoch(before, state)
    plan = with_psk_ids(secrets, given.plan, after, new_secret)
    return PskDraft(plan=plan, rollover=after, new_secret=new_secret)


def _fleet_state(records: MeshRecords, given: PskInput) -> FleetState:
    published = records.head.digests

    def is_pending(node: str) -> bool:
        ack = records.ack(node)
        pushed = ack.pending.digests.get(records.mesh) if ack.pending else None
        return ack.awaits_answer and pushed == published[node]

    return FleetState(
        members=given.plan.members.keys(),
        published=published.keys(),
        acknowledged={node for node in published if records.has_applied(node)},
        pending={node for node in published if is_pending(node)},
        unreachable=given.health.unresponsive | given.health.down_nodes,
        now=given.now,
    )


def with_psk_ids(secrets: PskSecrets, plan: Plan, state: PskRollover, new_secret: Secret | None = None) -> Plan:
    """*plan* with the ids of the PSKs that *state* gives each pair; a pair whose secret is missing has no PSK."""
    if not (state.secrets or new_secret):
        return plan
    by_name = {name: secrets.secret(name) for name in state.secrets}
    by_name |= {new_secret.name: new_secret} if new_secret else {}
    known = {name: secret for name, secret in by_name.items() if secret}
    stages = {n: name if name in known else NO_SECRET for n, name in state.epochs.items()}
    return psk_rollover.annotate(
        plan, replace(state, epochs=stages), lambda name, one, other: known[name].key(plan.mesh, one, other)
    )


def drop_unused_secrets(secrets: PskSecrets, before: PskRollover, after: PskRollover) -> None:
    """Delete the secrets that neither *before* nor *after* needs.

    Those of *before* stay for one more run: a node may be about to read a pillar that names them.
    """
    if (before, after) != (PskRollover(), PskRollover()):
        secrets.prune(before.secrets | after.secrets)


def meshes_to_rotate(raw_policy: Any, mesh: str | None) -> list[str]:
    """The meshes that are to get other PSKs: *mesh*, or all that have some. LedgerError if there is none."""
    meshes: Mapping[str, MeshPolicy] = policy_module.parse_policy(raw_policy).meshes
    found = [name for name, policy in meshes.items() if policy.preshared_keys and mesh in (None, name)]
    if not found:
        problem = "no mesh has preshared keys" if mesh is None else f"{mesh} has no preshared keys"
        if mesh is not None and mesh not in meshes:
            problem = f"{mesh} is not in the policy"
        raise LedgerError(f"{problem}: set preshared_keys: true under wgmesh:{mesh or '<mesh>'} in the pillar")
    return found
