"""The reactions of the reactor files: a call of the runner, or nothing while a run is in progress.

In the second case the requests are queued here. A call of the runner would queue the same requests, at a hundred times
the cost. It would run in the process that runs the converge, and that handles events one after the other. A relay that
dies, of which many nodes report, therefore does not slow down the run in progress. Nor does a node that fires a hundred
events a second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saltext_wgmesh.master.records import inventory, spelling
from saltext_wgmesh.master.requests.request import MAX_VALUE_LENGTH, Request, RequestKind
from saltext_wgmesh.master.requests.run_queue import RunQueue

log = logging.getLogger(__name__)

MAX_SUSPECTS = 16
"""Suspects that are taken from one event. The survey of links finds the others."""


def converge_reaction(opts: dict[str, Any], **names: object) -> dict[str, Any]:
    """The reaction that calls ``wgmesh.converge`` with *names*; empty if the requests were queued for a running one.

    The keys of *names* are parameters of the runner's function. Their values come from events, which any minion can
    forge, and are passed on as text.
    """
    texts = {key: _comma_separated(value) if key == "suspects" else str(value) for key, value in names.items()}
    try:
        if RunQueue(queue_dir(opts)).enqueue_if_running(*requests(opts, **texts)):
            return {}
    except OSError as error:
        # Salt would log each event with a traceback. The runner finds the same, and says it once.
        log.debug("wgmesh: the requests of an event were not queued: %s", error)
    args = [{"args": [{key: text} for key, text in texts.items()]}] if texts else []
    return {"wgmesh_converge": {"runner.wgmesh.converge": args}}


def requests(
    opts: dict[str, Any],
    *,
    node: object = None,
    hint: object = None,
    started: object = None,
    drifted: object = None,
    suspects: object = None,
) -> list[Request]:
    """The requests for the parameters of the runner's ``converge``.

    Names without an accepted key are dropped: each request is a file until a run takes it, and forged names must not
    fill the disk.
    """
    named = [
        (RequestKind.RETRY, node),
        (RequestKind.HINT, hint),
        (RequestKind.STARTED, started),
        (RequestKind.DRIFTED, drifted),
    ]
    listed = "" if suspects is None else spelling.minion_id(opts, suspects)
    named += [(RequestKind.SUSPECT, name) for name in listed.split(",", MAX_SUSPECTS)[:MAX_SUSPECTS]]
    # Salt reads the arguments of a runner as YAML, also those of a reaction.
    texts = [(kind, spelling.minion_id(opts, name)) for kind, name in named if name is not None]
    return [Request(kind=kind, value=text) for kind, text in texts if _is_known(opts, text)]


def queue_dir(opts: dict[str, Any]) -> Path:
    """The folder of the master's run queue."""
    return Path(opts["cachedir"]) / "wgmesh"


def _is_known(opts: dict[str, Any], name: str) -> bool:
    return len(name) <= MAX_VALUE_LENGTH and inventory.is_accepted(opts, name)


def _comma_separated(value: object) -> str:
    listed = value if isinstance(value, Iterable) and not isinstance(value, dict) else ()
    return ",".join(map(str, listed))
