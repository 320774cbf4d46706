"""The rule of a node: the first entry of ``nodes``, in the operator's order, that matches its minion id."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable

from saltext_wgmesh.core.model.policy import MeshPolicy, NodeRule


def has_wildcards(pattern: str) -> bool:
    """Whether *pattern* may match other ids than the one that it spells."""
    return any(sign in pattern for sign in "*?[")


def rule_for(mesh: MeshPolicy, node: str) -> NodeRule | None:
    """Return the rule of one node; None: the node is not a member. For many nodes, ``rules_for`` is faster."""
    for rule in mesh.nodes:
        if rule.pattern == node or (has_wildcards(rule.pattern) and fnmatch.fnmatchcase(node, rule.pattern)):
            return None if rule.absent else rule
    return None


def rules_for(mesh: MeshPolicy, nodes: Iterable[str]) -> dict[str, NodeRule]:
    """Return node → rule for the members among *nodes*, sorted by node."""
    find = matcher(mesh.nodes)
    found = ((node, find(node)) for node in sorted(set(nodes)))
    return {node: rule for node, rule in found if rule}


def matcher(rules: Iterable[NodeRule]) -> Callable[[str], NodeRule | None]:
    """Return a function from a node to its rule; None: the node is not a member.

    A call costs one look-up, and one match for each glob before the rule that it finds.
    """
    exact: dict[str, tuple[int, NodeRule]] = {}
    globs: list[tuple[int, re.Pattern[str], NodeRule]] = []
    for index, rule in enumerate(rules):
        exact.setdefault(rule.pattern, (index, rule))
        if has_wildcards(rule.pattern):
            globs.append((index, re.compile(fnmatch.translate(rule.pattern)), rule))

    def find(node: str) -> NodeRule | None:
        index, found = exact.get(node, (None, None))
        for glob_index, glob, rule in globs:
            # An entry that spells the node is used unless a glob stands before it.
            if index is not None and glob_index > index:
                break
            if glob.match(node):
                return None if rule.absent else rule
        return None if found and found.absent else found

    return find
