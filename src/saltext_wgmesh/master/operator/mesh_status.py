"""The status of a mesh and of its nodes, as values, and in the form that the runner returns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.liveness.mesh_health import Health, Outage
from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.master.records.decisions import HeldLoss, PolicyPin

_ALWAYS = ("generation", "published_at", "nodes", "not_acknowledged", "unplaced")
"""Keys that each mesh has, even if they are empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageStatus:
    """The outage of a node or a link."""

    outage: Outage
    is_down: bool
    """Whether the node or link still counts as down."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the runner, with times as text."""
        outage = self.outage
        return {
            "counts_as": "down" if self.is_down else "up",
            "since": stamp(outage.since),
            "reporters": list(outage.reporters),
            "up_since": None if outage.up_since is None else stamp(outage.up_since),
            "flaps": outage.flaps,
            "hold_down": outage.hold_down,
        }


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshStatus:
    """One published mesh."""

    mesh: str
    generation: int
    published_at: float
    """In seconds since the epoch."""
    down: tuple[str, ...]
    """The nodes and links that are down now."""
    held_loss: HeldLoss | None
    policy_pin: PolicyPin | None
    nodes: Mapping[str, NodeStatus]
    health: Health
    rotation: Mapping[str, str]
    """Node that is about to get another key → what the rotation waits for."""
    drained: frozenset[str]
    waits_for: tuple[str, ...]
    """The links that the next step of a transition waits for; empty without a transition."""
    psk_laggards: frozenset[str]
    asymmetric_pairs: str
    """How many pairs take one relay there and another back, in words; empty if none does."""
    unplaced: Mapping[str, str]
    """Node → why it is not in the plan."""
    clocks: Mapping[str, str]
    """Node whose clock was ahead → what that does to its links."""
    retired_behind: tuple[str, ...] | None
    """The nodes that still hold a mesh that has left the policy; None for a mesh of the policy."""

    @property
    def has_failed(self) -> bool:
        """Whether a member or a link is down now."""
        return bool(self.down)

    @property
    def not_acknowledged(self) -> tuple[str, ...]:
        """The nodes that do not run what is published, sorted; of a retired mesh those that have not removed it."""
        behind = tuple(sorted(node for node, one in self.nodes.items() if not one.acknowledged))
        return behind if self.retired_behind is None else self.retired_behind

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the runner; keys without content are left out, but for those that each mesh has."""
        values: dict[str, Any] = {
            "generation": self.generation,
            "published_at": stamp(self.published_at),
            "down": list(self.down),
            "blocked_by_rollback": self._rolled_back(),
            "held_loss": self.held_loss and self.held_loss.as_dict(),
            "policy_pin": self.policy_pin and self.policy_pin.as_dict(),
            "nodes": {node: one.as_dict(self.mesh) for node, one in self.nodes.items()},
            "outages": {name: outage.as_dict() for name, outage in _outages(self.health).items()},
            "rotation": dict(self.rotation),
            "drained": sorted(self.drained),
            "transition": {"waits_for": list(self.waits_for)} if self.waits_for else {},
            "psk_laggards": sorted(self.psk_laggards),
            "asymmetric_pairs": self.asymmetric_pairs,
            "retired": self.retired_behind is not None,
            "clocks": dict(self.clocks),
            "not_acknowledged": list(self.not_acknowledged),
            "unplaced": dict(self.unplaced),
        }
        return {name: value for name, value in values.items() if value or name in _ALWAYS}

    def _rolled_back(self) -> dict[str, str]:
        return {node: one.rolled_back for node, one in self.nodes.items() if one.rolled_back is not None}


def _link(link: LinkStatus) -> str:
    """The link's state in words; with a time, unless it is up and was not in trouble lately."""
    if link.state is LinkState.UP and not link.hold:
        return str(link.state.value)
    hold = f", must be up for {link.hold:g} s" if link.hold and link.state is not LinkState.UP else ""
    return f"{link.state.value} since {stamp(link.since)}{hold}"


def _outages(health: Health) -> dict[str, OutageStatus]:
    """Node, or link as ``a--b`` → its outage: what is down, and what was until lately."""
    named = {n: OutageStatus(outage=o, is_down=n in health.down_nodes) for n, o in health.nodes.items()}
    links = {pair: OutageStatus(outage=o, is_down=pair in health.down_links) for pair, o in health.links.items()}
    named |= {"--".join(pair): outage for pair, outage in links.items()}
    return dict(sorted(named.items()))


def stamp(seconds: float) -> str:
    """A time, in seconds since the epoch, as text in UTC; "at an unknown time" for one that no calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"
