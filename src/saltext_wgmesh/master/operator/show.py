"""Views of the meshes for the runner: the next plan, the proof, paths and pictures. Nothing here changes anything."""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn

from saltext_wgmesh.core import render
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.inputs.node_matching import has_wildcards, matcher
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.planning import open_ports
from saltext_wgmesh.core.proof import packet_walk, symmetry, what_if
from saltext_wgmesh.master.drafting import prune_guard, psk
from saltext_wgmesh.master.drafting.draft import Draft, DraftInput, draft, effective_inventory, held_losses
from saltext_wgmesh.master.operator.next_plan import NextPlan
from saltext_wgmesh.master.operator.proof_verdict import MeshVerdicts, ProofVerdict
from saltext_wgmesh.master.records import inventory, mesh_records, spelling
from saltext_wgmesh.master.records import published as record
from saltext_wgmesh.master.records.decisions import PolicyPin
from saltext_wgmesh.master.records.inventory import Inventory
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.mesh_records import LedgerSnapshot
from saltext_wgmesh.master.records.psk_secrets import PskSecrets

PortsByNode = dict[str, dict[str, list[str]]]
"""Node → UDP port → the nodes that call it, in words."""


def plan(opts: dict[str, Any]) -> dict[str, NextPlan]:
    """Mesh → what a converge would change, which nodes are not in the plan and why, and what would be held."""
    snapshot, found = _read(opts)
    drafts = _drafts(opts, snapshot, found)
    return {one.policy.name: _next_plan(opts, snapshot, one, found.accepted) for one in drafts}


def require_held(opts: dict[str, Any], digest: object) -> str:
    """Return *digest* as text if it names what would be held now; LedgerError with the digests that do."""
    held = held_losses(*_read(opts))
    text = spelling.spelled(digest, {loss.digest for loss in held.values() if loss})
    prune_guard.require_known_digest(text, held)
    return text


def _read(opts: dict[str, Any]) -> tuple[LedgerSnapshot, Inventory]:
    """The ledger, and the inventory with the policies that are in effect."""
    snapshot = mesh_records.read_snapshot(Ledger.of(opts))
    return snapshot, effective_inventory(snapshot, inventory.read_inventory(opts))


def _drafts(opts: dict[str, Any], snapshot: LedgerSnapshot, found: Inventory) -> list[Draft]:
    """The drafts that a converge would publish now."""
    secrets = functools.partial(PskSecrets.of, opts)
    return draft(DraftInput(snapshot=snapshot, inventory=found, secrets=secrets, now=time.time()))


def _next_plan(opts: dict[str, Any], snapshot: LedgerSnapshot, one: Draft, accepted: Collection[str]) -> NextPlan:
    mesh = one.policy.name
    return NextPlan(
        generation=one.head.generation,
        changes=_changes(opts, snapshot, one),
        unplaced=one.reasons,
        rejected=tuple(str(rejection) for rejection in one.rejected),
        missing={} if one.source.is_retired else dict(_missing(one, accepted)),
        verdict=ProofVerdict.on(one.plan),
        asymmetric_pairs=symmetry.count_asymmetric(one.plan).describe(),
        warnings=tuple(one.warnings),
        held_loss=one.source.held,
        policy_pin=PolicyPin.of(mesh, snapshot.mesh(mesh).pin),
    )


def _changes(opts: dict[str, Any], snapshot: LedgerSnapshot, one: Draft) -> dict[str, list[str]]:
    """Node → how its view would change, in readable lines."""
    old: Mapping[str, View] = {}
    if one.head.generation:
        # Views in the ledger name preshared keys, plans do not: without the names each peer would seem to change.
        published = snapshot.mesh(one.policy.name).history.current_plan()
        old = psk.with_psk_ids(PskSecrets.of(opts, one.policy.name), published, one.head.psk_rollover).views
    return {
        node: render.view_diff(old.get(node), one.plan.views.get(node))
        or [one.reasons.get(node, "it gets no view any longer")]
        for node in sorted(one.changed)
    }


def _missing(one: Draft, accepted: Collection[str]) -> Iterator[tuple[str, str]]:
    """Nodes that the policy names and that cannot be planned yet: (minion id, why)."""
    with_facts = {*one.facts, *(rejection.node for rejection in one.rejected)}
    for rule in one.policy.nodes:
        if not (has_wildcards(rule.pattern) or rule.absent) and rule.pattern not in accepted:
            yield rule.pattern, "no minion of this id has an accepted key: 'salt-key -l accepted' lists those"
    rule_for = matcher(one.policy.nodes)
    for node in accepted:
        if node not in with_facts and rule_for(node):
            yield node, f"it has published no facts: run 'salt {node} state.apply wgmesh'"


def proof(opts: dict[str, Any]) -> dict[str, MeshVerdicts]:
    """Mesh → the verdicts on the published plan and on the one that a converge would publish."""
    snapshot, read = _read(opts)
    found = {}
    for one in _drafts(opts, snapshot, read):
        is_published = one.head.generation > 0
        current = snapshot.mesh(one.policy.name).history.current_plan() if is_published else None
        found[one.policy.name] = MeshVerdicts(
            next=ProofVerdict.on(one.plan), published=ProofVerdict.on(current) if current else None
        )
    return found


