"""A node that answers late costs all runs a limited time, and delays no revocation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import salt.client
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.master.fleet import jobs
from saltext_wgmesh.master.fleet.port import SaltFleet
from saltext_wgmesh.master.records.conduct import ASKED_SECONDS, AWAITED_SECONDS
from saltext_wgmesh.master.records.inventory import Inventory
from tests.unit.harness.fake_master import FakeFleet, FakeMaster, mine
from tests.unit.harness.salt_client import FIND_JOB, TimedClient
from tests.unit.master.fleet.test_link_survey import report

NEVER = 1e9
RELAYS, LEAVES = ("r1", "r2"), ("a", "b", "c", "d")
FAST = 0.3
"""Seconds that a node takes to answer."""
SETTINGS = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
AN_HOUR = settings(SETTINGS, max_examples=2)
DELAYS = st.sampled_from([0.0, 0.49, 1.0, 1.6, 4.9, 7.4, 19.9, NEVER]) | st.floats(0, 80)


class _Client(TimedClient):
    """The minions of a ``LateMaster``."""

    def __init__(self, master: LateMaster) -> None:
        super().__init__([0.0], {}, running=("a",))
        self.master = master

    def run_job(self, nodes: list[str], function: str, arg: Sequence[Any] = (), *, tgt_type: str) -> dict[str, Any]:
        """As above, and the master knows since when a node is told."""
        if function == "wgmesh.apply":
            self.master.told += [(self.master.now, node, "b" in self.master.peers(node)) for node in nodes]
        job = super().run_job(nodes, function, arg, tgt_type=tgt_type)
        if function != "saltutil.find_job":
            self.began, self.asked = self.master.now, nodes
        return job

    def get_cache_returns(self, jid: str) -> dict[str, Any]:
        """The return of each node that has had its time."""
        if jid == FIND_JOB:
            return super().get_cache_returns(jid)
        function, passed = self.jobs[-1][1], self.master.now - self.began
        delays = dict.fromkeys(self.asked, FAST) | {"a": self.master.delays.get(function, FAST)}
        answers = self.master.links if function == "wgmesh.links" else self.master.applies
        return {n: {"ret": answers([n])[n]} for n in self.asked if delays[n] <= passed}


class _Fleet(FakeFleet):
    """Questions and pushes by the real jobs."""

    opts: Mapping[str, Any] = MappingProxyType({})
    links = SaltFleet.links
    apply = SaltFleet.apply


class LateMaster(FakeMaster):
    """Two relays and leaves, of which *a* takes as long as *delays* say for each function."""

    def __init__(self) -> None:
        super().__init__()
        relays = {f"r{i}": {"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2)}
        self.policy["wg0"] |= {"nodes": {**relays, "*": {}}, "prune_guard": 1}
        self.mine = {node: mine(node) for node in (*RELAYS, *LEAVES)}
        self.env = replace(self.env, fleet=_Fleet(self))
        self.delays: dict[str, float] = {}
        self.revoked_at = NEVER
        """When the key of *b* is deleted."""
        self.told: list[tuple[float, str, bool]] = []
        """When a node was told to apply its view, and whether *b* was a peer in that."""
        self.run()

    def inventory(self) -> Inventory:
        self.deleted = {"b"} if self.now >= self.revoked_at else set()
        return super().inventory()

    def forget_facts(self, node: str) -> None:
        pass

    def links(self, nodes: list[str]) -> dict[str, Any]:
        return {n: report(**{m: "up" for m in self.mine if m != n}) for n in nodes}

    def applies(self, nodes: list[str]) -> dict[str, Any]:
        return {n: self.applied(n) for n in nodes}

    def relays_without_b(self) -> float:
        """When the last relay was first told of a view without *b*."""
        first = {node: at for at, node, has_b in reversed(self.told) if not has_b}
        return max(first[node] for node in RELAYS)

    def timed_run(self, **words: Any) -> float:
        """One run in the background; the seconds that it took."""
        began = self.now
        self.run_all(interactive=False, **words)
        return self.now - began


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], LateMaster]]:
    """Makes masters whose time only sleeping moves."""
    current: list[LateMaster] = []

    def sleep(seconds: float) -> None:
        current[-1].now += seconds

    def make() -> LateMaster:
        current.append(LateMaster.__new__(LateMaster))
        current[-1].now = 1_000.0
        client = _Client(current[-1])
        monkeypatch.setattr(salt.client, "get_local_client", lambda **_: client)
        current[-1].__init__()  # type: ignore[misc]
        return current[-1]

    monkeypatch.setattr(jobs.time, "monotonic", lambda: current[-1].now)
    monkeypatch.setattr(jobs.time, "sleep", sleep)
    return make


def hour(master: LateMaster) -> float:
    """The seconds that the runs of an hour took, each with a question to *a* and a push, if it is due."""
    begin, took = master.now, 0.0
    while master.now < begin + 3600.0:
        took += master.timed_run(hints={"a"}, suspects={"c"}, drifted={"a"})
        master.now += 60.0
    return took


@functools.cache
def usual() -> float:
    """The same if all nodes are fast; each run has two questions and a push at most."""
    return 60 * 3 * (FAST + 2 * jobs.JOB_POLL_INTERVAL)


@AN_HOUR
@example(links=7.0, apply=19.9)
@example(links=1.6, apply=NEVER)
@given(links=DELAYS, apply=DELAYS)
def test_late_answers_cost_limited_time(made: Callable[[], LateMaster], links: float, apply: float) -> None:
    """Whenever a node answers: just in time, late or never, and it says that it is at it."""
    master = made()
    master.delays = {"wgmesh.links": links, "wgmesh.apply": apply}
    allowed = 2 * ASKED_SECONDS + 2 * AWAITED_SECONDS + jobs.APPLY_TIMEOUT
    prompt = 60 * 2 * jobs.PRESUMED_DEAD_WAIT + 20 * jobs.apply_wait({}).prompt
    assert hour(master) <= usual() + allowed + prompt


@AN_HOUR
@example(delay=7.0)
@example(delay=1.6)
@given(delay=DELAYS)
def test_late_reports_cost_limited_time(made: Callable[[], LateMaster], delay: float) -> None:
    """A node that is asked in each run, and applies at once."""
    master = made()
    master.delays = {"wgmesh.links": delay}
    assert hour(master) <= usual() + 2 * ASKED_SECONDS + 15.0 + 60 * 2 * jobs.PRESUMED_DEAD_WAIT


@SETTINGS
@example(links=7.0, apply=FAST, minutes=0)
@given(links=DELAYS, apply=DELAYS, minutes=st.integers(0, 3))
def test_run_with_revocation_waits_for_nobody(
    made: Callable[[], LateMaster], links: float, apply: float, minutes: int
) -> None:
    """Others are told at the very beginning of the run, and what it was asked for is done after that."""
    master = made()
    master.delays = {"wgmesh.links": links, "wgmesh.apply": apply}
    words: dict[str, Any] = {"hints": {"a"}, "suspects": {"c"}, "drifted": {"a"}}
    for _ in range(minutes):
        master.timed_run(**words)
        master.now += 60.0
    master.told, master.revoked_at = [], master.now
    began = master.now
    master.timed_run(**words)
    assert master.relays_without_b() - began <= 0.1


@SETTINGS
@example(links=NEVER, apply=FAST, at=0.5)
@example(links=FAST, apply=NEVER, at=3.0)
@given(links=DELAYS, apply=DELAYS, at=st.floats(0, 80))
def test_revocation_cuts_waits_of_run_short(
    made: Callable[[], LateMaster], links: float, apply: float, at: float
) -> None:
    """A key is deleted while a run waits for answers: others are told within a second."""
    master = made()
    master.delays = {"wgmesh.links": links, "wgmesh.apply": apply}
    master.policy["wg0"]["mtu"] = 1400
    master.told, master.revoked_at = [], master.now + at
    while master.now <= master.revoked_at:
        master.timed_run(hints={"a"}, suspects={"c"}, drifted={"a"})
        master.now = max(master.now + 0.1, min(master.now + 5.0, master.revoked_at))
    # The event of the deletion, which was queued during the run.
    master.timed_run()
    assert master.relays_without_b() - master.revoked_at <= 1.0
