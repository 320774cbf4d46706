"""The published plan as the start of the next step."""

from __future__ import annotations

from dataclasses import dataclass

from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.pairs import NodePair, node_pair
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.transition.evidence import Evidence
from saltext_wgmesh.core.transition.state import Transition


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedStep:
    """The published plan, with all that is known of how far the nodes are with it."""

    plan: Plan
    transition: Transition
    """The transition of the plan."""
    health: Health
    evidence: Evidence

    def dead_links(self) -> frozenset[NodePair]:
        """Return the links that count as down and carry nothing.

        A link in hold-down carries, and nodes without another link use it already.
        """
        return frozenset(pair for pair in self.health.down_links if not self.evidence.link_carries(pair))

    def is_heard_by_neighbours(self, relay: str) -> bool:
        """Return whether *relay* has applied its view and its links to all neighbours that can be asked are up."""
        not_asked = self.health.down_nodes | self.health.unresponsive
        links = [node_pair(link.a, link.b) for link in self.plan.links if relay in (link.a, link.b)]
        return self.evidence.has_applied(relay) and all(
            self.evidence.link_up(pair)
            for pair in links
            if pair not in self.health.down_links and not not_asked & set(pair)
        )
