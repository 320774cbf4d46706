"""What nodes publish of themselves in the mine → the facts that a plan may be made from, and why not the others.

Facts are claims: whatever a node writes, nothing here raises, and the worst that it gets is its own rejection.
Whose facts they are is told by the mine's bank, never by the facts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from saltext_wgmesh.core import names
from saltext_wgmesh.core.crosscheck import against_policy, crosscheck, shared_keys
from saltext_wgmesh.core.errors import PlanError, Problem
from saltext_wgmesh.core.fields import Converter, Wrong, flag, kind, name_in_path, shown, text
from saltext_wgmesh.core.prefixes import address, is_local, network
from saltext_wgmesh.core.rules import rules_for
from saltext_wgmesh.core.types import Facts, MeshPolicy, Rejection

__all__ = ["Believed", "FactsReport", "as_dict", "believe", "crosscheck", "from_dict", "parse"]

T = TypeVar("T")

MOST_ADDRESSES = 64
MOST_NETWORKS = 256
_LONGEST_FINGERPRINT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsReport:
    """All facts of the mine, after each was looked at by itself."""

    facts: Mapping[str, Facts]
    """By node, sorted."""
    rejected: tuple[Rejection, ...]
    """Sorted by node; one a node at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """The facts from which one mesh is planned."""

    facts: Mapping[str, Facts]
    """By node, sorted; also of nodes that are no members, whom nothing was asked of."""
    rejected: tuple[Rejection, ...]
    """Members whose present facts are not used, and whether older ones are; sorted."""


# --- one node ------------------------------------------------------------------------------------------


def as_dict(facts: Facts) -> dict[str, Any]:
    """*facts* as plain values for the mine and the ledger, without the node's name; ``from_dict`` is the inverse.

    A node adds ``observed_at`` for people to read: nothing here believes a node's clock.
    """
    return {
        "schema": names.FACTS_SCHEMA,
        "public_key": facts.public_key,
        "salt_key": facts.salt_key,
        "underlay": list(facts.underlay),
        "networks": list(facts.networks),
        "ipv6": facts.ipv6,
        **({"next_key": facts.next_key} if facts.next_key else {}),
    }


