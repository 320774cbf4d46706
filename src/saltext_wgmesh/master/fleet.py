"""Speaking to nodes: one job to those concerned, with no word in it of what they are to do.

Every accepted minion can read every job's arguments, so a job only says *apply* or *links*: each node fetches its own
view as pillar, which is encrypted for it alone. Returns are read from the master's job cache, into which Salt puts
nothing that the node itself did not sign; return events any accepted minion could forge.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import salt.client

from saltext_wgmesh.core.errors import FleetError

BATCH = 500
"""Minion ids in one job: a list target travels to every minion."""
POLL = 0.05
"""Seconds between two looks into the job cache; longer where a look takes long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for answers, in seconds."""

    most: float
    """In all."""
    pause: float
    """Since the last answer came: who has not answered by then is taken for gone."""


APPLYING = Patience(most=60.0, pause=10.0)
ASKING = Patience(most=5.0, pause=1.5)


def apply(opts: dict[str, Any], nodes: Sequence[str], unlikely: Collection[str] = ()) -> dict[str, Any]:
    """Have *nodes* apply their views; node → what its ``wgmesh.apply`` returned. The silent are missing. The answers
    of the *unlikely* are taken if they come, and not waited for."""
    return _ask(opts, nodes, "wgmesh.apply", APPLYING, unlikely)


def links(opts: dict[str, Any], nodes: Sequence[str]) -> dict[str, Any]:
    """How the links of *nodes* are; node → what its ``wgmesh.links`` returned. The silent are missing."""
    return _ask(opts, nodes, "wgmesh.links", ASKING)


def enrol(opts: dict[str, Any], nodes: Sequence[str]) -> None:
    """*nodes* were told to apply the formula; nobody waits for it, since it is they who then tell the master."""
    with salt.client.get_local_client(mopts=opts) as client:
        for batch in _batches(sorted(nodes)):
            client.run_job(batch, "wgmesh.enrol", tgt_type="list")


def _ask(
    opts: dict[str, Any], nodes: Sequence[str], function: str, patience: Patience, unlikely: Collection[str] = ()
) -> dict[str, Any]:
    if not opts.get("job_cache", True) or opts.get("ext_job_cache"):
        raise FleetError(
            "the master keeps no job cache, from which wgmesh reads what nodes answer: "
            "set job_cache: True and no ext_job_cache in the master's configuration"
        )
    answers: dict[str, Any] = {}
    with salt.client.get_local_client(mopts=opts) as client:
        for batch in _batches(sorted(nodes)):
            job = client.run_job(batch, function, tgt_type="list")
            if job:
                answers.update(_collect(client, job["jid"], set(batch), patience, unlikely))
    return dict(sorted(answers.items()))


def _collect(client: Any, jid: str, wanted: set[str], patience: Patience, unlikely: Collection[str]) -> dict[str, Any]:
    """What those of *wanted* returned to the job that answered in time."""
    started = heard_at = time.monotonic()
    answers: dict[str, Any] = {}
    while True:
        looked_at = time.monotonic()
        returned = client.get_cache_returns(jid)
        now = time.monotonic()
        found = {node: returned[node]["ret"] for node in wanted & returned.keys() if "ret" in returned[node]}
        if len(found) > len(answers):
            answers, heard_at = found, now
        if wanted - answers.keys() <= set(unlikely) or now - heard_at > patience.pause or now - started > patience.most:
            return answers
        time.sleep(max(POLL, 2 * (now - looked_at)))


def _batches(nodes: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(nodes), BATCH):
        yield list(nodes[start : start + BATCH])
