"""The facts from which a plan is made, and why other facts are rejected.

Facts are claims. A fault in the facts of one node costs that node its place in the mesh, and no other node. Salt's
mine has one bank for each minion, so the bank names the node; the facts do not.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from saltext_wgmesh.core.errors import PlanError, Problem
from saltext_wgmesh.core.inputs.converters import InvalidValue, name_in_path, quoted
from saltext_wgmesh.core.inputs.fact_checks import against_policy
from saltext_wgmesh.core.inputs.facts import facts_from_dict
from saltext_wgmesh.core.inputs.key_claims import KeyDispute, KeyOwners, key_disputes, key_owners
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
    """Sorted by node. The facts of nodes that are not members are included, and only their keys are checked."""
    rejected: tuple[Rejection, ...]
    """Nodes whose current facts are not used, or not their next key, and what is used until then; sorted."""


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
    mesh: MeshPolicy,
    parsed: ParsedFacts,
    last_good: Mapping[str, Facts],
    accepted: Mapping[str, str],
    *,
    placed: Container[str] = (),
    owners_elsewhere: KeyOwners = MappingProxyType({}),
    flapping: Container[str] = (),
    is_asked_for: Callable[[Facts, Facts], bool] = lambda _old, _new: False,
) -> TrustedFacts:
    """Return the facts for a plan of *mesh*: the current facts of each node, else its last good facts.

    Last good facts replace current facts that are missing, can't be read, or contradict the policy. They must have been
    published under the Salt key that is accepted now; *accepted* is minion id → fingerprint of that key. A node without
    usable facts is left out.

    A public key belongs to the node that published it first, by the last good facts and by *owners_elsewhere*, which
    are those of other records. *placed* are the nodes that the published plan has: they go first if the records name
    several nodes. A node that publishes the key of another one costs that one nothing. It falls back to its last good
    facts itself, or loses only its next key.

    *flapping* nodes published other facts too often. They keep their last good facts for now, if these can be used.
    Facts that differ as the master asked for, by ``is_asked_for`` of old and new ones, are taken all the same.

    Raises PlanError if last good facts that are needed contradict the policy. Then the policy has changed, and a plan
    without these facts would remove a running node.
    """
    usable = {node: facts for node, facts in last_good.items() if accepted.get(node) == facts.salt_key}
    owners = {**owners_elsewhere, **key_owners([[f for n, f in usable.items() if n in placed], usable.values()])}
    held = {n: facts for n, facts in usable.items() if n in flapping}
    held = {n: f for n, f in held.items() if not is_asked_for(f, parsed.facts.get(n, f))}
    parsed = _without_flapping(mesh, parsed, held)
    rules = rules_for(mesh, {*parsed.facts, *usable, *(r.node for r in parsed.rejected)})
    missing = usable.keys() - parsed.facts.keys() - {r.node for r in parsed.rejected}
    unusable = [
        *parsed.rejected,
        *(Rejection(node=node, reason="it has no facts in the mine", remedy=_publish(node)) for node in missing),
        *_contradictions(mesh, parsed.facts),
    ]
    # Facts of nodes that no rule matches need not fit the policy: no plan uses them.
    unusable = [rejection for rejection in unusable if rejection.node in rules]
    left = {node: facts for node, facts in parsed.facts.items() if node not in {r.node for r in unusable}}
    claims = _claims(left, list(key_disputes(left, owners, rules)))
    current = dict(claims.facts)
    old = _usable_old_facts(mesh, {node: facts for node, facts in usable.items() if node not in current}, owners)
    outcomes = {
        **dict.fromkeys(old, "until then its last good facts are used"),
        **dict.fromkeys(current, "until then the node keeps its present key"),
    }
    rejected = (
        replace(r, remedy=f"{r.remedy}; {outcomes.get(r.node, 'until then it is left out')}")
        for r in (*unusable, *claims.rejected)
    )
    return TrustedFacts(
        facts=MappingProxyType(dict(sorted({**current, **old}.items()))), rejected=tuple(sorted(rejected))
    )


def _without_flapping(mesh: MeshPolicy, parsed: ParsedFacts, old: Mapping[str, Facts]) -> ParsedFacts:
    """Return *parsed* with rejections in place of facts that differ from *old*, the last good facts of some nodes.

    Last good facts that contradict the policy are no reason to reject others: no plan could be made of them.
    """
    unfit = {r.node for r in _contradictions(mesh, old)}
    held = {n for n, facts in old.items() if n not in unfit and parsed.facts.get(n, facts) != facts}
    if not held:
        return parsed
    reason, remedy = "its facts change too often", "see there what changes: salt {} wgmesh.facts"
    rejected = (Rejection(node=n, reason=reason, remedy=remedy.format(name_in_path(n))) for n in held)
    return ParsedFacts(
        facts={n: facts for n, facts in parsed.facts.items() if n not in held},
        rejected=tuple(sorted([*parsed.rejected, *rejected])),
    )


def _publish(node: str) -> str:
    return f"have it publish them: salt {name_in_path(node)} state.apply wgmesh"


def _contradictions(mesh: MeshPolicy, current: Mapping[str, Facts]) -> Iterator[Rejection]:
    """Yield the rejections of current facts that contradict the policy."""
    rules = rules_for(mesh, current)
    yield from against_policy(mesh, rules, {node: current[node] for node in rules})


def _claims(facts: Mapping[str, Facts], disputes: Iterable[KeyDispute]) -> ParsedFacts:
    """Return *facts* without nodes whose public key is disputed, and without disputed next keys; and the rejections."""
    kept, rejected = dict(facts), {}
    for dispute in disputes:
        is_next = dispute.key != facts[dispute.node].public_key
        if not is_next:
            kept.pop(dispute.node, None)
        elif dispute.node in kept:
            kept[dispute.node] = replace(kept[dispute.node], next_key=None)
        if not is_next or dispute.node not in rejected:
            rejected[dispute.node] = dispute.rejection(is_next=is_next)
    return ParsedFacts(facts=kept, rejected=tuple(rejected.values()))


def _usable_old_facts(mesh: MeshPolicy, old: Mapping[str, Facts], owners: KeyOwners) -> dict[str, Facts]:
    """Return *old* without keys that belong to other nodes; PlanError if the facts of one contradict the policy."""
    rules = rules_for(mesh, old)
    members = {node: old[node] for node in rules}
    problems = [
        Problem(path=f"node {name_in_path(r.node)}", message=f"by its last good facts, {r.reason}", remedy=r.remedy)
        for r in against_policy(mesh, rules, members)
    ]
    if problems:
        raise PlanError(problems)
    return dict(_claims(old, key_disputes(old, owners)).facts)
