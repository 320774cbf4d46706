"""The result of an apply or of a removal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from saltext_wgmesh.core.device import descriptions, desired
from saltext_wgmesh.core.device.diff import Change
from saltext_wgmesh.core.model.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """The changes that an apply made, or in a dry run would make."""

    mesh: str
    digest: str | None
    """The digest of the view that now holds; None: the mesh was removed from this node."""
    changes: tuple[descriptions.ChangeText, ...]

    @property
    def changed(self) -> bool:
        """Whether there was anything to change."""
        return bool(self.changes)

    @property
    def lines(self) -> list[str]:
        """The changes, one line each, in the order in which they are made."""
        return [str(change) for change in self.changes]


def describe_result(changes: Iterable[Change], *views: View | None) -> tuple[descriptions.ChangeText, ...]:
    """Return *changes* in words. Peers are named by the nodes in *views*; the last view counts most."""
    node_by_key: dict[str, str] = {}
    for view in views:
        node_by_key |= desired.node_by_key(view) if view else {}
    return tuple(descriptions.describe(change, node_by_key) for change in changes)
