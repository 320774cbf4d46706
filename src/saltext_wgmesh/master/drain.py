"""Moving everything off a node, so that it may be stopped: what still depends on it, and whether it still forwards."""

from __future__ import annotations

import time
from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.types import Plan
from saltext_wgmesh.master import fleet, record, steps
from saltext_wgmesh.master.ledger import Ledger

PATIENCE = 60.0
"""Seconds in which everything must have moved."""
POLL = 1.0
"""Seconds between two looks: in this time no packet may be forwarded."""


def check(opts: dict[str, Any], node: str) -> None:
    """Return if *node* may be drained; LedgerError if it is in no mesh, or the only relay that its mesh has."""
    ledger = Ledger.of(opts)
    plans = _plans(ledger, node)
    if not plans:
        raise LedgerError(f"{node} is in no published mesh: 'salt-run wgmesh.status' lists their nodes")
    for plan in plans:
        others = {n for n, m in plan.members.items() if m.is_relay} - {node} - ledger.head(plan.mesh).drained
        if plan.members[node].is_relay and not others:
            raise LedgerError(
                f"{node} is the only relay of {plan.mesh} that is not drained: nothing can move elsewhere; add another "
                "relay, or undrain one"
            )


def check_drained(opts: dict[str, Any], node: str) -> None:
    """Return if *node* is drained; LedgerError with those that are."""
    ledger = Ledger.of(opts)
    drained = {n for mesh in ledger.meshes() for n in ledger.head(mesh).drained}
    if node not in drained:
        raise LedgerError(f"{node} is not drained; drained are: {', '.join(sorted(drained)) or 'none'}")


def wait(opts: dict[str, Any], node: str) -> dict[str, Any]:
    """What still depends on *node*, once nothing does (``safe_to_stop``) or PATIENCE seconds are over."""
    ledger = Ledger.of(opts)
    end = time.monotonic() + PATIENCE
    while True:
        still = _dependants(ledger, node)
        if still:
            time.sleep(POLL)
        elif not _is_down(ledger, node):
            moving = _forwards(opts, node)
            if moving is None:
                still = ["it does not answer: whether it forwards anything is not known"]
            elif moving:
                still = [f"it forwarded {moving} packets within {POLL:g} s"]
        if not still or time.monotonic() > end:
            return {"node": node, "safe_to_stop": not still, **({"still": still} if still else {})}


def _dependants(ledger: Ledger, node: str) -> list[str]:
    """What speaks against stopping *node*, in words."""
    found: list[str] = []
    for plan in _plans(ledger, node):
        head = ledger.head(plan.mesh)
        found += [f"{plan.mesh}: {leaf} has it as a relay" for leaf, m in plan.members.items() if node in m.homes[:1]]
        found += [f"{plan.mesh}: {subnet} has no other gateway" for subnet in plan.members[node].subnets]
        health = ledger.health(plan.mesh)
        kept = [link for link in steps.waits_for(head.kept) if node in link.split("--")]
        # What is switched off uses no link, though it finds it there when it is back.
        used = [link for link in kept if not health.down & (set(link.split("--")) - {node})]
        found += [f"{plan.mesh}: the link {link} waits for others to be up" for link in used]
        down = health.down | health.silent
        for other, digest in head.digests.items():
            runs = ledger.acknowledged(other).get("digests", {}).get(plan.mesh) == digest
            if not runs and other not in down | {node}:
                found.append(f"{plan.mesh}: {other} has not applied the new plan")
    return found


def _is_down(ledger: Ledger, node: str) -> bool:
    """Whether its neighbours say so, in all meshes that it is in."""
    return all(node in ledger.health(plan.mesh).down for plan in _plans(ledger, node))


def _forwards(opts: dict[str, Any], node: str) -> int | None:
    """How many packets *node* forwards within POLL seconds; None if it does not answer."""
    before = fleet.forwarded(opts, node)
    time.sleep(POLL)
    after = fleet.forwarded(opts, node)
    return None if before is None or after is None else after - before


def _plans(ledger: Ledger, node: str) -> list[Plan]:
    """The published plans of the meshes that *node* is in."""
    plans = (record.published(ledger, mesh).plan for mesh in ledger.meshes() if ledger.head(mesh).generation)
    return [plan for plan in plans if node in plan.members]
