"""The nodes as a run of converge speaks to them. Tests pass their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from saltext_wgmesh.master.fleet import jobs
from saltext_wgmesh.master.fleet.jobs import JobResult, PresumedDead, Urgent, no_hint, nothing_urgent


class Fleet(Protocol):
    """The requests of a run to nodes. None of them raises for a node that does not answer."""

    def links(
        self, nodes: Sequence[str], presumed_dead: PresumedDead = no_hint, *, is_urgent: Urgent = nothing_urgent
    ) -> JobResult:
        """The answer of each node to ``wgmesh.links``, and the job of each that gave none.

        *presumed_dead* gives the nodes that the answers so far report as dead: the job waits for these only briefly.
        The wait ends as soon as another run *is_urgent*.
        """

    def apply(
        self,
        nodes: Sequence[str],
        not_awaited: Collection[str],
        *,
        retry_rolled_back: bool,
        impatient_of: Collection[str] = (),
        is_urgent: Urgent = nothing_urgent,
    ) -> JobResult:
        """Have *nodes* apply their views; what each returned, and the job of each that did not answer.

        The *not_awaited* are presumed dead, and are waited for only if they show at once that they are not. The run is
        *impatient_of* nodes that kept earlier runs waiting: no job is spent on the question whether they still apply.
        Unless *retry_rolled_back*, a node that rolled back just this view says so instead of applying it once more.
        The wait ends as soon as another run *is_urgent*.
        """

    def late_returns(self, unanswered: Mapping[str, str]) -> JobResult:
        """The returns that have arrived since to the jobs that nodes left unanswered. No node is asked."""

    def enrol(self, nodes: Sequence[str]) -> None:
        """Tell *nodes* to apply the formula, and return at once."""

    def renew_keys(self, nodes: Sequence[str]) -> None:
        """Tell *nodes* to make another key beside the one that they have, and return at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaltFleet:
    """The minions of the master with these options, by Salt's jobs."""

    opts: dict[str, Any]

    def links(
        self, nodes: Sequence[str], presumed_dead: PresumedDead = no_hint, *, is_urgent: Urgent = nothing_urgent
    ) -> JobResult:
        """As in ``Fleet``."""
        return jobs.links(self.opts, nodes, presumed_dead, is_urgent=is_urgent)

    def apply(
        self,
        nodes: Sequence[str],
        not_awaited: Collection[str],
        *,
        retry_rolled_back: bool,
        impatient_of: Collection[str] = (),
        is_urgent: Urgent = nothing_urgent,
    ) -> JobResult:
        """As in ``Fleet``."""
        return jobs.run_apply(
            self.opts,
            nodes,
            not_awaited,
            impatient_of=impatient_of,
            retry_rolled_back=retry_rolled_back,
            is_urgent=is_urgent,
        )

    def late_returns(self, unanswered: Mapping[str, str]) -> JobResult:
        """As in ``Fleet``."""
        return jobs.late_returns(self.opts, unanswered)

    def enrol(self, nodes: Sequence[str]) -> None:
        """As in ``Fleet``."""
        jobs.enrol(self.opts, nodes)

    def renew_keys(self, nodes: Sequence[str]) -> None:
        """As in ``Fleet``."""
        jobs.renew(self.opts, nodes)
