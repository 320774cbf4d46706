"""The plan that a converge would publish for one mesh, as the runner shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.master.operator.proof_verdict import ProofVerdict
from saltext_wgmesh.master.records.decisions import HeldLoss, PolicyPin


@dataclass(frozen=True, slots=True, kw_only=True)
class NextPlan:
    """The drafted plan beside the published one."""

    generation: int
    """The published one; 0: there is none."""
    changes: Mapping[str, list[str]]
    """Node → how its view would change, in readable lines."""
    unplaced: Mapping[str, str]
    """Node with facts that is not in the plan → why."""
    rejected: tuple[str, ...]
    """Facts that are not trusted, and why, as text."""
    missing: Mapping[str, str]
    """Node of the policy that can't be planned yet → why."""
    verdict: ProofVerdict
    asymmetric_pairs: str
    """How many pairs take one relay there and another back, in words; empty if none does."""
    warnings: tuple[str, ...]
    held_loss: HeldLoss | None
    """The loss that would be held."""
    policy_pin: PolicyPin | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as ``wgmesh.plan`` returns them; most keys without content are left out."""
        return {
            "generation": self.generation,
            "changes": dict(self.changes),
            "unplaced": dict(self.unplaced),
            "rejected": list(self.rejected),
            **({"missing": dict(self.missing)} if self.missing else {}),
            "proof": self.verdict.plain(),
            **({"asymmetric_pairs": self.asymmetric_pairs} if self.asymmetric_pairs else {}),
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            **({"held_loss": self.held_loss.as_dict()} if self.held_loss else {}),
            **({"policy_pin": self.policy_pin.as_dict()} if self.policy_pin else {}),
        }
