"""A mesh that is rolled back is planned by an earlier generation's policy, until the operator changes the pillar.

An operator has it rolled back, or the master itself does where a policy cost the mesh its only relay.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saltext_wgmesh.core import policy as policy_module
from saltext_wgmesh.core.errors import LedgerError, WgmeshError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.rollout import NOTHING
from saltext_wgmesh.core.waves import disturbs
from saltext_wgmesh.master import inventory, record
from saltext_wgmesh.master.ledger import Ledger

log = logging.getLogger(__name__)

CAUSE = 120.0
"""Seconds after a policy's first generation in which a relay must have gone down for that to be the reason."""
PATIENCE = 30.0
"""Seconds that a relay has been down before a policy is blamed: leaves behind NAT find it when they are told."""


def in_force(ledger: Ledger, raw: Any) -> Any:
    """*raw*, the pillar's policy, with the meshes that are rolled back as they were then."""
    pins = {mesh: pin for mesh in ledger.meshes() if "policy" in (pin := ledger.pin(mesh))}
    held = {mesh: pin["policy"] for mesh, pin in pins.items() if pin["instead_of"] == _mark(_mesh(raw, mesh))}
    return {**(raw if isinstance(raw, Mapping) else {}), **held} if held else raw


def loosen(ledger: Ledger, raw: Any) -> None:
    """Who is rolled back, and whose policy was changed since, is so no more."""
    for mesh in ledger.meshes():
        pin = ledger.pin(mesh)
        if pin and pin["instead_of"] != _mark(_mesh(raw, mesh)):
            ledger.keep_pin(mesh, {})


def pin(opts: dict[str, Any], generation: int, mesh: str | None) -> None:
    """*mesh*, or the only one, is planned by the policy of *generation* from now on; by the pillar's if that is 0."""
    ledger = Ledger.of(opts)
    name = record.mesh_of(ledger, mesh)
    instead_of = _mesh(inventory.raw_policy(opts), name)
    if generation == 0:
        # Who was overruled by the master is so no more, until the policy is another.
        ledger.keep_pin(name, {"instead_of": _mark(instead_of)} if "why" in ledger.pin(name) else {})
        return
    kept = ledger.generations(name)
    if generation not in kept:
        told = ", ".join(str(number) for number in kept)
        raise LedgerError(f"{name}: generation {generation} is not in the ledger; those are: {told}")
    _pin(ledger, name, generation, instead_of)


def _pin(ledger: Ledger, mesh: str, generation: int, instead_of: Any, **more: str) -> None:
    policy = ledger.origin(mesh, generation)["policy"]
    ledger.keep_pin(mesh, {"generation": generation, "policy": policy, "instead_of": _mark(instead_of), **more})


def regret(ledger: Ledger, raw: Any, health: Mapping[str, Health], now: float) -> dict[str, str]:
    """A mesh whose only relay went down as it took up what *raw*, the pillar's policy, changed of its links is planned
    by the policy before from now on; mesh → why. With other relays a mesh goes on meanwhile, and the rollout waits.

    Nobody is overruled twice: after ``rollback generation=0`` the pillar's policy holds, whatever comes of it."""
    found: dict[str, str] = {}
    for mesh, known in health.items():
        lost = {
            n: trouble.since
            for n, trouble in known.nodes.items()
            if n in known.down and trouble.good_since is None and now - trouble.since >= PATIENCE
        }
        try:
            blamed = _blamed(ledger, raw, mesh, lost) if lost and not ledger.pin(mesh) else None
        except WgmeshError as error:
            log.info("wgmesh %s: whether a policy is to blame can't be told: %s", mesh, error)
            continue
        if blamed:
            generation, relay = blamed
            why = f"{relay}, the only relay, was not heard any more when it had taken up the pillar's policy"
            _pin(ledger, mesh, generation, _mesh(raw, mesh), why=why)
            found[mesh] = f"rolled back to the policy of generation {generation}: {why}"
    return found


def _blamed(ledger: Ledger, raw: Any, mesh: str, lost: Mapping[str, float]) -> tuple[int, str] | None:
    """The last generation by another policy than the pillar's, and the only relay, if that was *lost* by the change
    and the policy before can still be gone back to. WgmeshError if it can't be read or planned any more."""
    kept = ledger.generations(mesh)
    now = record.origin_of(ledger, mesh)
    before = next((g for g in reversed(kept) if ledger.origin(mesh, g)["policy"] != now.raw_policy), None)
    if before is None or before + 1 not in kept or _mark(_mesh(raw, mesh)) != _mark(now.raw_policy):
        return None
    old, first = (record.origin_of(ledger, mesh, generation) for generation in (before, before + 1))
    begun = ledger.origin(mesh, before + 1)["published_at"]
    current = now.plan()
    relays = [node for node, member in current.members.items() if member.is_relay]
    if len(relays) != 1 or not 0 <= lost.get(relays[0], 0.0) - begun < CAUSE:
        return None
    views = [origin.plan().views.get(relays[0]) for origin in (old, first)]
    if not (views[0] and views[1] and disturbs(views[0], views[1])):
        return None
    policy_module.parse({**raw, mesh: old.raw_policy})
    # A policy with fewer nodes would be held, and help nobody.
    again = replace(now, policy=old.policy, kept=NOTHING).plan()
    return (before, relays[0]) if current.members.keys() <= again.members.keys() else None


def told(ledger: Ledger, mesh: str) -> dict[str, Any]:
    """For people: to which generation *mesh* is rolled back; empty if it is not."""
    pin = ledger.pin(mesh)
    if "policy" not in pin:
        return {}
    do = f"ends when the mesh's policy in the pillar changes, or by: salt-run wgmesh.rollback generation=0 mesh={mesh}"
    why = {"why": pin["why"]} if "why" in pin else {}
    return {"rolled_back": {"generation": pin["generation"], **why, "do": do}}


def _mesh(raw: Any, mesh: str) -> Any:
    return raw.get(mesh) if isinstance(raw, Mapping) else None


def _mark(raw: Any) -> str:
    """Alike for the same values in the same order: which rule comes first has a meaning."""
    return hashlib.sha256(repr(_plain(raw)).encode()).hexdigest()


def _plain(raw: Any) -> Any:
    if isinstance(raw, Mapping):
        return [(key, _plain(value)) for key, value in raw.items()]
    return [_plain(value) for value in raw] if isinstance(raw, (list, tuple)) else raw
