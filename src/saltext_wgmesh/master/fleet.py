"""Speaking to nodes: one job to those concerned, with no word in it of what they are to do.

Every accepted minion can read every job's arguments, so a job only says *apply* or *links*: each node fetches its own
view as pillar, which is encrypted for it alone. Returns are read from the master's job cache, into which Salt puts
nothing that the node itself did not sign; return events any accepted minion could forge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import salt.client
import salt.utils.args

from saltext_wgmesh.core.errors import FleetError

BATCH = 500
"""Minion ids in one job: a list target travels to every minion."""
POLL = 0.02
"""Seconds between two looks into the job cache; longer where a look takes long."""
SHORT = 0.5
"""Seconds since the last answer in which those must answer that seem gone."""

Gone = Callable[[Mapping[str, Any]], Collection[str]]
"""From what nodes returned to the nodes that are gone, as these tell it."""


def nobody(_: Mapping[str, Any]) -> Collection[str]:
    """That no node tells anything of others."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for answers, in seconds."""

    most: float
    """In all."""
    first: float
    """Until the first answer came: if none does, it may be the master that is busy."""
    pause: float
    """Since the last answer came: who has not answered by then is taken for gone, or asked whether it is at it."""
    asks: bool = False
    """Whether who is silent is asked if it is at the job still, and then waited for."""
    gone: Gone = nobody
    """Who, by what others answered, is probably gone: if only such are silent, they have SHORT seconds."""


APPLYING = Patience(most=60.0, first=4.0, pause=4.0, asks=True)
ASKING = Patience(most=6.0, first=4.0, pause=1.5)
INQUIRING = Patience(most=8.0, first=4.0, pause=4.0)


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of a job by the time that nobody waits for it any more."""

    returned: dict[str, Any] = field(default_factory=dict)
    """Node → its return."""
    jobs: dict[str, str] = field(default_factory=dict)
    """Each silent node → the id of the job, which it may answer yet."""


def apply(
    opts: dict[str, Any], nodes: Sequence[str], unlikely: Collection[str] = (), *, insists: bool = True
) -> Answers:
    """Have *nodes* apply their views: what their ``wgmesh.apply`` returned. The answers of the *unlikely* are taken if
    they come, and not waited for. If nobody *insists*, whoever took just this view back says so, and why."""
    arguments = () if insists else salt.utils.args.condition_input([], {"insists": False})
    return _ask(opts, nodes, "wgmesh.apply", APPLYING, unlikely, *arguments)


def late(opts: dict[str, Any], jobs: Mapping[str, str]) -> dict[str, Any]:
    """What nodes returned meanwhile to *jobs* (node → id of a job that it left unanswered); no node is asked."""
    if not jobs:
        return {}
    with salt.client.get_local_client(mopts=opts) as client:
        returned = {jid: _returned(client, jid) for jid in set(jobs.values())}
    return {node: returned[jid][node] for node, jid in jobs.items() if node in returned[jid]}


def links(opts: dict[str, Any], nodes: Sequence[str], gone: Gone = nobody) -> dict[str, Any]:
    """How the links of *nodes* are; node → what its ``wgmesh.links`` returned. The silent are missing; those that are
    *gone* by what others returned are not waited for long."""
    return _ask(opts, nodes, "wgmesh.links", replace(ASKING, gone=gone)).returned


def forwarded(opts: dict[str, Any], node: str) -> int | None:
    """How many packets *node* has forwarded since it started; None if it does not answer."""
    told = _ask(opts, [node], "wgmesh.forwarded", ASKING).returned.get(node)
    return told if isinstance(told, int) else None


def enrol(opts: dict[str, Any], nodes: Sequence[str]) -> None:
    """*nodes* were told to apply the formula; nobody waits for it, since it is they who then tell the master."""
    with salt.client.get_local_client(mopts=opts) as client:
        for batch in _batches(sorted(nodes)):
            client.run_job(batch, "wgmesh.enrol", tgt_type="list")


def renew(opts: dict[str, Any], nodes: Sequence[str]) -> None:
    """*nodes* were told to make another key beside the one that they have; nobody waits for it."""
    with salt.client.get_local_client(mopts=opts) as client:
        for batch in _batches(sorted(nodes)):
            client.run_job(batch, "wgmesh.renew_key", tgt_type="list")


def _ask(
    opts: dict[str, Any],
    nodes: Sequence[str],
    function: str,
    patience: Patience,
    unlikely: Collection[str] = (),
    *arguments: Any,
) -> Answers:
    if not opts.get("job_cache", True) or opts.get("ext_job_cache"):
        raise FleetError(
            "the master keeps no job cache, from which wgmesh reads what nodes answer: "
            "set job_cache: True and no ext_job_cache in the master's configuration"
        )
    if opts.get("pillar_cache"):
        raise FleetError(
            "the master gives nodes pillars that it made a while ago, and with them old views: set pillar_cache: False"
        )
    if not (opts.get("minion_data_cache", True) or opts.get("enforce_mine_cache")):
        raise FleetError("the master keeps no mine, in which nodes publish their facts: set minion_data_cache: True")
    answers = Answers()
    with salt.client.get_local_client(mopts=opts) as client:
        for batch in _batches(sorted(nodes)):
            jid, returned = _job(client, batch, function, patience, unlikely, *arguments)
            answers.returned.update(returned)
            answers.jobs.update({node: jid for node in batch if node not in returned})
    return answers


def _job(
    client: Any, nodes: Sequence[str], function: str, patience: Patience, unlikely: Collection[str], *arguments: Any
) -> tuple[str, dict[str, Any]]:
    """The id of a job, and what those of *nodes* returned to it that answered in time."""
    job = client.run_job(list(nodes), function, arg=arguments, tgt_type="list")
    if not job:
        return "", {}
    jid, wanted, given_up = job["jid"], set(nodes), set(unlikely)
    deadline = time.monotonic() + patience.most
    while True:
        returned = _collect(client, jid, wanted, given_up, patience, deadline)
        silent = wanted - returned.keys() - given_up
        if not (patience.asks and silent) or time.monotonic() > deadline:
            return jid, returned
        _, said = _job(client, sorted(silent), "saltutil.find_job", INQUIRING, (), jid)
        given_up |= {node for node in silent if not said.get(node)}


def _collect(
    client: Any, jid: str, wanted: set[str], unlikely: Collection[str], patience: Patience, deadline: float
) -> dict[str, Any]:
    """What *wanted* returned until no answer had come for as long as *patience* says, or *deadline* was over."""
    heard_at = time.monotonic()
    answers: dict[str, Any] = {}
    while True:
        looked_at = time.monotonic()
        returned = _returned(client, jid)
        now = time.monotonic()
        found = {node: returned[node] for node in wanted & returned.keys()}
        if len(found) > len(answers):
            answers, heard_at = found, now
        missing = wanted - answers.keys()
        pause = patience.pause if answers else patience.first
        if now - heard_at > SHORT and missing <= set(patience.gone(answers)):
            pause = SHORT
        if missing <= set(unlikely) or now - heard_at > pause or now > deadline:
            return answers
        time.sleep(max(POLL, 2 * (now - looked_at)))


def _returned(client: Any, jid: str) -> dict[str, Any]:
    """Node → its return to the job, as far as the job cache has it."""
    return {node: told["ret"] for node, told in client.get_cache_returns(jid).items() if "ret" in told}


def _batches(nodes: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(nodes), BATCH):
        yield list(nodes[start : start + BATCH])
