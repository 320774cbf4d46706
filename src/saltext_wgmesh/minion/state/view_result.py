"""The result of the assignment of one mesh, as it is returned to the master, and as the node records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.device.descriptions import ChangeText
from saltext_wgmesh.minion.state import former_version


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewResult:
    """The result of one mesh's assignment. A failure is a value, so that one mesh does not delay another."""

    mesh: str
    digest: str | None = None
    """The digest of the view that the node holds, or of the NoAssignment that it acknowledges; None after a failure."""
    generation: int | None = None
    changes: tuple[ChangeText, ...] = ()
    """The record on the node does not have them."""
    reason: str | None = None
    """Why this node is no member; None: it is one."""
    pending: bool = False
    """Whether it becomes a member once other nodes are there."""
    error: str | None = None
    """Why the assignment was not applied; None: it was."""
    rolled_back: bool = False
    """Whether the view was rolled back: then *digest* is that of the previous view."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as ``wgmesh.apply`` returns them."""
        return {
            **self.outcome_as_dict(),
            "changed": bool(self.changes),
            "changes": [str(change) for change in self.changes],
        }

    def outcome_as_dict(self) -> dict[str, Any]:
        """Return what is recorded on the node: plain values without the changes. None and False are left out."""
        values = {"digest": self.digest, "generation": self.generation, "reason": self.reason, "error": self.error}
        flags = {"pending": self.pending, "rolled_back": self.rolled_back}
        return {k: v for k, v in values.items() if v is not None} | {k: True for k, v in flags.items() if v}

    @classmethod
    def from_outcome(cls, mesh: str, raw: Mapping[str, Any]) -> ViewResult:
        """Return the result that ``outcome_as_dict`` or the former version wrote. TypeError if it is none."""
        present = former_version.result(raw)
        digest, reason, error = (present.get(name) for name in ("digest", "reason", "error"))
        generation = present.get("generation")
        is_text = all(text is None or isinstance(text, str) for text in (digest, reason, error))
        if not is_text or not (generation is None or isinstance(generation, int)):
            raise TypeError("a recorded result has a value of another type")
        return cls(
            mesh=mesh,
            digest=digest,
            generation=generation,
            reason=reason,
            pending=present.get("pending") is True,
            error=error,
            rolled_back=present.get("rolled_back") is True,
        )
