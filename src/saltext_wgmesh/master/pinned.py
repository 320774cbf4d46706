"""A mesh that is rolled back is planned by an earlier generation's policy, until the operator changes the pillar."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master import inventory, record
from saltext_wgmesh.master.ledger import Ledger


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
    instead_of = _mark(_mesh(inventory.raw_policy(opts), name))
    policy = ledger.origin(name, generation)["policy"]
    ledger.keep_pin(name, {"generation": generation, "policy": policy, "instead_of": instead_of})


def told(ledger: Ledger, mesh: str) -> dict[str, Any]:
    """For people: to which generation *mesh* is rolled back; empty if it is not."""
    pin = ledger.pin(mesh)
    if not pin:
        return {}
    do = f"ends when the mesh's policy in the pillar changes, or by: salt-run wgmesh.rollback generation=0 mesh={mesh}"
    return {"rolled_back": {"generation": pin["generation"], "do": do}}


def _mesh(raw: Any, mesh: str) -> Any:
    return raw.get(mesh) if isinstance(raw, Mapping) else None


def _mark(raw: Any) -> str:
    """Alike for the same values in the same order: which rule comes first has a meaning."""
    return hashlib.sha256(repr(_plain(raw)).encode()).hexdigest()


def _plain(raw: Any) -> Any:
    if isinstance(raw, Mapping):
        return [(key, _plain(value)) for key, value in raw.items()]
    return [_plain(value) for value in raw] if isinstance(raw, (list, tuple)) else raw
