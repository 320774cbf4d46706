"""Pushing: one job to the nodes concerned, with no word in it of what they are to do.

Every accepted minion can read every job's arguments, so the job only says *apply*: each node fetches its own
view as pillar, which is encrypted for it alone. The returns are authenticated by Salt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import salt.client

BATCH = 500
"""Minion ids in one job: a list target travels to every minion."""
TIMEOUT = 15
"""Seconds a node has to answer before Salt asks whether the job still runs there."""


def apply(opts: dict[str, Any], nodes: Sequence[str]) -> dict[str, Any]:
    """Have *nodes* apply their views; node → what its ``wgmesh.apply`` returned. The silent are missing."""
    answers: dict[str, Any] = {}
    with salt.client.get_local_client(mopts=opts) as client:
        for batch in _batches(sorted(nodes)):
            returned = client.cmd(batch, "wgmesh.apply", tgt_type="list", timeout=TIMEOUT, full_return=True)
            answers.update(
                {
                    node: answer["ret"]
                    for node, answer in returned.items()
                    # For a node that did not answer, Salt puts a sentence where the return would be.
                    if isinstance(answer, dict) and "ret" in answer and answer.get("out") != "no_return"
                }
            )
    return dict(sorted(answers.items()))


def _batches(nodes: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(nodes), BATCH):
        yield list(nodes[start : start + BATCH])
