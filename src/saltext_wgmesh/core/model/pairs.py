"""Two nodes as one value, whichever of them is named first."""

from __future__ import annotations

NodePair = tuple[str, str]
"""Two nodes, the lesser name first; made by ``node_pair``."""


def node_pair(a: str, b: str) -> NodePair:
    """Return the pair of *a* and *b*, sorted, so that two pairs of the same nodes are equal."""
    return (a, b) if a < b else (b, a)
