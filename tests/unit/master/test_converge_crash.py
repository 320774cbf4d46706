"""The master dies at each write and each push of a transition in turn; the next run completes it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from saltext_wgmesh.core.proof import prove
from saltext_wgmesh.master.fleet.jobs import JobResult
from tests.unit.harness.memory_cache import Cut
from tests.unit.harness.stepping_master import SteppingMaster

MAX_STEPS = 400
"""Writes and pushes of one transition, at most."""


class MortalMaster(SteppingMaster):
    """A master that dies at its write number *cut*, or at the push number *last*."""

    def __init__(self) -> None:
        super().__init__()
        self.last: int | None = None
        self.run()

    def push(self, nodes: list[str]) -> JobResult:
        if self.last is not None:
            self.last -= 1
            if self.last < 0:
                raise Cut
        return super().push(nodes)

    def dies(self, *, write: int | None = None, push: int | None = None) -> bool:
        """Whether the master dies in a transition to another policy, at that write or push."""
        self.cache.cut, self.last = write, push
        try:
            self.run(drain="r1")
            for _ in range(8):
                self.run()
        except Cut:
            return True
        finally:
            self.cache.cut = self.last = None
        return False

    def ends(self) -> dict[str, Any]:
        """What is published once nothing is left to do: every generation holds its proof, every node runs the last."""
        for _ in range(10):
            report = self.run(drain="r1")
            assert not prove.prove(self.plan())
        assert (report.not_acknowledged, report.transition_waits_for, report.made_changes) == ((), (), False)
        return {n: v.as_dict() for n, v in self.plan().views.items()}


def changed() -> MortalMaster:
    """A mesh of which a relay is to be drained while all nodes get another port."""
    made = MortalMaster()
    made.policy = copy.deepcopy(made.policy)
    made.policy["wg0"]["listen_port"] = 7000
    return made


@pytest.mark.parametrize("where", ["write", "push"])
def test_master_that_dies_anywhere_is_continued(where):
    """At each step in turn; the end is the one of a transition that nothing interrupted."""
    undisturbed = changed()
    assert not undisturbed.dies()
    wanted = undisturbed.ends()
    for step in range(MAX_STEPS):
        mesh = changed()
        if not mesh.dies(**{where: step}):
            break
        assert mesh.ends() == wanted, step
    assert 3 < step < MAX_STEPS
