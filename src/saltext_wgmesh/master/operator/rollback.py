"""``salt-run wgmesh.rollback``: a mesh is planned by the policy of an earlier generation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saltext_wgmesh.master.drafting import policy_pin
from saltext_wgmesh.master.operator import run_converge
from saltext_wgmesh.master.operator.converge_result import ConvergeResult
from saltext_wgmesh.master.records import inventory, mesh_records
from saltext_wgmesh.master.records.decisions import PolicyPin
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.published import resolve_mesh


def pin_and_converge(opts: dict[str, Any], generation: int, mesh: str | None) -> ConvergeResult:
    """Pin as ``pin_to_generation`` does and converge; the result has the pin as it is afterwards."""
    name = pin_to_generation(opts, generation, mesh)
    found = run_converge.run_converge(opts)
    return replace(found, pins={name: PolicyPin.of(name, Ledger.of(opts).pin(name))})


def pin_to_generation(opts: dict[str, Any], generation: int, mesh: str | None) -> str:
    """Pin *mesh*, or the only one, to the policy of *generation*; 0: to that of the pillar. Its name is returned.

    The next converge plans by it. LedgerError if the mesh or the generation is unknown.
    """
    ledger = Ledger.of(opts)
    name = resolve_mesh(ledger, mesh)
    records = mesh_records.read_snapshot(ledger).mesh(name)
    ledger.save_pin(name, policy_pin.pin_to(records, generation, inventory.raw_policy(opts)))
    return name
