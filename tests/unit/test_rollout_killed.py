"""The master dies at each write and each push of a rollout in turn; whoever looks next brings it to its end."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from saltext_wgmesh.core import verify
from saltext_wgmesh.master import fleet, record
from tests.unit.test_ledger import Cut
from tests.unit.test_steps import Fleet

MOST = 400
"""Writes and pushes of one rollout, at most."""


class Mortal(Fleet):
    """A master that dies at its write number *cut*, or at the push number *last*; nodes apply what they are told of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.converge()
        self.last: int | None = None
        whole = fleet.apply

        def push(opts: dict[str, Any], nodes: list[str], unlikely: Any, **how: Any) -> fleet.Answers:
            if self.last is not None:
                self.last -= 1
                if self.last < 0:
                    raise Cut
            return whole(opts, nodes, unlikely, **how)

        monkeypatch.setattr(fleet, "apply", push)

    def dies(self, *, write: int | None = None, push: int | None = None) -> bool:
        """Whether the master dies in a rollout of another policy, at that write or push."""
        self.ledger._cache.cut, self.last = write, push  # type: ignore[attr-defined]
        try:
            self.ask(drain="r1")
            for _ in range(8):
                self.converge()
        except Cut:
            return True
        finally:
            self.ledger._cache.cut = self.last = None  # type: ignore[attr-defined]
        return False

    def ends(self) -> dict[str, Any]:
        """What is published once nothing is left to do: every generation holds its proof, every node runs the last."""
        for _ in range(10):
            report = self.ask(drain="r1")
            assert not verify.check(record.published(self.ledger, "wg0").plan)
        assert (report.not_acknowledged, report.waiting, report.eventful) == ([], [], False)
        return {n: v.as_dict() for n, v in record.published(self.ledger, "wg0").plan.views.items()}


def changed(monkeypatch: pytest.MonkeyPatch) -> Mortal:
    """A mesh of which a relay is to be drained while all nodes get another port."""
    made = Mortal(monkeypatch)
    made.policy = copy.deepcopy(made.policy)
    made.policy["wg0"]["listen_port"] = 7000
    return made


@pytest.mark.parametrize("where", ["write", "push"])
def test_a_master_that_dies_anywhere_leaves_a_rollout_that_goes_on(monkeypatch, where):
    """At each step in turn; the end is the one of a rollout that nothing interrupted."""
    undisturbed = changed(monkeypatch)
    assert not undisturbed.dies()
    wanted = undisturbed.ends()
    for step in range(MOST):
        mesh = changed(monkeypatch)
        if not mesh.dies(**{where: step}):
            break
        assert mesh.ends() == wanted, step
    assert 3 < step < MOST
