"""The nodes and links of a mesh that are down now, by the health that the master keeps and by answers of this moment.

The health knows what a watcher has reported. A link that never came up, or a mesh of which no node answers, may be
missing there. With answers at hand a link is up only if an end says so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.liveness.mesh_health import Health, LinkStates
from saltext_wgmesh.core.model.pairs import NodePair

_FAULTLESS = (LinkState.UP, LinkState.ADMIN_DOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownNow:
    """The nodes that are down, and the links that are down between nodes that are not."""

    nodes: frozenset[str]
    links: frozenset[NodePair]

    @property
    def names(self) -> tuple[str, ...]:
        """Nodes, and links as ``a--b``, sorted."""
        return tuple(sorted([*self.nodes, *("--".join(pair) for pair in self.links)]))


def down_now(
    members: Collection[str], pairs: Collection[NodePair], health: Health, states: LinkStates | None
) -> DownNow:
    """Return what is down of *members* and of *pairs*, which are the links between them.

    *states* are those that nodes answered just now; None: no node was asked, and *health* alone decides. A node is down
    if it did not answer and none of its links is up. A link is down unless an end calls it up and no end calls it
    anything else; a link that is held down on purpose counts as up.
    """
    if states is None:
        return DownNow(nodes=health.down_nodes, links=health.down_links)
    up = {pair for pair in pairs if is_up(pair, states)}
    with_link = {node for pair in up for node in pair}
    down = health.down_nodes | {n for n in members if n not in states and n not in with_link}
    links = ({*pairs} - up) | health.down_links
    return DownNow(nodes=down, links=frozenset(pair for pair in links if not down & set(pair)))


def is_up(pair: NodePair, states: LinkStates) -> bool:
    """Return whether an end of *pair* calls the link up, and no end calls it anything else."""
    told = reported(pair, states)
    return bool(told) and all(state in _FAULTLESS for state in told)


def is_coming_up(pair: NodePair, states: LinkStates) -> bool:
    """Return whether the link of *pair* is new at an end, and no end has found it down."""
    told = reported(pair, states)
    return LinkState.NEW in told and all(state in (*_FAULTLESS, LinkState.NEW) for state in told)


def reported(pair: NodePair, states: LinkStates) -> list[LinkState]:
    """Return the states that the ends of *pair* report; empty if neither does."""
    return [states[a][b] for a, b in (pair, pair[::-1]) if a in states and b in states[a]]
