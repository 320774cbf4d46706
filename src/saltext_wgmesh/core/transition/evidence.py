"""Evidence about the published plan: views that nodes applied, links that are up, links that carry packets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from saltext_wgmesh.core.model.pairs import NodePair, node_pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The content of acknowledgements and link reports, as far as it concerns the published plan."""

    has_applied: Callable[[str], bool]
    """Whether a node has acknowledged its view."""
    link_up: Callable[[NodePair], bool]
    """Whether an end of a link reports it as up."""
    link_carries: Callable[[NodePair], bool]
    """Whether an end of a link reports that packets pass, even if the link is in hold-down."""

    def can_deliver(self, leaf: str, relay: str, was_in_transition: bool) -> bool:
        """Return whether *relay* has its link to *leaf*.

        If *was_in_transition*, the link may be new, and then acknowledged views do not prove that it is up.
        """
        return self.link_up(node_pair(leaf, relay)) or (self._both_applied(leaf, relay) and not was_in_transition)

    def carries_both_ways(self, a: str, b: str) -> bool:
        """Return whether both nodes have applied their views and their link is up."""
        return self._both_applied(a, b) and self.link_up(node_pair(a, b))

    def _both_applied(self, a: str, b: str) -> bool:
        return self.has_applied(a) and self.has_applied(b)
