"""What the runner tells people and programs about the meshes. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from saltext_wgmesh.core import render, verify
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.rules import finder, has_wildcards
from saltext_wgmesh.core.types import View
from saltext_wgmesh.master import guard, inventory, pinned, presharing, record
from saltext_wgmesh.master.draft import Draft, draft, held, in_force
from saltext_wgmesh.master.ledger import Ledger


def plan(opts: dict[str, Any]) -> dict[str, Any]:
    """Mesh → what a converge would change: node → readable lines; who is left out or lacking, and why; and what it
    would hold."""
    ledger = Ledger.of(opts)
    found = in_force(ledger, inventory.read(opts))
    return {one.policy.name: _pending(opts, ledger, one, found.accepted) for one in draft(opts, ledger, found)}


def refuse_confirm(opts: dict[str, Any], confirm: str) -> None:
    """Return if *confirm* is the digest of what would be held now; LedgerError with what would."""
    guard.refuse_unknown(confirm, held(opts, Ledger.of(opts)))


def _lacking(one: Draft, accepted: Collection[str]) -> Iterator[tuple[str, str]]:
    """Whom the policy has a place for and who is not there: (minion id, why)."""
    heard = {*one.facts, *(r.node for r in one.rejected)}
    for rule in one.policy.nodes:
        if not (has_wildcards(rule.pattern) or rule.absent) and rule.pattern not in accepted:
            yield rule.pattern, "no minion of this id has an accepted key: 'salt-key -l accepted' lists those"
    has_place = finder(one.policy.nodes)
    for node in accepted:
        if node not in heard and has_place(node):
            yield node, f"it has published no facts: 'salt {node} state.apply wgmesh' has it join"


def _pending(opts: dict[str, Any], ledger: Ledger, one: Draft, accepted: Collection[str]) -> dict[str, Any]:
    old: Mapping[str, View] = {}
    if one.head.generation:
        old = presharing.marked(opts, record.published(ledger, one.policy.name).plan, one.head.secrecy).views
    nodes = {}
    for node in sorted(one.changed):
        lines = render.view_diff(old.get(node), one.plan.views.get(node))
        nodes[node] = lines or [one.reasons.get(node, "is no longer told anything")]
    problems = verify.check(one.plan)
    lacking = {} if one.source.retired else dict(_lacking(one, accepted))
    return {
        "generation": one.head.generation,
        "changes": nodes,
        "left_out": dict(one.reasons),
        "rejected": [str(r) for r in one.rejected],
        **({"lacking": lacking} if lacking else {}),
        "proof": [str(p) for p in problems] or "holds",
        **({"held": one.source.held} if one.source.held else {}),
        **pinned.told(ledger, one.policy.name),
    }


def proof(opts: dict[str, Any]) -> dict[str, Any]:
    """Mesh → ``holds`` or what is wrong, for what is published and for what a converge would publish."""
    ledger = Ledger.of(opts)
    found = {}
    for one in draft(opts, ledger):
        verdicts = {"next": [str(p) for p in verify.check(one.plan)] or "holds"}
        if one.head.generation:
            published = record.published(ledger, one.policy.name).plan
            verdicts["published"] = [str(p) for p in verify.check(published)] or "holds"
        found[one.policy.name] = verdicts
    return found


def explain(opts: dict[str, Any], source: str, destination: str, mesh: str | None) -> dict[str, Any]:
    """The path between two nodes of the published plan, and why that one."""
    published = record.published(Ledger.of(opts), mesh)
    for node in (source, destination):
        _member(published, node)
    return render.explain(published.plan, published.policy, source, destination)


def whatif(opts: dict[str, Any], down: str, mesh: str | None) -> dict[str, Any]:
    """What would be cut off, and which paths would change, if the nodes and links of *down* died.

    *down* is a comma-separated list of node ids, and of links as ``a--b``.
    """
    published = record.published(Ledger.of(opts), mesh)
    words = [word.strip() for word in down.split(",") if word.strip()]
    if not words:
        raise LedgerError("nothing is said to be down: say down=<minion id>, or down=<one end>--<other end>")
    return verify.outage(published.plan, frozenset(_element(published, word) for word in words))


def _element(published: record.Published, word: str) -> str | frozenset[str]:
    """A node, or the link between two nodes."""
    ends = word.split("--") if word not in published.plan.members else [word]
    for node in ends:
        _member(published, node)
    if len(ends) == 1:
        return word
    if not any({link.a, link.b} == set(ends) for link in published.plan.links):
        raise LedgerError(f"{word} is no link of {published.plan.mesh}: those two are not linked directly")
    return frozenset(ends)


def paths(opts: dict[str, Any], mesh: str | None) -> dict[str, Any]:
    """Source → destination → the nodes on the way, both ends included."""
    found = verify.paths(record.published(Ledger.of(opts), mesh).plan)
    return {a: {b: list(hops) for b, hops in row.items()} for a, row in found.items()}


def graph(opts: dict[str, Any], mesh: str | None, style: str) -> str:
    """The published mesh as ``table``, ``dot`` or ``mermaid``."""
    writers = {"table": render.table, "dot": render.dot, "mermaid": render.mermaid}
    if style not in writers:
        raise LedgerError(f"there is no style {style!r}: say style=<one of {', '.join(writers)}>")
    return writers[style](record.published(Ledger.of(opts), mesh).plan)


def _member(published: record.Published, node: str) -> None:
    if node in published.plan.members:
        return
    why = published.reasons.get(node, "it is not in the policy, or has published no facts")
    raise LedgerError(f"{node} is not in {published.plan.mesh}: {why}")
