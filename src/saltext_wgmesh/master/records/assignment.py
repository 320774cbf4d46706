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


def is_damaged(raw: Mapping[str, Any]) -> bool:
    """Whether the assignment *raw* has a view that is not the one of its digest."""
    view = view_from_dict(raw)
    return "interfaces" in raw and (view is None or view.digest() != raw["digest"])


def view_from_dict(raw: Mapping[str, Any] | None) -> View | None:
    """The view of an assignment that ``Assignment.as_dict`` wrote.

    None if there is no view in it, or one of another version, of which nothing is known then.
    """
    try:
        return View.from_dict(raw) if raw and "interfaces" in raw else None
    except ViewError:
        return None
