"""A site that dies whole is declared down after some time, and witnesses that are merely slow keep their votes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.master.fleet.jobs import JobResult
from saltext_wgmesh.master.records.silence import VOTE_LOST_AFTER, VOTE_LOST_RUNS
from tests.unit.harness.fake_master import FakeFleet
from tests.unit.master.fleet.test_link_survey import report
from tests.unit.master.fleet.test_minority import LEAVES, RELAYS, NineNodes

NODES = (*RELAYS, *LEAVES)
WAIT = 0.5
"""Seconds for which a run waits for answers here."""
EVERY = 60.0
"""Seconds between two scheduled runs."""


class _Fleet(FakeFleet):
    """Nodes that answer questions late are heard by a later run."""

    def late_returns(self, unanswered: Mapping[str, str]) -> JobResult:
        master = self._master
        slow = {n: float(job) + master.delays.get(n, 0.0) for n, job in unanswered.items() if n in master.answers}
        return JobResult(returned={n: master.answers[n] for n, at in slow.items() if at <= master.now})


class SlowNodes(NineNodes):
    """*delays* are the seconds that nodes take to answer a question; others answer at once."""

    def __init__(self, topology: str) -> None:
        self.delays: dict[str, float] = {}
        super().__init__(topology)
        self.env = replace(self.env, fleet=_Fleet(self))

    def links(self, nodes: list[str]) -> dict[str, Any]:
        self.question = str(self.now)
        return {n: a for n, a in super().links(nodes).items() if self.delays.get(n, 0.0) <= WAIT}

    def down_nodes(self) -> frozenset[str]:
        return self.ledger.health("wg0").down_nodes


def answer(dead: set[str], node: str, topology: str) -> dict[str, Any]:
    others = [n for n in NODES if n != node and (topology == "full" or n in RELAYS or node in RELAYS)]
    return report(**{n: "down" if n in dead else "up" for n in others})


@settings(max_examples=8, deadline=None)
@given(
    topology=st.sampled_from(["hub", "full"]),
    delays=st.fixed_dictionaries({n: st.floats(0, VOTE_LOST_AFTER - 1) for n in NODES}),
    fast=st.floats(0, 100),
    pauses=st.lists(st.floats(0.5, 300), min_size=3, max_size=12),
)
def test_slow_witness_keeps_its_vote(topology: str, delays: dict[str, float], fast: float, pauses: list[float]) -> None:
    """Two liars, at any speed, take no honest node down, though each honest node answers as late as it likes."""
    master = SlowNodes(topology)
    honest = {*NODES} - {"a", "b"}
    master.delays = delays | {"a": fast, "b": fast}
    master.answers = {n: answer({"a", "b"}, n, topology) for n in honest}
    master.answers |= {n: answer({*NODES}, n, topology) for n in "ab"}
    for pause in pauses:
        master.run(hints=("a", "b"), suspects=tuple(honest))
        assert master.down_nodes() <= {"a", "b"}
        master.now += pause


@pytest.mark.parametrize("topology", ["hub", "full"])
@pytest.mark.parametrize("dead", [{"r1", *"g"}, {"r1", *"defg"}, {"r1", *"cdefg"}, {*"bcdefg"}], ids=len)
def test_dead_site_is_down_within_bound(topology: str, dead: set[str]) -> None:
    """After the first report only the schedule starts runs."""
    master = SlowNodes(topology)
    master.answers = {n: answer(dead, n, topology) for n in {*NODES} - dead}
    master.off = dead
    master.run(hints=("a",), suspects=tuple(dead))
    began = master.now
    while master.now - began <= max(VOTE_LOST_AFTER, VOTE_LOST_RUNS * EVERY) and not dead <= master.down_nodes():
        master.now += EVERY
        master.run_all(interactive=False)
    assert master.down_nodes() == dead
    assert master.now - began <= VOTE_LOST_AFTER + EVERY


def test_silent_node_has_its_vote_again() -> None:
    """It answers once, and the same two liars decide nothing again."""
    master = SlowNodes("full")
    master.answers = {n: answer({*NODES}, n, "full") for n in "ab"}
    for _ in range(VOTE_LOST_RUNS):
        master.run(hints=("a", "b"), suspects=NODES)
        assert master.down_nodes() <= {"a", "b"}
        master.now += VOTE_LOST_AFTER / 4
    master.answers |= {n: answer({"a", "b"}, n, "full") for n in ("r1", "r2", "c", "d", "e")}
    master.run(hints=("a", "b"), suspects=NODES)
    assert master.ledger.ack("r1").silence is None
    master.now += 10 * VOTE_LOST_AFTER
    master.answers = {n: master.answers[n] for n in "ab"}
    master.run(hints=("a", "b"), suspects=NODES)
    assert "c" not in master.down_nodes()
