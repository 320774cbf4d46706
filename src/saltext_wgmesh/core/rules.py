"""Which entry of ``nodes`` holds for a node: the first, in the operator's order, that matches its minion id."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable

from saltext_wgmesh.core.types import MeshPolicy, NodeRule


def has_wildcards(pattern: str) -> bool:
    """Whether *pattern* may match more than the one id that it spells."""
    return any(sign in pattern for sign in "*?[")


def rule_for(mesh: MeshPolicy, node: str) -> NodeRule | None:
    """The rule for one node; None: it is no member. For many nodes, ``rules_for`` is faster."""
    for rule in mesh.nodes:
        if rule.pattern == node or (has_wildcards(rule.pattern) and fnmatch.fnmatchcase(node, rule.pattern)):
            return None if rule.absent else rule
    return None


def rules_for(mesh: MeshPolicy, nodes: Iterable[str]) -> dict[str, NodeRule]:
    """The rule for each of *nodes* that is a member, sorted by node."""
    find = finder(mesh.nodes)
    found = ((node, find(node)) for node in sorted(set(nodes)))
    return {node: rule for node, rule in found if rule}


def finder(rules: Iterable[NodeRule]) -> Callable[[str], NodeRule | None]:
    """A function from a node to its rule: one look-up, and one match for each glob that stands before the find."""
    exact: dict[str, tuple[int, NodeRule]] = {}
    globs: list[tuple[int, re.Pattern[str], NodeRule]] = []
    for place, rule in enumerate(rules):
        exact.setdefault(rule.pattern, (place, rule))
        if has_wildcards(rule.pattern):
            globs.append((place, re.compile(fnmatch.translate(rule.pattern)), rule))

    def find(node: str) -> NodeRule | None:
        place, found = exact.get(node, (None, None))
        for glob_place, glob, rule in globs:
            if place is not None and glob_place > place:
                break
            if glob.match(node):
                return None if rule.absent else rule
        return None if found and found.absent else found

    return find
