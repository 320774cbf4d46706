"""The last step of a converge: nodes are told to apply, and what they answer is kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Set
from typing import Any

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.types import View
from saltext_wgmesh.core.waves import Wave, waves
from saltext_wgmesh.master import fleet
from saltext_wgmesh.master.ledger import Ledger
from saltext_wgmesh.master.round import Asked, Report

SILENT_AFTER = 60
"""Seconds before a node that did not answer a push is asked again; doubles each time."""
SILENT_CEILING = 300
LONGEST = 500
"""Characters that are kept of what a node says."""
DRIFT_AGAIN = 10
"""Seconds after a push before a node that says that it drifted is pushed to again."""


def hear_late(opts: dict[str, Any], ledger: Ledger) -> None:
    """What nodes answered to earlier pushes when nobody waited for it any more is in the ledger."""
    records = {node: ledger.acknowledged(node) for mesh in ledger.meshes() for node in ledger.head(mesh).digests}
    jobs = {node: record["silent"]["job"] for node, record in records.items() if record.get("silent", {}).get("job")}
    for node, answer in fleet.late(opts, jobs).items():
        # The plan may have changed since: of what is wanted now the node did not speak.
        record = _answered(answer, records[node]["silent"]["digests"], records[node], time.time())
        ledger.acknowledge(node, record)


def push(opts: dict[str, Any], ledger: Ledger, reports: list[Report], asked: Asked, heard: Set[str]) -> None:
    """Every node that does not run what is published, and is due, was told to apply it; the reports say who did. Who is
    *heard* again, after a push that it left unanswered, is due. What a node took back nobody else is told of, until the
    plan changes or somebody asks for a node by name."""
    wanted: dict[str, dict[str, str]] = {}
    for report in reports:
        for node, digest in ledger.head(report.mesh).digests.items():
            wanted.setdefault(node, {})[report.mesh] = digest
    now = time.time()
    records = _records(ledger, wanted)
    stopped = held_back(wanted, records)
    unlikely = {node for report in reports for node in report.down} - asked.again - asked.started - heard
    told: set[str] = set()
    for wave, members in _waves(ledger, wanted, records, asked):
        if wave.gives_up:
            for node in _late(told, wanted, records, unlikely):
                why = f"{node} did not answer yet: what it may still use is not given up"
                stopped = {**dict.fromkeys(_behind(records[node], wanted[node]), why), **stopped}
        told |= set(members)
        free = [n for n in members if n in asked.again or not stopped.keys() & _behind(records[n], wanted[n])]
        stale = [node for node in free if _to_push(node, records[node], wanted[node], asked, heard, now)]
        # Who left just this unanswered may have taken it back, and lost its answer with its way to us.
        left = {node: records[node].get("silent", {}).get("digests") for node in stale}
        repeated = [node for node in stale if node not in asked.again and left[node] == wanted[node]]
        answers = fleet.apply(opts, stale, unlikely, insists=not repeated) if stale else fleet.Answers()
        for node in stale:
            answer, job = answers.returned.get(node), answers.jobs.get(node, "")
            records[node] = record = _answered(answer, wanted[node], records[node], now, job)
            ledger.acknowledge(node, record)
            for report in reports:
                if report.mesh in wanted[node]:
                    _tell(report, node, answer, record["digests"].get(report.mesh) == wanted[node][report.mesh])
        refused = _refused(members, wanted, records)
        stopped = {**stopped, **refused, **(held_back(wanted, records) if refused else {})}
    for report in reports:
        report.stopped = stopped.get(report.mesh, "")
        mine = {node: {report.mesh: digests[report.mesh]} for node, digests in wanted.items() if report.mesh in digests}
        report.not_acknowledged = sorted(n for n, digest in mine.items() if not _acknowledged(records[n], digest))


def _waves(
    ledger: Ledger, wanted: Mapping[str, Mapping[str, str]], records: Mapping[str, Mapping[str, Any]], asked: Asked
) -> list[tuple[Wave, list[str]]]:
    """Who does not run what is published, or may not, in the order in which they are to be told."""
    behind = [n for n, digests in wanted.items() if n in asked.drifted or not _acknowledged(records[n], digests)]
    order: dict[str, Wave] = {}
    for mesh in sorted({mesh for node in behind for mesh in wanted[node]}):
        views = {node: _views(ledger, node, mesh, records[node]) for node in behind if mesh in wanted[node]}
        # In several meshes at once: the later wave.
        order |= {node: max(wave, order.get(node, Wave.CALM)) for node, wave in waves(views).items()}
    return [(wave, sorted(n for n in behind if order[n] is wave)) for wave in sorted(set(order.values()))]


def _late(
    told: Iterable[str],
    wanted: Mapping[str, Mapping[str, str]],
    records: Mapping[str, Mapping[str, Any]],
    unlikely: Set[str],
) -> list[str]:
    """Those of the *told* that may still be about to answer: they left the first push of their views unanswered."""
    left = sorted(set(told) - unlikely)
    return [n for n in left if not _acknowledged(records[n], wanted[n]) and not is_stuck(records[n])]


def is_stuck(record: Mapping[str, Any]) -> bool:
    """Whether nobody need wait for the node of *record*: it refused what it was told last, or left it unanswered
    twice."""
    silent = record.get("silent", {})
    return "error" in silent or silent.get("tries", 0) >= 2


def _views(ledger: Ledger, node: str, mesh: str, record: Mapping[str, Any]) -> tuple[View | None, View | None]:
    """What *node* said that it runs, and what it is to run."""
    runs = ledger.view_of(node, mesh, record.get("digests", {}).get(mesh))
    return _view(runs), _view(ledger.views(node).get(mesh))


def _view(raw: Mapping[str, Any] | None) -> View | None:
    """None where there is none, or one that an earlier version wrote."""
    try:
        return View.from_dict(raw) if raw and "interfaces" in raw else None
    except ViewError:
        return None


def _refused(
    wave: Iterable[str], wanted: Mapping[str, Mapping[str, str]], records: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Mesh → why nobody else is to be told of it: a node of this wave could not take up what is published. Who is
    silent holds nobody up: whatever it runs, the others go on."""
    found: dict[str, str] = {}
    for node in wave:
        silent = records[node].get("silent", {})
        if silent.get("error") and silent["digests"] == dict(wanted[node]):
            for mesh in _behind(records[node], wanted[node]):
                found.setdefault(mesh, f"{node}: {silent['error']}")
    return found


