"""How the meshes are now: what is published, who runs it, how the links are, what is down and who says so."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from saltext_wgmesh.core import render
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.health import Health, Trouble
from saltext_wgmesh.core.linkstate import Link, LinkState
from saltext_wgmesh.master import checkup, guard, inventory, pinned, record, rotate, steps
from saltext_wgmesh.master.ledger import Head, Ledger
from saltext_wgmesh.master.push import took_back

REFRESH = 2.0
"""Seconds between two pictures of ``watch``."""
CLEAR = "\x1b[H\x1b[2J"
"""ECMA-48: cursor to the first place, and the whole page erased."""


def status(opts: dict[str, Any], *, live: bool = True) -> dict[str, Any]:
    """Mesh → generation, nodes with addresses, relays, links and whether they run what is published, and what is
    down since when. If not *live* no node is asked, and nothing is said of links that are not in trouble."""
    ledger = Ledger.of(opts)
    if not ledger.meshes():
        raise LedgerError("no mesh was published yet: run `salt-run wgmesh.plan` to see what is missing")
    accepted = inventory.accepted_keys(opts)
    published = {mesh: record.published(ledger, mesh) for mesh in ledger.meshes()}
    members = {node for one in published.values() for node in one.plan.members if node in accepted}
    answers = checkup.ask(opts, members) if live else None
    return {mesh: _mesh(ledger, one, accepted, answers) for mesh, one in published.items()}


def watch(opts: dict[str, Any]) -> None:
    """The same as tables, refreshed in place until Ctrl-C; LedgerError if standard output is no terminal."""
    if not sys.stdout.isatty():
        raise LedgerError("watch=True needs a terminal: leave it away to have the status once")
    try:
        while True:
            page = render.status(status(opts))
            sys.stdout.write(f"{CLEAR}{page}\nevery {REFRESH:g} s; Ctrl-C ends it\n")
            sys.stdout.flush()
            time.sleep(REFRESH)
    except KeyboardInterrupt:
        return


def _mesh(
    ledger: Ledger, published: record.Published, accepted: Mapping[str, str], answers: checkup.Answers | None
) -> dict[str, Any]:
    plan = published.plan
    head = ledger.head(plan.mesh)
    nodes = {}
    for node, member in plan.members.items():
        answered = ledger.acknowledged(node)
        acknowledged = answered.get("digests", {}).get(plan.mesh)
        row: dict[str, Any] = {
            "role": member.role.value,
            "site": member.site,
            "addresses": list(member.addresses),
            "relays": list(member.homes),
            "peers": sum(len(i.peers) for i in plan.views[node].interfaces),
            "acknowledged": acknowledged == head.digests.get(node),
        }
        if member.subnets or member.standby_subnets:
            row["subnets"] = {"active": list(member.subnets), "standby": list(member.standby_subnets)}
        if back := took_back(answered, {plan.mesh: head.digests.get(node, "")}):
            row["taken_back"] = back[plan.mesh]
        if node not in accepted:
            row["key"] = "no longer accepted"
        if answers is not None:
            row |= _links(plan.mesh, answers.get(node))
        nodes[node] = row
    back = {node: row["taken_back"] for node, row in nodes.items() if "taken_back" in row}
    held = guard.held_of(ledger, plan.mesh)
    return {
        "generation": published.generation,
        "published_at": stamp(published.published_at),
        **({"held_back": back} if back else {}),
        **({"held": held} if held else {}),
        **pinned.told(ledger, plan.mesh),
        "nodes": nodes,
        **_troubles(ledger.health(plan.mesh)),
        **_rotation(ledger, published, head),
        **({"drained": sorted(head.drained)} if head.drained else {}),
        **({"rollout": {"waits_for": steps.waits_for(head.kept)}} if head.kept else {}),
        **({"other_preshared_key": sorted(head.secrecy.lags)} if head.secrecy.lags else {}),
        "not_acknowledged": sorted(n for n, row in nodes.items() if not row["acknowledged"]),
        "left_out": published.reasons,
        **_retired(ledger, plan.mesh),
    }


def _retired(ledger: Ledger, mesh: str) -> dict[str, Any]:
    """Of a mesh that the policy has no more: that it is so, and who has not heard it; else nothing."""
    if not record.is_retired(ledger, mesh):
        return {}
    told = ledger.head(mesh).digests
    unheard = [n for n, digest in told.items() if ledger.acknowledged(n).get("digests", {}).get(mesh) != digest]
    return {"retired": True, "not_acknowledged": sorted(unheard)}


def _links(mesh: str, reports: Mapping[str, Any] | None) -> dict[str, Any]:
    if reports is None:
        return {"answers": False}
    if mesh not in reports:
        return {"answers": True}
    report = reports[mesh]
    return {
        "answers": True,
        "watched": report.watched,
        "links": {name: _link(link) for name, link in report.links.items()},
    }


def _link(link: Link) -> str:
    """The state; with its time, unless it is up and was not in trouble lately."""
    if link.state is LinkState.UP and not link.hold:
        return str(link.state.value)
    hold = f", must be good for {link.hold:g} s" if link.hold and link.state is not LinkState.UP else ""
    return f"{link.state.value} since {stamp(link.since)}{hold}"


def _rotation(ledger: Ledger, published: record.Published, head: Head) -> dict[str, Any]:
    """Who is about to get another key, and what for each waits; nothing if nobody is."""
    health = ledger.health(published.plan.mesh)
    scene = rotate.Scene(plan=published.plan, head=head, health=health, now=time.time())
    told = rotate.waiting(ledger, scene)
    return {"rotation": told} if told else {}


def _troubles(health: Health) -> dict[str, Any]:
    """What counts as down, and what did until lately; nothing if all is well."""
    named: dict[str, tuple[Trouble, bool]] = {n: (t, n in health.down) for n, t in health.nodes.items()}
    named |= {"--".join(pair): (t, pair in health.cut) for pair, t in health.links.items()}
    told = {
        name: {
            "counts_as": "down" if down else "up",
            "since": stamp(trouble.since),
            "by": list(trouble.by),
            "good_since": None if trouble.good_since is None else stamp(trouble.good_since),
            "times": trouble.times,
            "hold": trouble.hold,
        }
        for name, (trouble, down) in sorted(named.items())
    }
    return {"trouble": told} if told else {}


def stamp(seconds: float) -> str:
    """A time since the epoch as people read it, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
