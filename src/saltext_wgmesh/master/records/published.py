"""The published plan, made from what the ledger says that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.master.records import spelling
from saltext_wgmesh.master.records.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The current generation of one mesh."""

    policy: MeshPolicy
    plan: Plan
    generation: int
    published_at: float
    """Seconds since the epoch."""
    reasons: Mapping[str, str]
    """Node with facts that has no place in the plan → why."""


def published(ledger: Ledger, mesh: object = None) -> Published:
    """The current generation of *mesh*, or of the only mesh there is; LedgerError if that is not clear."""
    name = resolve_mesh(ledger, mesh)
    number = ledger.head(name).generation
    generation = ledger.generation(name, number)
    return Published(
        policy=generation.inputs.policy,
        plan=generation.inputs.plan(),
        generation=number,
        published_at=generation.published_at,
        reasons=generation.reasons,
    )


def resolve_mesh(ledger: Ledger, mesh: object) -> str:
    """*mesh*, or the only one that the policy still has; LedgerError if it is unknown, or if there are several."""
    known = ledger.meshes()
    if not known:
        raise LedgerError(
            "no mesh was published yet: run `salt '*' state.apply wgmesh`, then `salt-run wgmesh.converge`"
        )
    if mesh is not None:
        mesh = spelling.spelled(mesh, known)
    alive = [name for name in known if not is_retired(ledger, name)] if mesh is None else []
    if len(alive or known) == 1 and mesh is None:
        return (alive or known)[0]
    if not isinstance(mesh, str) or mesh not in known:
        problem = "several meshes are published" if mesh is None else f"there is no mesh {mesh!r}"
        raise LedgerError(f"{problem}: say mesh=<one of {', '.join(known)}>")
    return mesh


def is_retired(ledger: Ledger, mesh: str) -> bool:
    """Whether the policy no longer has *mesh*, so that its nodes are told to leave it."""
    number = ledger.head(mesh).generation
    return bool(number and ledger.generation(mesh, number).is_retired)