def ports(opts: dict[str, Any], mesh: str | None) -> dict[str, PortsByNode]:
    """Mesh → node → UDP port → the nodes that call it.

    The published plan counts, and the one that a converge would publish. LedgerError if there is no mesh of that name.
    """
    snapshot, read = _read(opts)
    drafts = {one.policy.name: one for one in _drafts(opts, snapshot, read)}
    if mesh is not None and mesh not in drafts:
        raise LedgerError(f"there is no mesh {mesh!r}: say mesh=<one of {', '.join(drafts) or 'none yet'}>")
    return {name: _ports(snapshot, one) for name, one in drafts.items() if mesh in (None, name)}


def _ports(snapshot: LedgerSnapshot, one: Draft) -> PortsByNode:
    plans = [snapshot.mesh(one.policy.name).history.current_plan(), one.plan] if one.head.generation else [one.plan]
    found: dict[str, dict[str, dict[str, str]]] = {}
    for plan in plans:
        for node, ports in open_ports.open_ports(plan).items():
            for each in ports:
                callers = {n: open_ports.describe_caller(plan.members[n]) for n in each.callers}
                found.setdefault(node, {}).setdefault(_port(each), {}).update(callers)
    return {node: {port: list(callers.values()) for port, callers in sorted(of.items())} for node, of in found.items()}


def _port(each: open_ports.OpenPort) -> str:
    is_forwarded = each.endpoint.rpartition(":")[2] != str(each.port)
    return f"{each.port}/udp" + (f", forwarded from {each.endpoint}" if is_forwarded else "")


def explain(opts: dict[str, Any], source: str, destination: str, mesh: str | None) -> render.ExplainedPath:
    """The path between two nodes of the published plan, and why packets take it.

    Raises LedgerError if a node is not in the plan.
    """
    published = record.published(Ledger.of(opts), mesh)
    for node in (source, destination):
        _require_member(published, node)
    return render.explain_path(published.plan, published.policy, source, destination)


def whatif(opts: dict[str, Any], down: str, mesh: str | None) -> what_if.Effects:
    """The pairs that would be cut off, and the paths that would change, if the nodes and links of *down* failed.

    *down* is a comma-separated list of node ids, and of links as ``a--b``. Raises LedgerError if it is empty, or names
    a node or link that is not in the published plan.
    """
    published = record.published(Ledger.of(opts), mesh)
    # A minion id may contain a comma, and spaces at its ends.
    whole = _find(published, down)
    names = [name.strip() for name in down.split(",") if name.strip()]
    if not names:
        raise LedgerError("no node or link is given: use down=<minion id>, or down=<one end>--<other end>")
    found = [whole] if whole else [_find(published, name) or _require_known(published, name) for name in names]
    return what_if.what_if(published.plan, frozenset(found))


def _find(published: record.Published, name: str) -> str | frozenset[str] | None:
    """A node, or the two ends of a link; None if *name* names neither. A minion id may contain ``--`` too."""
    if name in published.plan.members:
        return name
    links = {frozenset((link.a, link.b)) for link in published.plan.links}
    parts = name.split("--")
    splits = (frozenset(("--".join(parts[:i]), "--".join(parts[i:]))) for i in range(1, len(parts)))
    return next((ends for ends in splits if ends in links), None)


def _require_known(published: record.Published, name: str) -> NoReturn:
    """Raise LedgerError with the reason why *name* names neither a node nor a link."""
    for node in name.split("--"):
        _require_member(published, node)
    raise LedgerError(f"{name} is no link of {published.plan.mesh}: these two nodes are not linked directly")


def paths(opts: dict[str, Any], mesh: str | None, family: object = None) -> dict[str, dict[str, list[str]]]:
    """Source → destination → the nodes on the way, both ends included.

    *family* is 4 or 6; None: the first that both ends have. LedgerError for any other.
    """
    families = {"None": None, "4": 4, "6": 6}
    if str(family) not in families:
        raise LedgerError(f"there is no address family {family!r}: use family=4 or family=6")
    found = packet_walk.all_paths(record.published(Ledger.of(opts), mesh).plan, families[str(family)])
    return {a: {b: list(hops) for b, hops in row.items()} for a, row in found.items()}


def graph(opts: dict[str, Any], mesh: str | None, style: str) -> str:
    """The published mesh as ``table``, ``dot`` or ``mermaid``; LedgerError for any other *style*."""
    writers = {"table": render.render_table, "dot": render.dot, "mermaid": render.mermaid}
    if style not in writers:
        raise LedgerError(f"there is no style {style!r}: use style=<one of {', '.join(writers)}>")
    return writers[style](record.published(Ledger.of(opts), mesh).plan)


def _require_member(published: record.Published, node: str) -> None:
    if node in published.plan.members:
        return
    why = published.reasons.get(node, "it is not in the policy, or has published no facts")
    raise LedgerError(f"{node} is not in {published.plan.mesh}: {why}")
