"""Looking at the suspects: how their neighbours, asked now, say that the links are.

An event only says where to look. Nothing of it is believed: the nodes that it names are asked by a job, whose returns
Salt authenticates, with all who should hear those that it calls down; and then who should hear whatever else they do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core import health as health_module
from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.linkstate import LinkReport, LinkState
from saltext_wgmesh.core.types import Plan
from saltext_wgmesh.master import fleet, record, steps
from saltext_wgmesh.master.ledger import Ledger
from saltext_wgmesh.master.round import Asked

log = logging.getLogger(__name__)

Answers = Mapping[str, Mapping[str, LinkReport]]
"""Node → mesh → what it reports."""


def examine(
    opts: dict[str, Any], ledger: Ledger, asked: Asked, accepted: Collection[str]
) -> tuple[dict[str, Health], Answers]:
    """Mesh → what is to be believed of its links now; and what the nodes that answered say. Without hints, trouble or a
    rollout under way nobody is asked."""
    plans = {mesh: record.published(ledger, mesh).plan for mesh in _to_examine(ledger, asked.hints | asked.started)}
    around = {mesh: neighbours(plan) for mesh, plan in plans.items()}
    before = {mesh: ledger.health(mesh) for mesh in ledger.meshes()}
    first = set(asked.hints)
    for mesh, plan in plans.items():
        first |= _witnesses(before[mesh], around[mesh]) | _concerned(plan, around[mesh], asked.suspects)
        first |= steps.concerned(ledger.head(mesh))
        # Who was silent once, or away, may answer now.
        first |= (before[mesh].silent - before[mesh].down) | (asked.started & plan.members.keys())
    first &= set(accepted)

    def gone(returned: Mapping[str, Any]) -> set[str]:
        said = _read(returned)[0]
        return {n for mesh, others in around.items() for n in health_module.gone(others, words(mesh, others, said))}

    answers = ask(opts, first, gone)
    second: set[str] = set()
    for mesh, plan in plans.items():
        second |= _concerned(plan, around[mesh], _suspects(words(mesh, around[mesh], answers)))
    second = (second & set(accepted)) - first
    answers = {**answers, **ask(opts, second, gone)}
    now = time.time()
    for mesh, others in around.items():
        said = words(mesh, others, answers)
        before[mesh] = health_module.judge(before[mesh], others, said, first | second, now)
        ledger.keep_health(mesh, before[mesh])
    return before, answers


def ask(opts: dict[str, Any], nodes: Collection[str], gone: fleet.Gone = fleet.nobody) -> Answers:
    """What *nodes* report now. Who does not answer is missing, those soon that are *gone*; what can't be read is left
    out and logged."""
    found, unread = _read(fleet.links(opts, sorted(nodes), gone)) if nodes else ({}, [])
    for node, mesh, why in unread:
        log.warning("wgmesh: %s said of %s what can't be read: %s", node, mesh, why)
    return found


def _read(returned: Mapping[str, Any]) -> tuple[dict[str, dict[str, LinkReport]], list[tuple[str, str, str]]]:
    """What nodes report; and of what can't be read the node, the mesh and why."""
    found: dict[str, dict[str, LinkReport]] = {node: {} for node in returned}
    unread: list[tuple[str, str, str]] = []
    for node, raw in returned.items():
        for mesh, report in raw.items() if isinstance(raw, Mapping) else ():
            try:
                found[node][str(mesh)] = LinkReport.from_dict(report)
            except ViewError as error:
                unread.append((node, str(mesh), str(error)))
    return found, unread


def neighbours(plan: Plan) -> dict[str, frozenset[str]]:
    """Node → the nodes that it has a link to."""
    found: dict[str, set[str]] = {node: set() for node in plan.members}
    for link in plan.links:
        found[link.a].add(link.b)
        found[link.b].add(link.a)
    return {node: frozenset(others) for node, others in found.items()}


def words(mesh: str, around: Mapping[str, frozenset[str]], answers: Answers) -> health_module.Words:
    """What each node says of those that the plan makes its neighbours, and of nobody else."""
    return MappingProxyType(
        {
            node: {n: link.state for n, link in reports[mesh].links.items() if n in around[node]}
            for node, reports in answers.items()
            if mesh in reports and node in around
        }
    )


def _to_examine(ledger: Ledger, hints: Iterable[str]) -> list[str]:
    hinted = any(True for _ in hints)
    # What only rests asks nobody, and is forgotten in time.
    return [
        mesh
        for mesh in ledger.meshes()
        if (head := ledger.head(mesh)).generation
        and (hinted or head.kept or ledger.health(mesh).nodes or ledger.health(mesh).links)
    ]


def _witnesses(health: Health, around: Mapping[str, frozenset[str]]) -> set[str]:
    """Who can tell whether what was down is up again."""
    found = {n for node in health.down for n in around.get(node, ())} | {n for pair in health.cut for n in pair}
    return found - health.down


def _concerned(plan: Plan, around: Mapping[str, frozenset[str]], suspects: Collection[str]) -> set[str]:
    """Who should hear *suspects*; and the leaves among these, who get other relays only if they can be told of them."""
    found = {n for s in suspects for n in around.get(s, ())} - set(suspects)
    return found | {s for s in suspects if s in around and not plan.members[s].is_relay}


def _suspects(said: health_module.Words) -> set[str]:
    troubled = (LinkState.DOWN, LinkState.MUTE)
    return {n for states in said.values() for n, state in states.items() if state in troubled}
