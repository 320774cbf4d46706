"""A mesh that is rolled back is planned by an earlier generation's policy, until the operator changes the pillar.

Either the operator rolls it back, or the master does, where a policy cost the mesh its only relay.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from saltext_wgmesh.core.errors import LedgerError, WgmeshError
from saltext_wgmesh.core.inputs import policy as policy_module
from saltext_wgmesh.core.transition.push_order import is_disruptive
from saltext_wgmesh.core.transition.state import NO_TRANSITION
from saltext_wgmesh.master.records.decisions import Pin
from saltext_wgmesh.master.records.mesh_records import History, LedgerSnapshot, MeshRecords

log = logging.getLogger(__name__)

BLAME_WINDOW = 120.0
"""Seconds after a policy's first generation in which a relay must have gone down for the policy to be blamed."""
PATIENCE = 30.0
"""Seconds that the relay must have been down: leaves behind NAT reach a moved relay only once they are pushed to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """A policy change that cost a mesh its only relay."""

    generation: int
    """The last generation by the policy before."""
    relay: str

    @property
    def why(self) -> str:
        """For operators."""
        return f"{self.relay}, the only relay, went down when it had applied the pillar's policy"

    @property
    def warning(self) -> str:
        """For the report of the run that rolls back."""
        return f"rolled back to the policy of generation {self.generation}: {self.why}"


def effective_policy(snapshot: LedgerSnapshot, raw: Any) -> Any:
    """*raw*, the pillar's policy, with the policies of earlier generations for the meshes that are rolled back."""
    pinned = {
        mesh: pin.policy
        for mesh, records in snapshot.meshes.items()
        if (pin := records.pin) and pin.is_rolled_back and pin.replaces == policy_fingerprint(_of_mesh(raw, mesh))
    }
    return {**(raw if isinstance(raw, Mapping) else {}), **pinned} if pinned else raw


def outdated_pins(snapshot: LedgerSnapshot, raw: Any) -> list[str]:
    """The meshes whose policy in the pillar changed since they were pinned: their pins end."""
    return [
        mesh
        for mesh, records in snapshot.meshes.items()
        if records.pin and records.pin.replaces != policy_fingerprint(_of_mesh(raw, mesh))
    ]


def pin_to(records: MeshRecords, generation: int, raw: Any) -> Pin | None:
    """The pin of a mesh that the operator rolls back to *generation*; 0: back to *raw*, the pillar's policy.

    LedgerError if the generation is not kept. None: no pin is left.
    """
    replaces = policy_fingerprint(_of_mesh(raw, records.mesh))
    if generation == 0:
        # The operator overrules the master: the policy stays, even if it costs the only relay once more.
        return Pin(replaces=replaces) if records.pin and records.pin.why else None
    kept = records.history.numbers()
    if generation not in kept:
        known = ", ".join(str(number) for number in kept)
        raise LedgerError(f"{records.mesh}: generation {generation} is not in the ledger; those are: {known}")
    return Pin(replaces=replaces, generation=generation, policy=records.history.raw_policy(generation))


def auto_rollback(snapshot: LedgerSnapshot, raw: Any, now: float) -> dict[str, tuple[Pin, Blame]]:
    """Mesh → the policy before *raw*, the pillar's, where that cost the mesh its only relay; and why.

    The relay must have gone down as it applied what the policy changed of its links. In a mesh with other relays, these
    carry on and the transition waits. A mesh that has a pin gets no other: so after ``rollback generation=0`` the
    pillar's policy stays.
    """
    found: dict[str, tuple[Pin, Blame]] = {}
    for mesh, records in snapshot.meshes.items():
        down_since = _down_since(records, now)
        try:
            blame = _policy_to_blame(records, raw, down_since) if down_since and not records.pin else None
        # A rollback is a help, and no run may fail for lack of it: a policy of long ago may no longer be readable.
        except WgmeshError as error:
            log.info("wgmesh %s: whether its policy cost the relay is unknown: %s", mesh, error)
            continue
        if blame:
            policy = records.history.raw_policy(blame.generation)
            replaces = policy_fingerprint(_of_mesh(raw, mesh))
            found[mesh] = Pin(replaces=replaces, generation=blame.generation, policy=policy, why=blame.why), blame
    return found


def _down_since(records: MeshRecords, now: float) -> dict[str, float]:
    """Node that has been down without a break for PATIENCE seconds → since when."""
    outages = {n: outage for n, outage in records.health.nodes.items() if n in records.health.down_nodes}
    return {n: o.since for n, o in outages.items() if o.up_since is None and now - o.since >= PATIENCE}


def _policy_to_blame(records: MeshRecords, raw: Any, down_since: Mapping[str, float]) -> Blame | None:
    """The policy change that took the mesh's only relay down; None if there is none, or no way back.

    WgmeshError if one of the policies can no longer be read or planned.
    """
    history = records.history
    now = history.current().inputs
    before = _last_by_another_policy(history, now.raw_policy)
    # A pillar that has changed since is the operator's answer already, and is planned in place of a rollback.
    if before is None or policy_fingerprint(_of_mesh(raw, records.mesh)) != policy_fingerprint(now.raw_policy):
        return None
    old, first = history.generation(before), history.generation(before + 1)
    current = now.plan()
    relays = [node for node, member in current.members.items() if member.is_relay]
    # If the clock was ahead then, the head has an earlier time: the one at which it was noticed. An outage that began
    # at that same time may be older, and its time as wrong.
    published_at = min(first.published_at, records.head.published_at)
    if len(relays) != 1 or not 0 < down_since.get(relays[0], 0.0) - published_at < BLAME_WINDOW:
        return None
    views = [generation.inputs.plan().views.get(relays[0]) for generation in (old, first)]
    if not (views[0] and views[1] and is_disruptive(views[0], views[1])):
        return None
    # The policy before must fit the other meshes of today.
    policy_module.parse_policy({**raw, records.mesh: old.inputs.raw_policy})
    again = replace(now, policy=old.inputs.policy, transition=NO_TRANSITION).plan()
    # A policy with fewer nodes would be held by the prune guard, so the rollback would change nothing.
    is_way_back = current.members.keys() <= again.members.keys()
    return Blame(generation=before, relay=relays[0]) if is_way_back else None


def _last_by_another_policy(history: History, raw_policy: Any) -> int | None:
    """The last generation that was planned by another policy, if the one after it is kept too."""
    kept = history.numbers()
    found = next((number for number in reversed(kept) if history.raw_policy(number) != raw_policy), None)
    return found if found is not None and found + 1 in kept else None


def _of_mesh(raw: Any, mesh: str) -> Any:
    return raw.get(mesh) if isinstance(raw, Mapping) else None


def policy_fingerprint(raw: Any) -> str:
    """A digest of the raw policy of one mesh, equal for the same values in the same order.

    The order of rules has a meaning.
    """
    return hashlib.sha256(repr(_plain(raw)).encode()).hexdigest()


def _plain(raw: Any) -> Any:
    if isinstance(raw, Mapping):
        return [(key, _plain(value)) for key, value in raw.items()]
    return [_plain(value) for value in raw] if isinstance(raw, (list, tuple)) else raw
