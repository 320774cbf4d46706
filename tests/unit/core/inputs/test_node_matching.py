"""The rule of a node is the first entry of ``nodes`` that matches its minion id."""

from __future__ import annotations

import fnmatch

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.inputs import node_matching, policy
from saltext_wgmesh.core.model.policy import MeshPolicy, NodeRule

IDS = st.text("ab1.", min_size=1, max_size=4)
PATTERNS = st.text("ab1.*?", min_size=1, max_size=4) | st.sampled_from(["[ab]*", "[!a]?", "a[", "*"])


@settings(max_examples=300, deadline=None)
@given(patterns=st.lists(PATTERNS, unique=True, max_size=6), nodes=st.lists(IDS, max_size=8))
def test_first_matching_entry_is_the_rule(patterns: list[str], nodes: list[str]) -> None:
    """``rule_for`` and ``rules_for`` return the first rule whose pattern is the id, or matches it as a glob."""
    rules = tuple(NodeRule(pattern=pattern) for pattern in patterns)
    mesh = MeshPolicy(name="wg0", interface="wg0", networks=(), nodes=rules)
    expected = {}
    for node in sorted(set(nodes)):
        matching = [rule for rule in rules if rule.pattern == node or fnmatch.fnmatchcase(node, rule.pattern)]
        if matching:
            expected[node] = matching[0]
    assert {node: rule for node in nodes if (rule := node_matching.rule_for(mesh, node))} == expected
    assert list(node_matching.rules_for(mesh, nodes).items()) == list(expected.items())


def test_absent_node_matched_by_glob_is_no_member() -> None:
    """Both functions respect ``absent``, for ids and for globs."""
    nodes = {"web7": "absent", "db*": "absent", "db1": {}, "*": {}}
    mesh = policy.parse_policy({"wg0": {"network": "10.0.0.0/16", "nodes": nodes}}).meshes["wg0"]
    ids = ("web1", "web7", "db1", "db2")
    assert set(node_matching.rules_for(mesh, ids)) == {"web1"}
    assert [node for node in ids if node_matching.rule_for(mesh, node)] == ["web1"]
