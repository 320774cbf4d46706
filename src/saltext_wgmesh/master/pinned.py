"""A mesh that is rolled back is planned by an earlier generation's policy, until the operator changes the pillar.

An operator has it rolled back, or the master itself does where a policy cost the mesh its only relay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.waves import disturbs
from saltext_wgmesh.master import inventory, record
from saltext_wgmesh.master.ledger import Ledger

CAUSE = 300.0
"""Seconds after a policy's first generation in which a relay must have gone down for that to be the reason."""
PATIENCE = 30.0
"""Seconds that a relay has been down before a policy is blamed: leaves behind NAT find it when they are told."""


def in_force(ledger: Ledger, raw: Any) -> Any:
    """*raw*, the pillar's policy, with the meshes that are rolled back as they were then."""
    pins = {mesh: pin for mesh in ledger.meshes() if (pin := ledger.pin(mesh))}
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
    if generation == 0:
        ledger.keep_pin(name, {})
        return
    kept = ledger.generations(name)
    if generation not in kept:
        told = ", ".join(str(number) for number in kept)
        raise LedgerError(f"{name}: generation {generation} is not in the ledger; those are: {told}")
    _pin(ledger, name, generation, _mesh(inventory.raw_policy(opts), name))


def _pin(ledger: Ledger, mesh: str, generation: int, instead_of: Any, **more: str) -> None:
    policy = ledger.origin(mesh, generation)["policy"]
    ledger.keep_pin(mesh, {"generation": generation, "policy": policy, "instead_of": _mark(instead_of), **more})


def regret(ledger: Ledger, raw: Any, health: Mapping[str, Health], now: float) -> dict[str, str]:
    """A mesh whose only relay went down as it took up what *raw*, the pillar's policy, changed of its links is planned
    by the policy before from now on; mesh → why. With other relays a mesh goes on meanwhile, and the rollout waits."""
    found: dict[str, str] = {}
    for mesh, known in health.items():
        blamed = _blamed(ledger, mesh, known, now) if known.down and not ledger.pin(mesh) else None
        if blamed and _mark(_mesh(raw, mesh)) == _mark(record.origin_of(ledger, mesh).raw_policy):
            generation, relay = blamed
            why = (
                f"{relay}, the only relay, was not heard any more when it had taken up the policy that is in the pillar"
            )
            _pin(ledger, mesh, generation, _mesh(raw, mesh), why=why)
            found[mesh] = f"rolled back to the policy of generation {generation}: {why}"
    return found


def _blamed(ledger: Ledger, mesh: str, known: Health, now: float) -> tuple[int, str] | None:
    """The last generation by another policy than the current one, and the only relay, if the change is to blame that it
    is down."""
    kept = ledger.generations(mesh)
    policy = ledger.origin(mesh, kept[-1])["policy"]
    before = next((g for g in reversed(kept) if ledger.origin(mesh, g)["policy"] != policy), None)
    if before is None:
        return None
    first = next(g for g in kept if g > before)
    old, new = (record.origin_of(ledger, mesh, generation).plan() for generation in (before, first))
    relays = [node for node, member in new.members.items() if member.is_relay]
    if len(relays) != 1 or relays[0] not in old.views or not disturbs(old.views[relays[0]], new.views[relays[0]]):
        return None
    trouble = known.nodes.get(relays[0])
    if trouble is None or trouble.good_since is not None or now - trouble.since < PATIENCE:
        return None
    return (before, relays[0]) if 0 <= trouble.since - ledger.origin(mesh, first)["published_at"] < CAUSE else None


def told(ledger: Ledger, mesh: str) -> dict[str, Any]:
    """For people: to which generation *mesh* is rolled back; empty if it is not."""
    pin = ledger.pin(mesh)
    if not pin:
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
