"""How much a change of policy, facts or keys takes out of a mesh, and whether that is too much to believe it.

Half an inventory that is gone is far more often a fault than a wish. So what a plan would drop is measured before
anything else is done with it, on what follows from policy and facts alone: who is a member, and which leaves are linked
directly. What is down, which relay a leaf has, and what is kept for a while of the plan before play no part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Pair = tuple[str, str]
"""Two leaves, sorted."""

LEAST = 2
"""Fewer are never too much: one node always may leave."""
SHOWN = 12
"""Characters of a digest: enough to tell what is held now from what was held before."""
_LETTERS = str.maketrans("0123456789", "ghijklmnop")
"""A digest without digits is never taken for a number on a command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What of a plan follows from policy and facts alone."""

    leaves: frozenset[str] = frozenset()
    relays: frozenset[str] = frozenset()
    pairs: frozenset[Pair] = frozenset()
    """Leaves that are linked directly."""

    @property
    def members(self) -> frozenset[str]:
        """All nodes of the mesh."""
        return self.leaves | self.relays


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is there before and not after."""

    nodes: frozenset[str] = frozenset()
    pairs: frozenset[Pair] = frozenset()
    """Leaves that stay leaves, and would be linked directly no more."""

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
        """What stands for exactly this loss of exactly this mesh, short enough to be typed."""
        text = json.dumps([mesh, sorted(self.nodes), self.links])
        return hashlib.sha256(text.encode()).hexdigest()[:SHOWN].translate(_LETTERS)

    def as_dict(self) -> dict[str, list[str] | list[list[str]]]:
        """Plain values; ``loss_from_dict`` is the inverse."""
        return {"nodes": sorted(self.nodes), "pairs": [list(pair) for pair in sorted(self.pairs)]}


NOTHING = Loss()


def loss_from_dict(raw: Mapping[str, Iterable[Iterable[str]]]) -> Loss:
    """What ``as_dict`` wrote; nothing by an empty mapping."""
    nodes = frozenset(str(node) for node in raw.get("nodes", ()))
    return Loss(nodes=nodes, pairs=frozenset((a, b) for a, b in raw.get("pairs", ())))


def loss(before: Outline, after: Outline) -> Loss:
    """What *after* lacks. Links of nodes that leave go with them; a leaf that becomes a relay gets others."""
    stay = before.leaves & after.leaves
    pairs = frozenset(p for p in before.pairs - after.pairs if stay.issuperset(p))
    return Loss(nodes=before.members - after.members, pairs=pairs)


def is_too_much(lost: Loss, before: Outline, percent: int) -> bool:
    """Whether *lost* is more than *percent* of the nodes of *before*, or of the direct links between those that stay.

    One node is never too much, nor is what one node's links lose.
    """
    stay = before.members - lost.nodes
    pairs = [p for p in before.pairs if stay.issuperset(p)]
    ends = [set(p) for p in lost.pairs]
    return _exceeds(len(lost.nodes), len(before.members), percent) or (
        _exceeds(len(lost.pairs), len(pairs), percent) and not set.intersection(*ends)
    )


def _exceeds(lost: int, of: int, percent: int) -> bool:
    return lost >= LEAST and lost * 100 > percent * of