def held_back(wanted: Mapping[str, Mapping[str, str]], records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Mesh → why nobody is to be told of what is published, where a node took just that back; in order of its name."""
    told: dict[str, str] = {}
    for node, digests in sorted(wanted.items()):
        for mesh, why in took_back(records[node], digests).items():
            told.setdefault(mesh, f"held back: {node}: {why}")
    return dict(sorted(told.items()))


def took_back(record: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, str]:
    """Mesh → why, of the views of these *digests* that the node of *record* took back."""
    silent = record.get("silent", {})
    back = {mesh: why for mesh, why in silent.get("taken_back", {}).items() if mesh in digests}
    return {mesh: why for mesh, why in back.items() if silent["digests"].get(mesh) == digests[mesh]}


def _records(ledger: Ledger, wanted: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """What is known of each node's last answers."""
    records = {node: ledger.acknowledged(node) for node in wanted}
    for node, record in records.items():
        if "silent" in record and _acknowledged(record, wanted[node]):
            # The plan is again what it ran: what it made of another in between is over, if it said what that was.
            left = record["silent"]["digests"] if "job" in record["silent"] else record["digests"]
            said = {mesh: digest for mesh, digest in record["digests"].items() if left.get(mesh) == digest}
            records[node] = {**{key: value for key, value in record.items() if key != "silent"}, "digests": said}
            ledger.acknowledge(node, records[node])
    return records


def _to_push(
    node: str, record: Mapping[str, Any], digests: Mapping[str, str], asked: Asked, heard: Set[str], now: float
) -> bool:
    if node in asked.drifted and now - record.get("at", 0) > DRIFT_AGAIN:
        return True
    back = node in heard and "job" in record.get("silent", {})
    insisted = back or node in asked.again or node in asked.started
    return not _acknowledged(record, digests) and (insisted or _due(record, digests, now))


def _acknowledged(record: Mapping[str, Any], digests: Mapping[str, str]) -> bool:
    return not _behind(record, digests)


def _behind(record: Mapping[str, Any], digests: Mapping[str, str]) -> set[str]:
    """The meshes of which the node of *record* did not say that it runs what is wanted."""
    said = record.get("digests", {})
    return {mesh for mesh, digest in digests.items() if said.get(mesh) != digest}


def _due(record: Mapping[str, Any], digests: Mapping[str, str], now: float) -> bool:
    """Whether an unacknowledged node is to be asked now: at once for a new view, else ever more slowly."""
    silent = record.get("silent")
    return not silent or silent["digests"] != dict(digests) or now >= silent["again_at"]


def _answered(
    answer: Any, digests: Mapping[str, str], record: Mapping[str, Any], now: float, job: str = ""
) -> dict[str, Any]:
    """The record of a node after its *answer*, or after the *job* that it left unanswered."""
    said = dict(record.get("digests", {}))
    if isinstance(answer, dict):
        for mesh, value in answer.items():
            if mesh in digests and isinstance(value, dict) and isinstance(value.get("digest"), str):
                said[mesh] = value["digest"]
    new: dict[str, Any] = {"digests": said, "at": now}
    if not _acknowledged(new, digests):
        before = record.get("silent") or {}
        tries = before.get("tries", 0) + 1 if before.get("digests") == dict(digests) else 1
        pause = min(SILENT_AFTER * 2 ** (tries - 1), SILENT_CEILING)
        error = {} if answer is None else {"error": _error(answer, digests)}
        new["silent"] = {
            "digests": dict(digests),
            "tries": tries,
            "again_at": now + pause,
            **({"job": job} if job else {}),
            **error,
            **_taken_back(answer, digests),
        }
    return new


def _taken_back(answer: Any, digests: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What the record keeps of the meshes whose view broke the node, which went back to the one before."""
    values = answer if isinstance(answer, dict) else {}
    back = {m: v for m, v in values.items() if m in digests and isinstance(v, dict) and v.get("taken_back") is True}
    return {"taken_back": {m: str(v.get("error"))[:LONGEST] for m, v in sorted(back.items())}} if back else {}


def _error(answer: Any, digests: Mapping[str, str]) -> str:
    """What a node said that did not take up its views, in words."""
    if not isinstance(answer, dict):
        return str(answer)[:LONGEST]
    values = [answer.get(mesh) for mesh in sorted(digests)]
    errors = [str(v["error"]) for v in values if isinstance(v, dict) and v.get("error")]
    return (errors[0] if errors else "it applied another view than the published one")[:LONGEST]


def _tell(report: Report, node: str, answer: Any, acknowledged: bool) -> None:
    if answer is None:
        report.silent.append(node)
    elif acknowledged:
        report.applied.append(node)
    else:
        report.failed[node] = _error(answer, {report.mesh: ""})
