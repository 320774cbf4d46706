"""The present state of the meshes: what is published, which nodes run it, how the links are, and what is down."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from saltext_wgmesh.core import render
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.proof import symmetry
from saltext_wgmesh.master.drafting import key_rotation
from saltext_wgmesh.master.drafting.next_step import ReportsByNode
from saltext_wgmesh.master.fleet import link_survey
from saltext_wgmesh.master.fleet.port import SaltFleet
from saltext_wgmesh.master.operator import link_check
from saltext_wgmesh.master.operator.mesh_status import MeshStatus, NodeStatus, stamp
from saltext_wgmesh.master.records import inventory
from saltext_wgmesh.master.records import published as record
from saltext_wgmesh.master.records.decisions import PolicyPin
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.mesh_head import MeshHead

REFRESH = 2.0
"""Seconds between two pages of ``watch``."""
CLEAR = "\x1b[H\x1b[2J"
"""ECMA-48: cursor to the first place, and the whole page erased."""

CLOCK_TOLERANCE = 60.0
"""Seconds by which a node's clock may be ahead before the status says so."""


def status(opts: dict[str, Any], *, live: bool = True) -> dict[str, MeshStatus]:
    """Mesh → generation, nodes with addresses, relays, links and acknowledgements, and what is down since when.

    With *live* false no node is asked, and links appear only if they are in trouble. Raises LedgerError if no mesh is
    published.
    """
    ledger = Ledger.of(opts)
    if not ledger.meshes():
        raise LedgerError("no mesh is published yet: run 'salt-run wgmesh.plan' to see what is missing")
    accepted = inventory.accepted_keys(opts)
    published = {mesh: record.published(ledger, mesh) for mesh in ledger.meshes()}
    members = {node for one in published.values() for node in one.plan.members if node in accepted}
    reports = link_survey.query(SaltFleet(opts=opts), members) if live else None
    clocks = {mesh: _clocks_ahead(opts, ledger.health(mesh), time.time()) for mesh in published}
    return {mesh: _mesh(ledger, one, accepted, reports, clocks[mesh]) for mesh, one in published.items()}


def watch(opts: dict[str, Any]) -> None:
    """The status is shown as tables, refreshed in place until Ctrl-C.

    Raises LedgerError if standard output is no terminal.
    """
    if not sys.stdout.isatty():
        raise LedgerError("watch=True needs a terminal: omit it to get the status once")
    try:
        while True:
            page = render.render_status({mesh: one.as_dict() for mesh, one in status(opts).items()})
            sys.stdout.write(f"{CLEAR}{page}\nevery {REFRESH:g} s; Ctrl-C ends it\n")
            sys.stdout.flush()
            time.sleep(REFRESH)
    except KeyboardInterrupt:
        return


def _mesh(
    ledger: Ledger,
    published: record.Published,
    accepted: Mapping[str, str],
    reports: ReportsByNode | None,
    clocks: Mapping[str, str],
) -> MeshStatus:
    mesh = published.plan.mesh
    head, health = ledger.head(mesh), ledger.health(mesh)
    return MeshStatus(
        mesh=mesh,
        generation=published.generation,
        published_at=published.published_at,
        down=link_check.down_in(published.plan, health, reports).names,
        held_loss=ledger.guard(mesh).held,
        policy_pin=PolicyPin.of(mesh, ledger.pin(mesh)),
        nodes={node: _node(ledger, published, head, node, accepted, reports) for node in published.plan.members},
        health=health,
        rotation=_rotation(ledger, published, head),
        drained=frozenset(head.drained),
        waits_for=tuple(head.transition.describe()) if head.transition else (),
        psk_laggards=frozenset(head.psk_rollover.laggards),
        asymmetric_pairs=symmetry.count_asymmetric(published.plan).describe(),
        unplaced=published.reasons,
        clocks=clocks,
        retired_behind=_retired_behind(ledger, mesh),
    )


def _node(
    ledger: Ledger,
    published: record.Published,
    head: MeshHead,
    node: str,
    accepted: Mapping[str, str],
    reports: ReportsByNode | None,
) -> NodeStatus:
    mesh, digest = published.plan.mesh, head.digests.get(node)
    ack = ledger.ack(node)
    return NodeStatus(
        member=published.plan.members[node],
        neighbours=frozenset(peer.node for i in published.plan.views[node].interfaces for peer in i.peers),
        acknowledged=ack.digests.get(mesh) == digest,
        rolled_back=ack.rolled_back({mesh: digest or ""}).get(mesh),
        only_tests=ack.pending is not None and ack.pending.only_tests,
        key_accepted=node in accepted,
        asked=reports is not None,
        reports=None if reports is None else reports.get(node),
    )


def _retired_behind(ledger: Ledger, mesh: str) -> tuple[str, ...] | None:
    """The nodes that have not removed a mesh that is no longer in the policy; None for one that is in it."""
    if not record.is_retired(ledger, mesh):
        return None
    digests = ledger.head(mesh).digests
    return tuple(sorted(n for n, digest in digests.items() if ledger.ack(n).digests.get(mesh) != digest))


def _rotation(ledger: Ledger, published: record.Published, head: MeshHead) -> dict[str, str]:
    """Node that is about to get another key → what the rotation waits for."""
    health, acks = ledger.health(published.plan.mesh), ledger.acks(head.digests)
    plan, now = published.plan, time.time()
    context = key_rotation.RotationContext(plan=plan, head=head, health=health, acks=acks, now=now)
    return key_rotation.rotation_blockers(context)


def _clocks_ahead(opts: dict[str, Any], health: Health, now: float) -> dict[str, str]:
    """Node with an outage whose clock was ahead when it published its facts → what that does to its links."""
    concerned = {*health.nodes, *(node for pair in health.links for node in pair)}
    times = {node: inventory.observed_at(opts, node) for node in sorted(concerned)}
    return {
        node: f"its facts are of {stamp(at)}, so its clock is or was ahead of the master's: neighbours refuse "
        "handshakes of an earlier time until their watchers have added it as a peer again, which takes up to 30 s"
        for node, at in times.items()
        if at is not None and at - now > CLOCK_TOLERANCE
    }
