"""Evidence about the published plan: views that nodes applied, links that are up, links that carry packets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.pairs import NodePair, node_pair
from saltext_wgmesh.core.model.plan import Plan


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


def dead_links(health: Health, evidence: Evidence) -> frozenset[NodePair]:
    """Return the links that count as down and carry nothing.

    A link in hold-down carries, and nodes without another link use it already.
    """
    return frozenset(pair for pair in health.down_links if not evidence.link_carries(pair))


def is_heard_by_neighbours(relay: str, plan: Plan, health: Health, evidence: Evidence) -> bool:
    """Return whether *relay* has applied its view and its links to all neighbours that can be asked are up."""
    not_asked = health.down_nodes | health.unresponsive
    links = [node_pair(link.a, link.b) for link in plan.links if relay in (link.a, link.b)]
    return evidence.has_applied(relay) and all(
        evidence.link_up(pair) for pair in links if pair not in health.down_links and not not_asked & set(pair)
    )
