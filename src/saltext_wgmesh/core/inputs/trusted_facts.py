"""The facts from which a plan is made, and why other facts are rejected.

Facts are claims. A fault in the facts of one node costs that node its place in the mesh, and no other node. Salt's
mine has one bank for each minion, so the bank names the node; the facts do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from saltext_wgmesh.core.errors import PlanError, Problem
from saltext_wgmesh.core.inputs.converters import InvalidValue, name_in_path, quoted
from saltext_wgmesh.core.inputs.fact_checks import against_policy, duplicate_keys
from saltext_wgmesh.core.inputs.facts import facts_from_dict
from saltext_wgmesh.core.inputs.node_matching import rules_for
from saltext_wgmesh.core.model.facts import Facts, Rejection
from saltext_wgmesh.core.model.policy import MeshPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFacts:
    """All facts of the mine, each read by itself."""

    facts: Mapping[str, Facts]
    """Sorted by node."""
    rejected: tuple[Rejection, ...]
    """Sorted by node; at most one for each node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedFacts:
    """The facts from which one mesh is planned."""

    facts: Mapping[str, Facts]
    """Sorted by node. The facts of nodes that are not members are included and not checked."""
    rejected: tuple[Rejection, ...]
    """Members whose current facts are not used, and whether their last good facts are; sorted."""


def parse_facts(raw: Mapping[str, object], accepted: Mapping[str, str]) -> ParsedFacts:
    """Return the readable facts of accepted nodes, and a rejection for every other entry.

    *raw* is node → the value in its mine; *accepted* is minion id → fingerprint of its accepted Salt key.
    """
    facts, rejected = {}, []
    for node in sorted(raw, key=name_in_path):
        try:
            facts[node] = _accepted_facts(node, raw[node], accepted)
        except InvalidValue as error:
            named = node if isinstance(node, str) else quoted(node)
            rejected.append(Rejection(node=named, reason=error.message, remedy=error.remedy))
    return ParsedFacts(facts=MappingProxyType(dict(sorted(facts.items()))), rejected=tuple(sorted(rejected)))


def _accepted_facts(node: str, raw: object, accepted: Mapping[str, str]) -> Facts:
    if node not in accepted:
        raise InvalidValue(
            "its Salt key is not accepted any more, but its facts are still in the mine",
            f"accept it again if the node is to stay: salt-key -a {name_in_path(node)}",
        )
    facts = facts_from_dict(node, raw)
    if facts.salt_key != accepted[node]:
        raise InvalidValue(
            "its facts were published under another Salt key than the one accepted now",
            f"have it publish again: salt {name_in_path(node)} state.apply wgmesh",
        )
    return facts


def select_facts(
    mesh: MeshPolicy, parsed: ParsedFacts, last_good: Mapping[str, Facts], accepted: Mapping[str, str]
) -> TrustedFacts:
    """Return the facts for a plan of *mesh*: the current facts of each node, else its last good facts.

    Last good facts replace current facts that are missing, can't be read, or contradict the policy or other nodes. They
    must have been published under the Salt key that is accepted now; *accepted* is minion id → fingerprint of that key.
    A public key that a node has run with belongs to that node: another node that publishes it is rejected. A node
    without usable facts is left out.

    Raises PlanError if last good facts that are needed contradict the policy. Then the policy has changed, and a plan
    without these facts would remove a running node.
    """
    usable = {node: facts for node, facts in last_good.items() if accepted.get(node) == facts.salt_key}
    rules = rules_for(mesh, {*parsed.facts, *usable, *(r.node for r in parsed.rejected)})
    missing = usable.keys() - parsed.facts.keys() - {r.node for r in parsed.rejected}
    rejections = [
        *parsed.rejected,
        *(Rejection(node=node, reason="it has no facts in the mine", remedy=_publish(node)) for node in missing),
        *_objections(mesh, parsed.facts, usable),
    ]
    # Facts of nodes that no rule matches are passed on unchecked: no plan uses them.
    rejections = [rejection for rejection in rejections if rejection.node in rules]
    rejected = {rejection.node for rejection in rejections}
    current = {node: facts for node, facts in parsed.facts.items() if node not in rejected}
    old = _usable_old_facts(mesh, {node: facts for node, facts in usable.items() if node not in current})
    return TrustedFacts(
        facts=MappingProxyType(dict(sorted({**current, **old}.items()))),
        rejected=tuple(sorted(_with_outcome(rejection, rejection.node in old) for rejection in rejections)),
    )


def _publish(node: str) -> str:
    return f"have it publish them: salt {name_in_path(node)} state.apply wgmesh"


def _objections(mesh: MeshPolicy, current: Mapping[str, Facts], last_good: Mapping[str, Facts]) -> Iterator[Rejection]:
    """Yield the rejections of current facts: contradictions, and keys that other members have run with."""
    rules = rules_for(mesh, current)
    members = {node: current[node] for node in rules}
    yield from duplicate_keys(_keys(members), _keys({node: last_good[node] for node in rules_for(mesh, last_good)}))
    yield from against_policy(mesh, rules, members)


def _usable_old_facts(mesh: MeshPolicy, old: Mapping[str, Facts]) -> dict[str, Facts]:
    """Return *old* without members that share a key; PlanError if the facts of one contradict the policy."""
    rules = rules_for(mesh, old)
    members = {node: old[node] for node in rules}
    problems = [
        Problem(path=f"node {name_in_path(r.node)}", message=f"by its last good facts, {r.reason}", remedy=r.remedy)
        for r in against_policy(mesh, rules, members)
    ]
    if problems:
        raise PlanError(problems)
    duplicates = {r.node for r in duplicate_keys(_keys(members), {})}
    return {node: facts for node, facts in old.items() if node not in duplicates}


def _keys(facts: Mapping[str, Facts]) -> dict[str, tuple[str, ...]]:
    return {node: own.keys for node, own in facts.items()}


def _with_outcome(rejection: Rejection, has_old_facts: bool) -> Rejection:
    outcome = "until then its last good facts are used" if has_old_facts else "until then it is left out"
    return replace(rejection, remedy=f"{rejection.remedy}; {outcome}")
