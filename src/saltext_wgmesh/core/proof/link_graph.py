"""The graph of a plan: links that are up, and relays that forward. It knows neither routes nor preferences."""

from __future__ import annotations

from saltext_wgmesh.core.proof.forwarding_tables import ForwardingTables
from saltext_wgmesh.core.proof.packet_walk import Failures, is_down


class LinkGraph:
    """The links of a plan as its views have them."""

    def __init__(self, tables: ForwardingTables) -> None:
        self._tables = tables

    def connected(self, source: str, destination: str, down: Failures) -> bool:
        """Return whether some path joins both nodes, of links that are up and relays that are up."""
        seen, frontier = {source}, [source]
        while frontier:
            at = frontier.pop()
            for neighbour in self._neighbours(at):
                if neighbour in seen or is_down(at, neighbour, down):
                    continue
                if neighbour == destination:
                    return True
                seen.add(neighbour)
                # A leaf may end a path, but never forwards for other nodes.
                if self._forwards(neighbour):
                    frontier.append(neighbour)
        return False

    def _neighbours(self, name: str) -> tuple[str, ...]:
        """Return the neighbours at the other ends of the node's links that routes may use."""
        node = self._tables.node(name)
        return tuple(n for n in node.ends if not self._is_unrouted(name, n)) if node else ()

    def _is_unrouted(self, name: str, other: str) -> bool:
        # Only leaves have unrouted relays, so either end may be the leaf.
        members = self._tables.plan.members
        return other in members[name].unrouted_relays or (other in members and name in members[other].unrouted_relays)

    def _forwards(self, name: str) -> bool:
        member = self._tables.plan.members.get(name)
        return member is not None and member.is_relay
