"""The inputs of a generation: the same inputs give the same plan, byte for byte."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saltext_wgmesh.core.inputs import facts as facts_module
from saltext_wgmesh.core.inputs import facts_format
from saltext_wgmesh.core.inputs import policy as policy_module
from saltext_wgmesh.core.keys import rotation
from saltext_wgmesh.core.liveness import mesh_health as health_module
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.transition import state
from saltext_wgmesh.core.transition.state import Transition
from saltext_wgmesh.master.records.mesh_head import allocations_as_dict, allocations_from_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """The inputs of one plan."""

    policy: MeshPolicy
    facts: Mapping[str, Facts]
    allocations: Allocations
    health: Health
    drained: frozenset[str] = frozenset()
    transition: Transition = state.NO_TRANSITION
    activated_keys: frozenset[str] = frozenset()
    """Nodes that may run their next key."""
    raw_policy: Any = field(repr=False)
    """The mesh's policy as it stands in the pillar."""

    def plan(self) -> Plan:
        """The plan that these inputs give."""
        plan = planner.plan_mesh(
            self.policy, self.facts, self.allocations, self.health, drained=self.drained, transition=self.transition
        )
        return rotation.with_activation(plan, self.activated_keys)

    def with_current(
        self, nodes: Collection[str], allocations: Allocations, health: Health, drained: frozenset[str]
    ) -> PlanInputs:
        """The same policy and facts, of *nodes* alone, with the present *allocations*, *health* and *drained* nodes."""
        facts = {node: facts for node, facts in self.facts.items() if node in nodes}
        return replace(
            self, facts=facts, allocations=allocations, health=health, drained=drained, transition=state.NO_TRANSITION
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger; ``from_dict`` is the inverse."""
        return {
            "policy": self.raw_policy,
            "facts": {node: facts_format.facts_as_dict(value) for node, value in self.facts.items()},
            "allocations": allocations_as_dict(self.allocations),
            "health": health_module.health_as_dict(self.health),
            "drained": sorted(self.drained),
            "transition": state.transition_as_dict(self.transition),
            "activated_keys": sorted(self.activated_keys),
        }

    @classmethod
    def from_dict(cls, mesh: str, raw: Mapping[str, Any]) -> PlanInputs:
        """The inputs of *mesh* that ``as_dict`` wrote; PolicyError if this version refuses the policy."""
        return cls(
            policy=policy_module.parse_policy({mesh: raw["policy"]}).meshes[mesh],
            facts={node: facts_module.facts_from_dict(node, told) for node, told in raw["facts"].items()},
            allocations=allocations_from_dict(raw["allocations"]),
            health=health_module.health_from_dict(raw["health"]),
            drained=frozenset(raw["drained"]),
            transition=state.transition_from_dict(raw["transition"]),
            activated_keys=frozenset(raw["activated_keys"]),
            raw_policy=raw["policy"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One published plan, by what it was made from."""

    inputs: PlanInputs
    reasons: Mapping[str, str]
    """Node with facts that has no place in the plan → why."""
    published_at: float
    """Seconds since the epoch."""
    is_retired: bool = False
    """Whether the policy no longer has the mesh: its nodes are told to leave."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger; ``from_dict`` is the inverse."""
        return {
            **self.inputs.as_dict(),
            "reasons": dict(self.reasons),
            "published_at": self.published_at,
            "is_retired": self.is_retired,
        }

    @classmethod
    def from_dict(cls, mesh: str, raw: Mapping[str, Any]) -> Generation:
        """The generation of *mesh* that ``as_dict`` wrote; PolicyError if this version refuses the policy."""
        return cls(
            inputs=PlanInputs.from_dict(mesh, raw),
            reasons=raw["reasons"],
            published_at=raw["published_at"],
            is_retired=raw["is_retired"],
        )
