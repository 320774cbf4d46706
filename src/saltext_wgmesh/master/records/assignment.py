"""Assignments: one node's view of one mesh, or the reason why it has none."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.model.view import View


class AssignmentKind(enum.Enum):
    """The kinds of assignment that a node can have in a mesh."""

    VIEW = "view"
    """It is a member."""
    UNPLACED = "unplaced"
    """It will be a member as soon as other nodes are there, and keeps what it runs until then."""
    EXCLUDED = "excluded"
    """It is no member, and keeps what it runs, which is nothing of this mesh as far as the master knows."""
    LEAVE = "leave"
    """It was a member, and is to remove the mesh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One node's assignment in one mesh, with the digest that the node acknowledges it by."""

    kind: AssignmentKind
    digest: str
    view: View | None = None
    """None unless *kind* is VIEW."""
    reason: str = ""
    """Why there is no view; empty if there is one."""

    @classmethod
    def of_view(cls, view: View) -> Assignment:
        """The assignment of a member."""
        return cls(kind=AssignmentKind.VIEW, digest=view.digest(), view=view)

    @classmethod
    def without_view(cls, kind: AssignmentKind, reason: str) -> Assignment:
        """The assignment of a node that has no view, for *reason*."""
        text = json.dumps([kind.value, reason])
        return cls(kind=kind, digest=hashlib.sha256(text.encode()).hexdigest(), reason=reason)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger and for the node's pillar, which gets them unchanged.

        A view stands there by its own keys. Anything else has ``reason``, and ``pending`` or ``removed`` if the node
        is unplaced or is to leave.
        """
        if self.view is not None:
            return {**self.view.as_dict(), "digest": self.digest}
        flags = {AssignmentKind.UNPLACED: {"pending": True}, AssignmentKind.LEAVE: {"removed": True}}
        return {"reason": self.reason, **flags.get(self.kind, {}), "digest": self.digest}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAssignment:
    """An assignment as the ledger has it. A node has tens of them, and few of their views are ever needed."""

    generation: int
    digest: str
    content: Mapping[str, Any]
    """The plain values of ``Assignment.as_dict``, and ``generation``."""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> StoredAssignment:
        """The assignment that ``as_dict`` wrote. TypeError or KeyError if it has no generation or no digest."""
        if not isinstance(raw["generation"], int) or not isinstance(raw["digest"], str):
            raise TypeError("an assignment has no generation or no digest")
        return cls(generation=raw["generation"], digest=raw["digest"], content=raw)

    @classmethod
    def of(cls, assignment: Assignment, generation: int) -> StoredAssignment:
        """*assignment*, which is new in *generation*."""
        content = {**assignment.as_dict(), "generation": generation}
        return cls(generation=generation, digest=assignment.digest, content=content)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger and for the node's pillar."""
        return dict(self.content)

    def view(self) -> View | None:
        """The view, as ``view_from_dict`` reads it."""
        return view_from_dict(self.content)

    @property
    def is_damaged(self) -> bool:
        """Whether the content has a view that is not the one of the digest."""
        view = self.view()
        return "interfaces" in self.content and (view is None or view.digest() != self.digest)


def view_from_dict(raw: Mapping[str, Any]) -> View | None:
    """The view of an assignment that ``Assignment.as_dict`` wrote.

    None if there is no view in it, or one of another version, of which nothing is known then.
    """
    try:
        return View.from_dict(raw) if "interfaces" in raw else None
    except ViewError:
        return None
