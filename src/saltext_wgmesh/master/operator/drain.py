"""Moving everything off a node so that it can be stopped: what depends on it, and whether it still forwards packets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.master.fleet import jobs
from saltext_wgmesh.master.operator import run_converge
from saltext_wgmesh.master.operator.converge_result import ConvergeResult
from saltext_wgmesh.master.records import published as record
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.requests.request import Request, RequestKind

DRAIN_TIMEOUT = 60.0
"""Seconds in which everything must have moved."""
DRAIN_POLL_INTERVAL = 1.0
"""Seconds between two checks. In this time the node must not forward a packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainResult:
    """The state of a drained node."""

    node: str
    remaining: tuple[str, ...] = ()
    """Reasons not to stop the node, in words."""

    @property
    def safe_to_stop(self) -> bool:
        """Whether nothing depends on the node, and it forwards nothing."""
        return not self.remaining

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the runner; ``retcode`` is the exit status of ``salt-run``."""
        found: dict[str, Any] = {"node": self.node, "safe_to_stop": self.safe_to_stop}
        return found if self.safe_to_stop else {**found, "remaining": list(self.remaining), "retcode": 1}


def drain_node(opts: dict[str, Any], node: str) -> DrainResult:
    """*node* is drained, and what still depends on it after at most DRAIN_TIMEOUT seconds is returned.

    Raises LedgerError if it may not be drained.
    """
    require_drainable(opts, node)
    run_converge.run_converge(opts, Request(kind=RequestKind.DRAIN, value=node))
    return wait_until_unused(opts, node)


def undrain_node(opts: dict[str, Any], node: str) -> ConvergeResult:
    """*node* is used again; what the converge did is returned. Raises LedgerError if the node is not drained."""
    require_drained(opts, node)
    return run_converge.run_converge(opts, Request(kind=RequestKind.UNDRAIN, value=node))


def require_drainable(opts: dict[str, Any], node: str) -> None:
    """Return if *node* may be drained.

    LedgerError if it is in no mesh, is the last relay of one, or is no relay or gateway of any.
    """
    ledger = Ledger.of(opts)
    plans = _plans(ledger, node)
    if not plans:
        raise LedgerError(f"{node} is in no published mesh: 'salt-run wgmesh.status' lists their nodes")
    if not any(plan.views[node].forward for plan in plans):
        raise LedgerError(
            f"{node} forwards for no other node: it is no relay, and no gateway of a subnet; it can be stopped as it is"
        )
    for plan in plans:
        others = {n for n, m in plan.members.items() if m.is_relay} - {node} - ledger.head(plan.mesh).drained
        if plan.members[node].is_relay and not others:
            raise LedgerError(
                f"{node} is the only relay of {plan.mesh} that is not drained: its leaves would have no other; "
                "add another relay, or undrain one"
            )


def require_drained(opts: dict[str, Any], node: str) -> None:
    """Return if *node* is drained; LedgerError with the nodes that are."""
    ledger = Ledger.of(opts)
    drained = {n for mesh in ledger.meshes() for n in ledger.head(mesh).drained}
    if node not in drained:
        raise LedgerError(f"{node} is not drained; drained are: {', '.join(sorted(drained)) or 'none'}")


def wait_until_unused(opts: dict[str, Any], node: str) -> DrainResult:
    """The result once nothing depends on *node* and it forwards nothing, or after DRAIN_TIMEOUT seconds."""
    ledger = Ledger.of(opts)
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while True:
        remaining = tuple(dependants(ledger, node))
        if remaining:
            time.sleep(DRAIN_POLL_INTERVAL)
        elif not _is_down(ledger, node):
            remaining = tuple(_traffic(opts, node))
        if not remaining or time.monotonic() > deadline:
            return DrainResult(node=node, remaining=remaining)


def dependants(ledger: Ledger, node: str) -> Iterator[str]:
    """In words, everything that depends on *node* in the published plans."""
    for plan in _plans(ledger, node):
        for each in _dependants_in(ledger, plan, node):
            yield f"{plan.mesh}: {each}"


def _dependants_in(ledger: Ledger, plan: Plan, node: str) -> Iterator[str]:
    head, health = ledger.head(plan.mesh), ledger.health(plan.mesh)
    for leaf, member in plan.members.items():
        if node in (member.spread_relays or member.relays[:1]):
            yield f"{leaf} has it as a relay"
    for subnet in plan.members[node].subnets:
        yield f"{subnet} has no other gateway"
    for link in head.transition.describe():
        ends = set(link.split("--"))
        # A node that is switched off uses no link, though it finds the link when it is back.
        if node in ends and not health.down_nodes & (ends - {node}):
            yield f"the link {link} waits for others to be up"
    for other, digest in head.digests.items():
        has_applied = ledger.ack(other).digests.get(plan.mesh) == digest
        if not has_applied and other not in health.down_nodes | health.unresponsive | {node}:
            yield f"{other} has not applied the new plan"


def _traffic(opts: dict[str, Any], node: str) -> Iterator[str]:
    """In words, why *node* may still be in use although nothing depends on it: packets within POLL seconds."""
    before = jobs.forwarded(opts, node)
    time.sleep(DRAIN_POLL_INTERVAL)
    after = jobs.forwarded(opts, node)
    if before is None or after is None:
        yield "it does not answer: whether it forwards packets is not known"
    elif after != before:
        yield f"it forwarded {after - before} packets within {DRAIN_POLL_INTERVAL:g} s"


def _is_down(ledger: Ledger, node: str) -> bool:
    """Whether *node* is down by the reports of its neighbours, in all its meshes."""
    return all(node in ledger.health(plan.mesh).down_nodes for plan in _plans(ledger, node))


def _plans(ledger: Ledger, node: str) -> list[Plan]:
    """The published plans that *node* is in."""
    plans = (record.published(ledger, mesh).plan for mesh in ledger.meshes() if ledger.head(mesh).generation)
    return [plan for plan in plans if node in plan.members]
