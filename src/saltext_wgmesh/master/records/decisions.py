"""Records of what an operator has to know or decide: held losses, pinned policies, failed runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.planning import prune_guard
from saltext_wgmesh.core.planning.prune_guard import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLoss:
    """A loss that is not planned for, because it is too large to be believed without confirmation."""

    digest: str
    """The digest by which the operator confirms exactly this loss."""
    nodes: tuple[str, ...]
    """Nodes that would no longer be members, sorted."""
    links: tuple[str, ...]
    """Direct links that would go, as ``a--b``, sorted."""
    why: str
    remedy: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger, for reports and for programs; ``from_dict`` is the inverse."""
        return {
            "digest": self.digest,
            "nodes": list(self.nodes),
            "links": list(self.links),
            "why": self.why,
            "remedy": self.remedy,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> HeldLoss:
        """The loss that ``as_dict`` wrote."""
        return cls(
            digest=raw["digest"],
            nodes=tuple(raw["nodes"]),
            links=tuple(raw["links"]),
            why=raw["why"],
            remedy=raw["remedy"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRecord:
    """The prune guard's record of one mesh."""

    held: HeldLoss | None = None
    approved_loss: Loss = prune_guard.NO_LOSS
    """The loss that may go, by its size or by confirmation, and has not gone yet."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger; empty if there is nothing to remember. ``from_dict`` is the inverse."""
        held = {"held": self.held.as_dict()} if self.held else {}
        return held | ({"approved_loss": self.approved_loss.as_dict()} if self.approved_loss else {})

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> GuardRecord:
        """The record that ``as_dict`` wrote."""
        return cls(
            held=HeldLoss.from_dict(raw["held"]) if "held" in raw else None,
            approved_loss=prune_guard.loss_from_dict(raw.get("approved_loss", {})),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A decision that stands until the mesh's policy in the pillar changes."""

    replaces: str
    """Fingerprint of the pillar's policy of the mesh that the decision is about."""
    generation: int = 0
    """The mesh is planned by the policy of this generation. 0: by the pillar's, whatever happens to its relays."""
    policy: Any = None
    """The raw policy of that generation; None if there is none."""
    why: str = ""
    """Why the master decided so itself. Empty: the operator did."""

    @property
    def is_rolled_back(self) -> bool:
        """Whether another policy than the pillar's is planned."""
        return self.generation != 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger; ``from_dict`` is the inverse."""
        return {"replaces": self.replaces, "generation": self.generation, "policy": self.policy, "why": self.why}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Pin:
        """The pin that ``as_dict`` wrote."""
        return cls(replaces=raw["replaces"], generation=raw["generation"], policy=raw["policy"], why=raw["why"])


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPin:
    """A pin by which a mesh is planned, for operators."""

    mesh: str
    generation: int
    """The mesh is planned by the policy of this generation."""
    why: str
    """Why the master decided so itself. Empty: the operator did."""

    @classmethod
    def of(cls, mesh: str, pin: Pin | None) -> PolicyPin | None:
        """The *pin* of *mesh*; None if the mesh is planned by its policy in the pillar."""
        return cls(mesh=mesh, generation=pin.generation, why=pin.why) if pin and pin.is_rolled_back else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the runner, with the ways in which the pin ends; without ``why`` if there is none."""
        why = {"why": self.why} if self.why else {}
        command = f"salt-run wgmesh.rollback generation=0 mesh={self.mesh}"
        remedy = f"ends when the mesh's policy in the pillar changes, or by: {command}"
        return {"generation": self.generation, **why, "remedy": remedy}


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """The last run, which failed."""

    number: int
    """1 for the first of the runs that failed one after the other."""
    error: str
    """For the master's log and the operator."""
    reason: str
    """For nodes that wait for a view: no word of another node."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger; ``from_dict`` is the inverse."""
        return {"number": self.number, "error": self.error, "reason": self.reason}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> FailedRun:
        """The run that ``as_dict`` wrote."""
        return cls(number=raw["number"], error=raw["error"], reason=raw["reason"])


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """How the last run ended."""

    idle_fingerprint: str = ""
    """The fingerprint of what it planned from, if it left nothing to do; else empty."""
    failed: FailedRun | None = None
    """The failure that ended it; None if it did not fail."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger; ``from_dict`` is the inverse."""
        failed = {"failed": self.failed.as_dict()} if self.failed else {}
        return {"idle_fingerprint": self.idle_fingerprint, **failed}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> LastRun:
        """The run that ``as_dict`` wrote; an empty mapping gives one that says nothing."""
        failed = raw.get("failed")
        return cls(
            idle_fingerprint=raw.get("idle_fingerprint", ""), failed=FailedRun.from_dict(failed) if failed else None
        )
