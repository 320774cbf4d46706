"""The verdict of the proof on plans, for the runner."""

from __future__ import annotations

from dataclasses import dataclass

from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.proof import prove

HOLDS = "holds"
"""The verdict of a proof that finds no problem."""
NOTHING_TO_PROVE = "nothing to prove: the mesh has fewer than two nodes"
"""The verdict where no pair of nodes must reach each other: it says nothing good of the mesh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofVerdict:
    """The verdict on one plan."""

    problems: tuple[str, ...]
    members: int
    """Nodes in the plan."""

    @classmethod
    def on(cls, plan: Plan) -> ProofVerdict:
        """The verdict on *plan*, which is proved now."""
        return cls(problems=tuple(str(problem) for problem in prove.prove(plan)), members=len(plan.members))

    def plain(self) -> list[str] | str:
        """The problems, or a sentence if there are none."""
        return [*self.problems] or (HOLDS if self.members > 1 else NOTHING_TO_PROVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshVerdicts:
    """The verdicts on the plans of one mesh."""

    next: ProofVerdict
    """On the plan that a converge would publish."""
    published: ProofVerdict | None = None
    """On the published plan; None if none is published."""

    @property
    def has_failed(self) -> bool:
        """Whether the proof of one of the plans finds a problem."""
        return bool(self.next.problems or (self.published and self.published.problems))

    def as_dict(self) -> dict[str, list[str] | str]:
        """Plain values, as ``wgmesh.verify`` returns them."""
        found = {"next": self.next, "published": self.published}
        return {name: verdict.plain() for name, verdict in found.items() if verdict}
