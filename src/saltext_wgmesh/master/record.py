"""The published plan, made again from what the ledger says it was made from: same inputs, same bytes."""

from __future__ import annotations

from dataclasses import dataclass

from saltext_wgmesh.core import facts as facts_module
from saltext_wgmesh.core import health as health_module
from saltext_wgmesh.core import plan as planner
from saltext_wgmesh.core import policy as policy_module
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.types import MeshPolicy, Plan
from saltext_wgmesh.master.ledger import Ledger, register_from_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A generation of one mesh as it stands in the ledger."""

    policy: MeshPolicy
    plan: Plan
    generation: int
    published_at: float
    reasons: dict[str, str]


def published(ledger: Ledger, mesh: str | None = None) -> Published:
    """The current generation of *mesh*, or of the only mesh there is; LedgerError if that is not clear."""
    name = _the_mesh(ledger, mesh)
    generation = ledger.head(name).generation
    origin = ledger.origin(name, generation)
    policy = policy_module.parse({name: origin["policy"]}).meshes[name]
    health = health_module.from_dict(origin.get("health", {}))
    facts = {node: facts_module.from_dict(node, raw) for node, raw in origin["facts"].items()}
    return Published(
        policy=policy,
        plan=planner.make(policy, facts, register_from_dict(origin["register"]), health),
        generation=generation,
        published_at=origin["published_at"],
        reasons=origin["reasons"],
    )


def _the_mesh(ledger: Ledger, mesh: str | None) -> str:
    known = ledger.meshes()
    if not known:
        raise LedgerError(
            "no mesh was published yet: run `salt '*' state.apply wgmesh`, then `salt-run wgmesh.converge`"
        )
    if mesh is None and len(known) == 1:
        return known[0]
    if mesh not in known:
        asked = "several meshes are published" if mesh is None else f"there is no mesh {mesh!r}"
        raise LedgerError(f"{asked}: say mesh=<one of {', '.join(known)}>")
    return mesh
