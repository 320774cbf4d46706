"""``salt-run wgmesh.rollback``: a mesh is planned by the policy of an earlier generation."""

from __future__ import annotations

from typing import Any

from saltext_wgmesh.master.drafting import policy_pin
from saltext_wgmesh.master.records import inventory, mesh_records
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.published import resolve_mesh


def pin_to_generation(opts: dict[str, Any], generation: int, mesh: str | None) -> None:
    """Pin *mesh*, or the only one, to the policy of *generation*; 0: to that of the pillar.

    The next converge plans by it. LedgerError if the mesh or the generation is unknown.
    """
    ledger = Ledger.of(opts)
    name = resolve_mesh(ledger, mesh)
    records = mesh_records.read_snapshot(ledger).mesh(name)
    ledger.save_pin(name, policy_pin.pin_to(records, generation, inventory.raw_policy(opts)))