def digest(raw: object) -> str:
    """SHA-256, in hex, of facts in the shape in which they travel: the same whenever they were observed."""
    lasting = {k: v for k, v in raw.items() if k != "observed_at"} if isinstance(raw, Mapping) else raw
    text = json.dumps(lasting, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def from_dict(node: str, raw: object) -> Facts:
    """The facts that ``as_dict`` wrote, in canonical form; ValueError for anything else. Further keys are ignored."""
    if not isinstance(raw, Mapping):
        raise Wrong(f"its facts are {kind(raw)}, not a mapping", _look_at(node))
    schema = raw.get("schema")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema != names.FACTS_SCHEMA:
        raise Wrong(
            f"its facts are of schema {shown(schema)}, not {names.FACTS_SCHEMA}",
            "install the same version of saltext-wgmesh on the master and on this minion",
        )
    try:
        public_key = _field(raw, "public_key", _public_key)
        return Facts(
            node=node,
            public_key=public_key,
            salt_key=_field(raw, "salt_key", _fingerprint),
            underlay=_field(raw, "underlay", _underlay),
            networks=_field(raw, "networks", _networks),
            ipv6=_field(raw, "ipv6", flag),
            next_key=_field(raw, "next_key", _next_key(public_key)),
        )
    except Wrong as wrong:
        raise Wrong(wrong.what, _look_at(node)) from None


def _look_at(node: str) -> str:
    return f"look at `salt {name_in_path(node)} wgmesh.facts`, and install saltext-wgmesh there anew"


def _field(raw: Mapping[str, object], key: str, convert: Converter[T]) -> T:
    try:
        return convert(raw.get(key))
    except Wrong as wrong:
        raise Wrong(f"in its facts, {key} can't be read: {wrong.what}", wrong.do) from None


def _public_key(value: object) -> str:
    word = text(value)
    try:
        raw = base64.b64decode(word, validate=True) if len(word) == 44 else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != names.KEY_BYTES or base64.b64encode(raw).decode() != word:
        raise Wrong(f"{shown(word)} is not the base64 of {names.KEY_BYTES} bytes", "make a new key")
    if not any(raw):
        raise Wrong("it is all zero", "make a new key")
    return word


def _next_key(public_key: str) -> Converter[str | None]:
    """A converter to the key that follows *public_key*, if there is one."""

    def convert(value: object) -> str | None:
        word = None if value is None else _public_key(value)
        if word == public_key:
            raise Wrong("it is the node's present key", "make another key")
        return word

    return convert


def _fingerprint(value: object) -> str:
    word = text(value)
    if not 0 < len(word) <= _LONGEST_FINGERPRINT or not word.isprintable():
        raise Wrong(f"{shown(word)} is not a fingerprint", "")
    return word


def _items(value: object, most: int) -> list[object]:
    if not isinstance(value, (list, tuple)):
        raise Wrong(f"it is {kind(value)}, not a list", "")
    if len(value) > most:
        raise Wrong(f"it has {len(value)} entries, more than {most}", "")
    return list(value)


def _underlay(value: object) -> tuple[str, ...]:
    """Each address once, in the node's order, but for those that mean nothing to other nodes."""
    found = [address(item) for item in _items(value, MOST_ADDRESSES)]
    unspecified = next((a for a in found if a.is_unspecified), None)
    if unspecified:
        raise Wrong(f"{unspecified} is no host's address", "")
    return tuple(dict.fromkeys(str(a) for a in found if not is_local(a)))


def _networks(value: object) -> tuple[str, ...]:
    """Each prefix once, IPv4 before IPv6, in order, but for those that mean nothing to other nodes."""
    found = {network(item) for item in _items(value, MOST_NETWORKS)}
    ordered = sorted(found, key=lambda n: (n.version, n.network_address, n.prefixlen))
    return tuple(str(n) for n in ordered if not is_local(n))


# --- all nodes -----------------------------------------------------------------------------------------


def parse(raw: Mapping[str, object], accepted: Mapping[str, str]) -> FactsReport:
    """The readable facts of accepted nodes, and a rejection for every other entry.

    *raw* is node → the value in its mine; *accepted* is minion id → fingerprint of its accepted Salt key.
    """
    facts, rejected = {}, []
    for node in sorted(raw, key=name_in_path):
        try:
            facts[node] = _accepted_facts(node, raw[node], accepted)
        except Wrong as wrong:
            named = node if isinstance(node, str) else shown(node)
            rejected.append(Rejection(node=named, reason=wrong.what, do=wrong.do))
    return FactsReport(facts=MappingProxyType(dict(sorted(facts.items()))), rejected=tuple(sorted(rejected)))


def _accepted_facts(node: str, raw: object, accepted: Mapping[str, str]) -> Facts:
    if node not in accepted:
        raise Wrong(
            "its Salt key is not accepted any more, but its facts are still in the mine",
            f"accept it again if the node is to stay: salt-key -a {name_in_path(node)}",
        )
    facts = from_dict(node, raw)
    if facts.salt_key != accepted[node]:
        raise Wrong(
            "its facts were published under another Salt key than the one accepted now",
            f"have it publish again: salt {name_in_path(node)} state.apply wgmesh",
        )
    return facts


# --- one mesh ------------------------------------------------------------------------------------------


def believe(
    mesh: MeshPolicy, report: FactsReport, last_good: Mapping[str, Facts], accepted: Mapping[str, str]
) -> Believed:
    """The facts for a plan of *mesh*: of each node the present ones, else those that were believed last time.

    Older facts stand in for present ones that are missing, can't be read or contradict the policy or other nodes,
    if they were published under the Salt key that is still accepted. A public key that a node ran with is that node's:
    whoever else publishes it is rejected, whatever the first says now. A node without older facts is left out.
    PlanError if older facts that are needed contradict the policy: then it is the policy that changed, and going
    on would drop a running node.
    """
    kept = {node: facts for node, facts in last_good.items() if accepted.get(node) == facts.salt_key}
    rules = rules_for(mesh, {*report.facts, *kept, *(r.node for r in report.rejected)})
    silent = kept.keys() - report.facts.keys() - {r.node for r in report.rejected}
    doubts = [
        *report.rejected,
        *(Rejection(node=node, reason="it has no facts in the mine", do=_ask(node)) for node in silent),
        *_doubts(mesh, report.facts, kept),
    ]
    doubts = [doubt for doubt in doubts if doubt.node in rules]
    doubted = {doubt.node for doubt in doubts}
    present = {node: facts for node, facts in report.facts.items() if node not in doubted}
    older = _usable(mesh, {node: facts for node, facts in kept.items() if node not in present})
    return Believed(
        facts=MappingProxyType(dict(sorted({**present, **older}.items()))),
        rejected=tuple(sorted(_with_outcome(doubt, doubt.node in older) for doubt in doubts)),
    )


def _ask(node: str) -> str:
    return f"have it publish them: salt {name_in_path(node)} state.apply wgmesh"


def _doubts(mesh: MeshPolicy, present: Mapping[str, Facts], kept: Mapping[str, Facts]) -> Iterator[Rejection]:
    """What speaks against present facts: the crosscheck, and keys that other members ran with."""
    rules = rules_for(mesh, present)
    members = {node: present[node] for node in rules}
    yield from shared_keys(_keys(members), _keys({node: kept[node] for node in rules_for(mesh, kept)}))
    yield from against_policy(mesh, rules, members)


def _usable(mesh: MeshPolicy, older: Mapping[str, Facts]) -> dict[str, Facts]:
    """*older* without members that share a key; PlanError if one contradicts the policy."""
    rules = rules_for(mesh, older)
    members = {node: older[node] for node in rules}
    problems = [
        Problem(where=f"node {name_in_path(r.node)}", what=f"by its last good facts, {r.reason}", do=r.do)
        for r in against_policy(mesh, rules, members)
    ]
    if problems:
        raise PlanError(problems)
    twins = {r.node for r in shared_keys(_keys(members), {})}
    return {node: facts for node, facts in older.items() if node not in twins}


def _keys(facts: Mapping[str, Facts]) -> dict[str, tuple[str, ...]]:
    return {node: own.keys for node, own in facts.items()}


def _with_outcome(doubt: Rejection, kept: bool) -> Rejection:
    outcome = "its last good facts are used meanwhile" if kept else "it is left out meanwhile"
    return replace(doubt, do=f"{doubt.do}; {outcome}")
