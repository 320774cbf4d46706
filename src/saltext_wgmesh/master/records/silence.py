"""The silence of a node that leaves the master's questions unanswered, and when it costs the node its vote.

A witness that is merely slow keeps its vote: otherwise a few fast answers would decide. A witness that answers nothing
at all would keep its vote for ever, and a site that died whole would never count as down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from saltext_wgmesh.core.model.stored_time import plausible

VOTE_LOST_AFTER = 90.0
"""Seconds of silence after which a node has no vote."""
VOTE_LOST_RUNS = 3
"""Runs whose questions it must have left unanswered too, since a clock can jump and a master can stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Questions of several runs in a row of which a node has answered none."""

    since: float
    """When the first of them was asked, in seconds since the epoch."""
    runs: int = 1
    """Runs that asked, VOTE_LOST_RUNS at most."""
    job: str = ""
    """The id of a question that the node may still answer: the first one, and after the loss of the vote the last.

    A node that takes longer than any run waits is thus heard all the same."""

    def costs_vote(self, now: float) -> bool:
        """Return whether the node has no vote at *now*."""
        return self.runs >= VOTE_LOST_RUNS and now - plausible(self.since, now) >= VOTE_LOST_AFTER

    def went_on(self, job: str, now: float) -> Silence:
        """Return the silence after one more run, whose question was *job*, was left unanswered until *now*."""
        since = plausible(self.since, now)
        kept = job if self.costs_vote(now) else self.job
        return replace(self, since=since, runs=min(self.runs + 1, VOTE_LOST_RUNS), job=kept or job)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the ledger; ``from_dict`` is the inverse."""
        return {"since": self.since, "runs": self.runs, "job": self.job}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Silence:
        """Return the silence that ``as_dict`` wrote."""
        return cls(since=float(raw["since"]), runs=int(raw["runs"]), job=str(raw["job"]))
