"""A fake of Salt's local client."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

JOB, FIND_JOB = "1", "2"


class FakeClient:
    """A local client with a job cache in which one more of *returns* stands at each read.

    *running* are the nodes that say in answer to ``saltutil.find_job`` that the job still runs there. Those that are
    *dead* do not answer it at all.
    """

    def __init__(
        self, *returns: tuple[str, dict[str, Any]], running: Collection[str] = (), dead: Collection[str] = ()
    ) -> None:
        self.opts = {"master_job_cache": "fake"}
        self.returns = returns
        self.running = running
        self.dead = dead
        self.reads = 0
        self.inquiries: list[list[str]] = []
        """The nodes of each ``saltutil.find_job``."""
        self.jobs: list[tuple[list[str], str, Any]] = []
        """Nodes, function and arguments of each other job."""

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run_job(self, nodes: list[str], function: str, arg: Sequence[Any] = (), *, tgt_type: str) -> dict[str, Any]:
        """Record the job and return it, as Salt does."""
        assert tgt_type == "list"
        if function == "saltutil.find_job":
            assert arg == (JOB,)
            self.inquiries.append(nodes)
            return {"jid": FIND_JOB, "minions": nodes}
        self.jobs.append((nodes, function, arg))
        return {"jid": JOB, "minions": nodes}

    def get_cache_returns(self, jid: str) -> dict[str, Any]:
        """The returns that have arrived so far."""
        if jid == FIND_JOB:
            answering = (node for node in self.inquiries[-1] if node not in self.dead)
            return {node: {"ret": {"jid": JOB} if node in self.running else {}} for node in answering}
        self.reads += 1
        return dict(self.returns[: self.reads])


class TimedClient(FakeClient):
    """A local client whose nodes return *after* so many seconds of *clock* since the job; others never do."""

    def __init__(self, clock: list[float], after: dict[str, float], running: Collection[str] = ()) -> None:
        super().__init__(running=running)
        self.clock = clock
        self.after = after
        self.began = 0.0

    def run_job(self, nodes: list[str], function: str, arg: Sequence[Any] = (), *, tgt_type: str) -> dict[str, Any]:
        """As above."""
        if function != "saltutil.find_job":
            self.began = self.clock[0]
        return super().run_job(nodes, function, arg, tgt_type=tgt_type)

    def get_cache_returns(self, jid: str) -> dict[str, Any]:
        """As above."""
        if jid == FIND_JOB:
            return super().get_cache_returns(jid)
        passed = self.clock[0] - self.began
        return {node: {"ret": {}} for node, after in self.after.items() if after <= passed}
