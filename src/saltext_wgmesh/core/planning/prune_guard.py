"""The prune guard: how much a change of policy, facts or keys removes from a mesh, and whether that is too much.

An inventory that loses half of its nodes is more often a fault than an intention. So the loss is measured before a plan
is used. The measure depends only on policy and facts: the members, and the leaves that are linked directly. Links that
are down, the relays of a leaf and transitions do not count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from saltext_wgmesh.core.model.pairs import NodePair

MIN_LOSS = 2
"""The smallest loss that can be too much: one node may always leave."""
DIGEST_LENGTH = 12
"""Characters of a digest: enough to distinguish the losses of one mesh."""
_LETTERS = str.maketrans("0123456789", "ghijklmnop")
"""Digits become letters, so that a command line never reads a digest as a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The members and direct links of a plan, which follow from policy and facts alone."""

    leaves: frozenset[str] = frozenset()
    relays: frozenset[str] = frozenset()
    pairs: frozenset[NodePair] = frozenset()
    """The leaves that are linked directly."""

    @property
    def members(self) -> frozenset[str]:
        """All nodes of the mesh."""
        return self.leaves | self.relays


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The nodes and direct links that a change removes."""

    nodes: frozenset[str] = frozenset()
    pairs: frozenset[NodePair] = frozenset()
    """Leaves that stay leaves, and would no longer be linked directly."""

    def __bool__(self) -> bool:
        return bool(self.nodes or self.pairs)

    def __or__(self, other: Loss) -> Loss:
        return Loss(nodes=self.nodes | other.nodes, pairs=self.pairs | other.pairs)

    def __and__(self, other: Loss) -> Loss:
        return Loss(nodes=self.nodes & other.nodes, pairs=self.pairs & other.pairs)

    def __sub__(self, other: Loss) -> Loss:
        return Loss(nodes=self.nodes - other.nodes, pairs=self.pairs - other.pairs)

    @property
    def links(self) -> list[str]:
        """The pairs as ``a--b``, sorted."""
        return sorted("--".join(pair) for pair in self.pairs)

    def digest(self, mesh: str) -> str:
        """Return an identifier of exactly this loss of *mesh*, short enough to be typed."""
        text = json.dumps([mesh, sorted(self.nodes), self.links])
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH].translate(_LETTERS)

    def as_dict(self) -> dict[str, list[str] | list[list[str]]]:
        """Return plain values; ``loss_from_dict`` is the inverse."""
        return {"nodes": sorted(self.nodes), "direct_links": [list(pair) for pair in sorted(self.pairs)]}


NO_LOSS = Loss()


def loss_from_dict(raw: Mapping[str, Iterable[Iterable[str]]]) -> Loss:
    """Return the loss that ``as_dict`` wrote; an empty mapping is no loss."""
    nodes = frozenset(str(node) for node in raw.get("nodes", ()))
    return Loss(nodes=nodes, pairs=frozenset((a, b) for a, b in raw.get("direct_links", ())))


def loss(before: Membership, after: Membership) -> Loss:
    """Return the nodes and direct links of *before* that *after* does not have.

    Links of nodes that leave do not count: the nodes do. A leaf that becomes a relay has other links, and loses none.
    """
    stay = before.leaves & after.leaves
    pairs = frozenset(p for p in before.pairs - after.pairs if stay.issuperset(p))
    return Loss(nodes=before.members - after.members, pairs=pairs)


def exceeds_guard(lost: Loss, before: Membership, percent: int) -> bool:
    """Return whether *lost* is more than *percent* of the nodes of *before*, or of the direct links that could stay.

    The loss of one node is never too much, and neither is the loss of links of one node.
    """
    stay = before.members - lost.nodes
    pairs = [p for p in before.pairs if stay.issuperset(p)]
    ends = [set(p) for p in lost.pairs]
    return _exceeds(len(lost.nodes), len(before.members), percent) or (
        _exceeds(len(lost.pairs), len(pairs), percent) and not set.intersection(*ends)
    )


def _exceeds(lost: int, of: int, percent: int) -> bool:
    return lost >= MIN_LOSS and lost * 100 > percent * of
