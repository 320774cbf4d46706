"""Which nodes could reach each other at all: links that live, and relays that forward. No routes, no choices."""

from __future__ import annotations

from saltext_wgmesh.core.index import Index
from saltext_wgmesh.core.walker import Down, is_down


class Graph:
    """The links of a plan as its views have them."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def connected(self, source: str, destination: str, down: Down) -> bool:
        """Whether some path of living links over living relays joins them."""
        seen, front = {source}, [source]
        while front:
            at = front.pop()
            for neighbour in self._neighbours(at):
                if neighbour in seen or is_down(at, neighbour, down):
                    continue
                if neighbour == destination:
                    return True
                seen.add(neighbour)
                if self._forwards(neighbour):
                    front.append(neighbour)
        return False

    def _neighbours(self, name: str) -> tuple[str, ...]:
        """No route leads to an idle link."""
        node = self._index.node(name)
        return tuple(n for n in node.ends if not self._is_idle(name, n)) if node else ()

    def _is_idle(self, name: str, other: str) -> bool:
        members = self._index.plan.members
        return other in members[name].idle or (other in members and name in members[other].idle)

    def _forwards(self, name: str) -> bool:
        member = self._index.plan.members.get(name)
        return member is not None and member.is_relay
