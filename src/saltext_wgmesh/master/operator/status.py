"""The present state of the meshes: what is published, which nodes run it, how the links are, and what is down."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core import render
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.liveness.mesh_health import Health, Outage
from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.proof import symmetry
from saltext_wgmesh.master.drafting import key_rotation, policy_pin
from saltext_wgmesh.master.drafting.next_step import ReportsByNode
from saltext_wgmesh.master.fleet import link_survey
from saltext_wgmesh.master.fleet.port import SaltFleet
from saltext_wgmesh.master.operator import link_check
from saltext_wgmesh.master.records import inventory
from saltext_wgmesh.master.records import published as record
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.mesh_head import MeshHead

REFRESH = 2.0
"""Seconds between two pages of ``watch``."""
CLEAR = "\x1b[H\x1b[2J"
"""ECMA-48: cursor to the first place, and the whole page erased."""

CLOCK_TOLERANCE = 60.0
"""Seconds by which a node's clock may be ahead before the status says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node of a mesh."""

    member: Member
    neighbours: frozenset[str]
    """The nodes that its view has a link to. Other names in its report are not shown."""
    acknowledged: bool
    """Whether it said that it runs what is published."""
    rolled_back: str | None
    """Why the node rolled back the published view; None if it did not."""
    only_tests: bool
    """Whether it answered the last push that its minion changes nothing."""
    key_accepted: bool
    asked: bool
    """Whether the node was asked for its links."""
    reports: Mapping[str, LinkReport] | None
    """Mesh → its report; None if it was not asked or did not answer."""

    def as_dict(self, mesh: str) -> dict[str, Any]:
        """Plain values for the runner; keys without content are left out."""
        member = self.member
        row: dict[str, Any] = {
            "role": member.role.value,
            "site": member.site,
            "addresses": list(member.addresses),
            "relays": list(member.relays),
            "peers": len(self.neighbours),
            "acknowledged": self.acknowledged,
        }
        if member.subnets or member.standby_subnets:
            row["subnets"] = {"active": list(member.subnets), "standby": list(member.standby_subnets)}
        if self.rolled_back is not None:
            row["rolled_back"] = self.rolled_back
        if self.only_tests:
            row["only_tests"] = "its minion's configuration has 'test: True': it applies nothing"
        if not self.key_accepted:
            row["key"] = "no longer accepted"
        if self.asked:
            row["answers"] = self.reports is not None
        if self.reports and (report := self.reports.get(mesh)):
            row["from_watcher"] = report.from_watcher
            row["links"] = {name: _link(link) for name, link in report.links.items() if name in self.neighbours}
            row |= {"relay_faults": list(report.relay_faults)} if report.relay_faults else {}
        return row


def status(opts: dict[str, Any], *, live: bool = True) -> dict[str, Any]:
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
    found = {mesh: _mesh(ledger, one, accepted, reports) for mesh, one in published.items()}
    for mesh, shown in found.items():
        shown.update(_without_empty({"clocks": _clocks_ahead(opts, ledger.health(mesh), time.time())}))
    return found


def with_exit_status(meshes: dict[str, Any]) -> dict[str, Any]:
    """*meshes*, a status, with ``retcode`` 1 if a member or a link is down."""
    return {**meshes, "retcode": 1} if any(mesh.get("down") for mesh in meshes.values()) else meshes


def watch(opts: dict[str, Any]) -> None:
    """The status is shown as tables, refreshed in place until Ctrl-C.

    Raises LedgerError if standard output is no terminal.
    """
    if not sys.stdout.isatty():
        raise LedgerError("watch=True needs a terminal: omit it to get the status once")
    try:
        while True:
            page = render.render_status(status(opts))
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
) -> dict[str, Any]:
    """One mesh as plain values; keys without content are left out."""
    mesh = published.plan.mesh
    head, held = ledger.head(mesh), ledger.guard(mesh).held
    nodes = {node: _node(ledger, published, head, node, accepted, reports) for node in published.plan.members}
    rolled_back = {node: one.rolled_back for node, one in nodes.items() if one.rolled_back is not None}
    optional = {
        "down": list(link_check.down_in(published.plan, ledger.health(mesh), reports).names),
        "blocked_by_rollback": rolled_back,
        "held_loss": held.as_dict() if held else None,
        **policy_pin.describe_pin(ledger.pin(mesh), mesh),
    }
    return {
        "generation": published.generation,
        "published_at": stamp(published.published_at),
        **_without_empty(optional),
        "nodes": {node: one.as_dict(mesh) for node, one in nodes.items()},
        **_without_empty(
            {
                "outages": _outages(ledger.health(mesh)),
                "rotation": _rotation(ledger, published, head),
                "drained": sorted(head.drained),
                "transition": {"waits_for": head.transition.describe()} if head.transition else {},
                "psk_laggards": sorted(head.psk_rollover.laggards),
                "asymmetric_pairs": symmetry.count_asymmetric(published.plan).describe(),
            }
        ),
        "not_acknowledged": sorted(node for node, one in nodes.items() if not one.acknowledged),
        "unplaced": dict(published.reasons),
        **_retired(ledger, mesh),
    }


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


def _retired(ledger: Ledger, mesh: str) -> dict[str, Any]:
    """For a mesh that is no longer in the policy: that it is retired, and the nodes that have not removed it."""
    if not record.is_retired(ledger, mesh):
        return {}
    digests = ledger.head(mesh).digests
    behind = [n for n, digest in digests.items() if ledger.ack(n).digests.get(mesh) != digest]
    return {"retired": True, "not_acknowledged": sorted(behind)}


def _link(link: LinkStatus) -> str:
    """The link's state in words; with a time, unless it is up and was not in trouble lately."""
    if link.state is LinkState.UP and not link.hold:
        return str(link.state.value)
    hold = f", must be up for {link.hold:g} s" if link.hold and link.state is not LinkState.UP else ""
    return f"{link.state.value} since {stamp(link.since)}{hold}"


def _rotation(ledger: Ledger, published: record.Published, head: MeshHead) -> dict[str, str]:
    """Node that is about to get another key → what the rotation waits for."""
    health, acks = ledger.health(published.plan.mesh), ledger.acks(head.digests)
    plan, now = published.plan, time.time()
    context = key_rotation.RotationContext(plan=plan, head=head, health=health, acks=acks, now=now)
    return key_rotation.rotation_blockers(context)


def _outages(health: Health) -> dict[str, Any]:
    """Node, or link as ``a--b`` → its outage: what is down, and what was until lately."""
    named: dict[str, tuple[Outage, bool]] = {n: (t, n in health.down_nodes) for n, t in health.nodes.items()}
    named |= {"--".join(pair): (t, pair in health.down_links) for pair, t in health.links.items()}
    return {
        name: {
            "counts_as": "down" if down else "up",
            "since": stamp(outage.since),
            "reporters": list(outage.reporters),
            "up_since": None if outage.up_since is None else stamp(outage.up_since),
            "flaps": outage.flaps,
            "hold_down": outage.hold_down,
        }
        for name, (outage, down) in sorted(named.items())
    }


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


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def stamp(seconds: float) -> str:
    """A time, in seconds since the epoch, as text in UTC; "at an unknown time" for one that no calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"
