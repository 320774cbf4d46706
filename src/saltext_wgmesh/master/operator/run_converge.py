"""The converge as an operator, an event or the schedule starts it: queue the requests, run, and report."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import salt.exceptions

from saltext_wgmesh.core.errors import NoPolicyError, ProblemsError, WgmeshError
from saltext_wgmesh.master import converge
from saltext_wgmesh.master.environment import Environment
from saltext_wgmesh.master.operator import link_check, show
from saltext_wgmesh.master.operator.converge_result import ConvergeResult
from saltext_wgmesh.master.records import inventory, mesh_records, spelling
from saltext_wgmesh.master.records.decisions import FailedRun
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.revocations import KeyWatch, untold
from saltext_wgmesh.master.report import MeshReport, merge_rounds
from saltext_wgmesh.master.requests import reactions
from saltext_wgmesh.master.requests.request import ConvergeRequest, Request, RequestKind
from saltext_wgmesh.master.requests.run_queue import QUEUE_LOCK_TIMEOUT, RunQueue

log = logging.getLogger(__name__)

RUN_POLL_INTERVAL = 0.5
"""Seconds between two looks whether the run of another process has ended."""

EXPECTED_ERRORS = (WgmeshError, OSError, salt.exceptions.SaltCacheError)
"""Errors of which the message says all."""

Rounds = list[list[MeshReport]]
"""For each round of a run, the reports of its meshes."""


def run_converge(opts: dict[str, Any], *requests: Request) -> ConvergeResult:
    """Converge with *requests*, and return the reports of all rounds.

    While another run is in progress, the requests are queued for it. An interactive caller then waits up to
    QUEUE_LOCK_TIMEOUT seconds to run itself, so that it can report; other callers get a sentence at once.
    """
    interactive = is_interactive(opts)
    rounds = _run_rounds(opts, requests, interactive=interactive)
    if rounds:
        reports = merge_rounds(rounds)
        return ConvergeResult(reports=_with_links(opts, reports) if interactive else reports)
    if interactive:
        busy = f"another run did not finish within {QUEUE_LOCK_TIMEOUT:g} s: this request is queued for its next round"
        return ConvergeResult(busy=f"{busy}; 'salt-run wgmesh.status' shows the result")
    return ConvergeResult(queued="another run is in progress: this request is queued for its next round")


def run_converge_with(
    opts: dict[str, Any], *, node: object = None, confirm: object = None, **names: object
) -> ConvergeResult:
    """``run_converge`` with the requests for the parameters of the runner's ``converge``.

    Raises WgmeshError if *node* has no accepted key, or *confirm* is not the digest of what is held now. Other *names*
    come from events, and are dropped if no accepted key has them.

    A caller that is not interactive, such as the schedule, gets expected errors as a result. Salt would log an
    exception with its traceback each time. The master's log has each of them once, until it changes.
    """
    if is_interactive(opts):
        return _converge_with(opts, node=node, confirm=confirm, **names)
    try:
        return _converge_with(opts, node=node, confirm=confirm, **names)
    except EXPECTED_ERRORS as error:
        return ConvergeResult(error=str(error))
    except Exception as error:
        # Reactor and schedule discard the errors of a runner, so the master's log is the only place to find them.
        log.error("wgmesh: the converge failed: %s", error, exc_info=True)
        raise


def _converge_with(
    opts: dict[str, Any], *, node: object = None, confirm: object = None, **names: object
) -> ConvergeResult:
    if node is not None:
        node = spelling.minion_id(opts, node)
        if not inventory.is_accepted(opts, node):
            raise WgmeshError(f"{node} is no accepted minion id: 'salt-key -l accepted' lists those")
    requests = reactions.requests(opts, node=node, **names)
    if confirm is not None:
        requests.append(Request(kind=RequestKind.CONFIRM, value=show.require_held(opts, confirm)))
    return run_converge(opts, *requests)


def is_interactive(opts: dict[str, Any]) -> bool:
    """Whether an operator called the runner with ``salt-run``, and waits for the result."""
    return opts.get("__cli") == "salt-run"


def _run_rounds(opts: dict[str, Any], requests: Iterable[Request], *, interactive: bool) -> Rounds:
    """Run until the queue is empty. No rounds if another run is in progress all the time."""
    queue = RunQueue(reactions.queue_dir(opts), interactive=interactive)
    is_urgent = _untold_watch(opts)

    def work(queued: frozenset[Request]) -> list[MeshReport]:
        nonlocal is_urgent
        if not interactive:
            # Before the round: a key that is revoked during it ends the pause after it.
            is_urgent = KeyWatch(opts, inventory.accepted_keys(opts))
        return _converge_once(opts, queue, interactive, queued)

    run_queue = functools.partial(
        queue.run,
        work,
        is_urgent=lambda: is_urgent(),
        made_changes=lambda reports: any(report.made_changes for report in reports),
        has_follow_up=lambda reports: any(report.has_follow_up or report.psk_unacknowledged for report in reports),
    )
    rounds = run_queue(*requests)
    deadline = time.monotonic() + QUEUE_LOCK_TIMEOUT
    while interactive and not rounds and time.monotonic() < deadline:
        time.sleep(RUN_POLL_INTERVAL)
        # Each call queues a request. During the other run it would make that run go on, without end.
        rounds = [] if queue.is_running() else run_queue()
    return rounds


def _untold_watch(opts: dict[str, Any]) -> Callable[[], bool]:
    """Whether a key of a member is revoked that no run has told of yet, so that the first round begins at once.

    Never if the last run failed: such a run would begin at once each time, and tell nothing.
    """
    try:
        ledger = Ledger.of(opts)
        if ledger.failed_run() is None:
            snapshot = mesh_records.read_snapshot(ledger)
            is_revoked = bool(untold(snapshot.meshes.values(), inventory.accepted_keys(opts), ()))
            return lambda: is_revoked
    except EXPECTED_ERRORS as error:
        log.debug("wgmesh: the keys were not compared before the run: %s", error)
    return lambda: False


def _converge_once(
    opts: dict[str, Any], queue: RunQueue, interactive: bool, requests: frozenset[Request]
) -> list[MeshReport]:
    """One round; what it leaves to do is queued."""
    try:
        reports = converge.converge(Environment.of(opts), ConvergeRequest.of(requests), interactive=interactive)
    except EXPECTED_ERRORS as error:
        _record_failure(opts, error, interactive=interactive)
        raise
    for request in _follow_ups(reports):
        queue.enqueue(request)
    return reports


def _record_failure(opts: dict[str, Any], error: Exception, *, interactive: bool) -> None:
    """The ledger has the failure, and the master's log one line of it, unless the run before failed in the same way.

    An operator sees the error, so that an *interactive* run logs nothing. The next run in the background then has
    nothing new to log either.
    """
    text = str(error)
    before: FailedRun | None = None
    try:
        ledger = Ledger.of(opts)
        before = ledger.failed_run()
        number = before.number + 1 if before else 1
        ledger.save_failed_run(FailedRun(number=number, error=text, reason=_reason_for_nodes(error)))
    except EXPECTED_ERRORS as unrecorded:
        log.debug("wgmesh: the failure of this run was not recorded: %s", unrecorded)
    if not interactive and (before is None or before.error != text):
        log.error("wgmesh: the converge failed; this is logged again when it changes: %s", text)


def _reason_for_nodes(error: Exception) -> str:
    """Why no node gets a view, in words that tell a node nothing of others."""
    where = "'salt-run wgmesh.plan' on the master shows why"
    if isinstance(error, NoPolicyError):
        return f"the master has no policy yet; {where}"
    if isinstance(error, ProblemsError):
        return f"{error.title}; {where}"
    return f"the last run of the master failed; {where}"


def _follow_ups(reports: Iterable[MeshReport]) -> Iterable[Request]:
    for report in reports:
        # A busy node may answer late. It is asked once more: then a late answer is taken, and a missed push repeated.
        for node in (*report.newly_unresponsive, *report.newly_unanswered, *report.psk_unacknowledged):
            yield Request(kind=RequestKind.HINT, value=node)
        if report.has_follow_up:
            yield Request(kind=RequestKind.CONTINUE_TRANSITION)


def _with_links(opts: dict[str, Any], reports: Mapping[str, MeshReport]) -> dict[str, MeshReport]:
    """*reports* with all that is down now: the health, which a run goes by, knows no link that never was up."""
    down = link_check.await_links(opts, reports)
    return {mesh: replace(report, down=down.get(mesh, report.down)) for mesh, report in reports.items()}
