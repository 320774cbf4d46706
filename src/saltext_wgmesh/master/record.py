"""The published plan, made again from what the ledger says it was made from: same inputs, same bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saltext_wgmesh.core import facts as facts_module
from saltext_wgmesh.core import health as health_module
from saltext_wgmesh.core import plan as planner
from saltext_wgmesh.core import policy as policy_module
from saltext_wgmesh.core import rollout, rotation
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.rollout import Kept
from saltext_wgmesh.core.types import Facts, MeshPolicy, Plan, Register
from saltext_wgmesh.master.ledger import Ledger, register_as_dict, register_from_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A generation of one mesh as it stands in the ledger."""

    policy: MeshPolicy
    plan: Plan
    generation: int
    published_at: float
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a generation was planned from."""

    policy: MeshPolicy
    facts: Mapping[str, Facts]
    register: Register
    health: Health
    drained: frozenset[str] = frozenset()
    kept: Kept = rollout.NOTHING
    turns: frozenset[str] = frozenset()
    """Nodes that may run their next key."""
    raw_policy: Any = field(repr=False)

    def plan(self) -> Plan:
        """The plan of that generation."""
        plan = planner.make(self.policy, self.facts, self.register, self.health, drained=self.drained, kept=self.kept)
        return rotation.turned(plan, self.turns)

    def of_now(self, nodes: Collection[str], register: Register, health: Health, drained: frozenset[str]) -> Origin:
        """The same policy and facts, of *nodes* alone, beside what is known now."""
        facts = {node: facts for node, facts in self.facts.items() if node in nodes}
        return replace(self, facts=facts, register=register, health=health, drained=drained, kept=rollout.NOTHING)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger."""
        return {
            "policy": self.raw_policy,
            "facts": {node: facts_module.as_dict(value) for node, value in self.facts.items()},
            "register": register_as_dict(self.register),
            "health": health_module.as_dict(self.health),
            "drained": sorted(self.drained),
            "kept": rollout.as_dict(self.kept),
            "turns": sorted(self.turns),
        }


def origin_of(ledger: Ledger, mesh: str, generation: int = 0) -> Origin:
    """Of that *generation* of *mesh*, or of the current one; LedgerError if it is not kept."""
    return _origin(mesh, ledger.origin(mesh, generation or ledger.head(mesh).generation))


def _origin(mesh: str, raw: Mapping[str, Any]) -> Origin:
    return Origin(
        policy=policy_module.parse({mesh: raw["policy"]}).meshes[mesh],
        facts={node: facts_module.from_dict(node, told) for node, told in raw["facts"].items()},
        register=register_from_dict(raw["register"]),
        health=health_module.from_dict(raw.get("health", {})),
        drained=frozenset(raw.get("drained", ())),
        kept=rollout.from_dict(raw.get("kept", {})),
        turns=frozenset(raw.get("turns", ())),
        raw_policy=raw["policy"],
    )


def published(ledger: Ledger, mesh: str | None = None) -> Published:
    """The current generation of *mesh*, or of the only mesh there is; LedgerError if that is not clear."""
    name = mesh_of(ledger, mesh)
    generation = ledger.head(name).generation
    raw = ledger.origin(name, generation)
    origin = _origin(name, raw)
    return Published(
        policy=origin.policy,
        plan=origin.plan(),
        generation=generation,
        published_at=raw["published_at"],
        reasons=raw["reasons"],
    )


def mesh_of(ledger: Ledger, mesh: str | None) -> str:
    """*mesh*, or the only one that the policy still has; LedgerError as above."""
    known = ledger.meshes()
    if not known:
        raise LedgerError(
            "no mesh was published yet: run `salt '*' state.apply wgmesh`, then `salt-run wgmesh.converge`"
        )
    alive = [name for name in known if not is_retired(ledger, name)] if mesh is None else []
    if len(alive or known) == 1 and mesh is None:
        return (alive or known)[0]
    if mesh not in known:
        asked = "several meshes are published" if mesh is None else f"there is no mesh {mesh!r}"
        raise LedgerError(f"{asked}: say mesh=<one of {', '.join(known)}>")
    return mesh


def is_retired(ledger: Ledger, mesh: str) -> bool:
    """Whether its nodes were told to leave *mesh*: the policy has it no more."""
    generation = ledger.head(mesh).generation
    return bool(generation and ledger.origin(mesh, generation).get("retired"))
