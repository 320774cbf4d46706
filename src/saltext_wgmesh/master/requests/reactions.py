"""The reactions of the reactor files: a call of the runner, or nothing while a run is in progress.

In the second case the requests are queued here. A call of the runner would queue the same requests, at a hundred times
the cost. It would run in the process that runs the converge, and that handles events one after the other. A relay that
dies, of which many nodes report, therefore does not slow down the run in progress. Nor does a node that fires a hundred
events a second.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from saltext_wgmesh.master.records import inventory, spelling
from saltext_wgmesh.master.requests.request import MAX_VALUE_LENGTH, Request, RequestKind
from saltext_wgmesh.master.requests.run_queue import RunQueue

log = logging.getLogger(__name__)

MAX_SUSPECTS = 16
"""Suspects that are taken from one event. The survey of links finds the others."""
MAX_ID_BITS = 512
"""Bits of a number that is read as a minion id. Python refuses to print very long ones."""


def converge_reaction(opts: dict[str, Any], **names: object) -> dict[str, Any]:
    """The reaction that calls ``wgmesh.converge`` with *names*; empty if the requests were queued for a running one.

    The keys of *names* are parameters of the runner's function. Their values come from events, which any minion can
    forge. Text that can be a minion id is passed on, and empty text for anything else: Salt keeps the arguments in its
    job cache.
    """
    texts = {key: _comma_separated(value) if key == "suspects" else _id(value) for key, value in names.items()}
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
    """The first MAX_SUSPECTS entries of *value* that can be minion ids."""
    listed = value if isinstance(value, (list, tuple)) else ()
    return ",".join(filter(None, map(_id, listed[:MAX_SUSPECTS])))


def _id(value: object) -> str:
    """*value* as text; empty if no minion id is like that."""
    if not isinstance(value, (str, bool, float)) and not (isinstance(value, int) and value.bit_length() < MAX_ID_BITS):
        return ""
    text = str(value)
    return text if len(text) <= MAX_VALUE_LENGTH and text.isprintable() else ""
