"""Pairs of nodes."""

from __future__ import annotations

from saltext_wgmesh.core.model.pairs import node_pair


def test_node_pair_either_order_is_sorted() -> None:
    """The pair is the same, whichever node is named first; a node may stand with itself."""
    assert node_pair("a", "b") == ("a", "b")
    assert node_pair("b", "a") == ("a", "b")
    assert node_pair("a", "a") == ("a", "a")
