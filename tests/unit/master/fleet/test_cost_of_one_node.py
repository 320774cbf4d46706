"""In any hour one node costs all runs a limited time, and others a limited number of applies."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest

from saltext_wgmesh.master.fleet.jobs import JobResult, Urgent, nothing_urgent
from saltext_wgmesh.master.records.conduct import AWAITED_SECONDS
from tests.unit.harness.fake_master import FakeFleet, FakeMaster, mine
from tests.unit.master.fleet.test_link_survey import report

WAIT = 60.0
"""Seconds that a run waits for a node that says that it is still applying."""


class _Fleet(FakeFleet):
    """A fleet of whose nodes the villain is always still applying."""

    def apply(
        self,
        nodes: Sequence[str],
        not_awaited: Collection[str],
        *,
        retry_rolled_back: bool,
        impatient_of: Collection[str] = (),
        is_urgent: Urgent = nothing_urgent,
    ) -> JobResult:
        result = super().apply(nodes, not_awaited, retry_rolled_back=retry_rolled_back, impatient_of=impatient_of)
        slow = self._master.off & set(nodes) - set(impatient_of)
        self._master.waited += WAIT * bool(slow)
        return JobResult(returned=result.returned, unanswered=result.unanswered, waited=dict.fromkeys(slow, WAIT))


class CountingMaster(FakeMaster):
    """Two relays and leaves; all answer that their links are up."""

    def __init__(self) -> None:
        super().__init__()
        relays = {f"r{i}": {"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2)}
        self.policy["wg0"]["nodes"] = {**relays, "*": {}}
        self.mine = {node: mine(node) for node in (*relays, "a", "b", "c")}
        self.env = replace(self.env, fleet=_Fleet(self))
        self.waited = 0.0
        self.changed: set[str] = set()
        """Nodes that say of each apply that it changed something."""

    def applied(self, node: str) -> Any:
        found = super().applied(node)
        return {mesh: {**part, "changed": node in self.changed} for mesh, part in found.items()}

    def links(self, nodes: list[str]) -> dict[str, Any]:
        up = {n: report(**dict.fromkeys(self.mine, "up")) for n in nodes if n not in self.off}
        return up | {n: report() for n in nodes if n in self.off}

    def hour(self, act: Any, **words: Any) -> Counter[str]:
        """A run each minute for an hour, each after *act* with its number; node → pushes to it."""
        self.pushes.clear()
        for number in range(60):
            act(number)
            self.run_all(interactive=False, **words)
            self.now += 60.0
        return Counter(node for nodes in self.pushes for node in nodes)


@pytest.fixture
def master() -> CountingMaster:
    found = CountingMaster()
    found.run()
    return found


def key(number: int) -> str:
    return base64.b64encode(hashlib.sha256(str(number).encode()).digest()).decode()


FACTS = {
    "next key": lambda number: {"next_key": key(number)},
    "underlay": lambda number: {"underlay": [f"192.0.2.{number % 250 + 1}"]},
    "key": lambda number: {"public_key": key(number)},
    "in turn": lambda number: {"next_key": key(0)} if number % 2 else {},
}


@pytest.mark.parametrize("change", FACTS.values(), ids=FACTS)
def test_changing_facts_push_others_seldom(master: CountingMaster, change: Any) -> None:
    """A node that publishes other facts before each run costs a bounded number of generations and applies."""
    before = master.ledger.head("wg0").generation

    def act(number: int) -> None:
        master.mine["a"] = mine("a", **change(number))

    pushes = master.hour(act)
    assert master.ledger.head("wg0").generation - before <= 25
    assert max(pushes[node] for node in ("r1", "r2", "b", "c")) <= 25
    assert "a" in master.members()


def test_forged_drift_pushes_others_seldom(master: CountingMaster) -> None:
    """An event that names a node costs it an apply, which changes nothing there: the next one waits longer."""
    pushes = master.hour(lambda _: None, drifted=("r1", "r2", "a", "b", "c"))
    assert max(pushes.values()) <= 15


def test_real_drift_is_repaired_at_once(master: CountingMaster) -> None:
    """A node that says that there was something to change is believed, also after forged events."""
    for _ in range(5):
        master.run(drifted="b")
        master.now += 700.0
    master.changed = {"b"}
    master.run(drifted="b")
    master.pushes.clear()
    master.now += 11.0
    master.run(drifted="b")
    assert master.pushes == [["b"]]


@pytest.mark.parametrize("restless", [False, True], ids=["same facts", "other facts"])
def test_node_still_applying_holds_up_runs_limited_time(master: CountingMaster, restless: bool) -> None:
    """It never returns, and says at each question that it is at it; and it answers for its links."""
    master.off = {"a"}
    master.policy["wg0"]["mtu"] = 1400

    def act(number: int) -> None:
        if restless:
            master.mine["a"] = mine("a", next_key=key(number))

    master.hour(act, hints=("a",), started=("a",), drifted=("a",))
    assert master.waited <= 6 * WAIT


@pytest.mark.parametrize("minutes", [2, 5])
def test_revocation_waits_for_no_hanging_node(master: CountingMaster, minutes: int) -> None:
    """A node that has kept a run waiting is in a pause, and a key is deleted: others are told without a wait."""
    master.policy["wg0"] |= {"prune_guard": 1, "mtu": 1400}
    master.off = {"a"}
    words = {"hints": ("a",), "started": ("a",), "drifted": ("a",)}
    for _ in range(minutes):
        master.run_all(interactive=False, **words)
        master.now += 60.0
    assert master.ledger.ack("a").conduct.awaited.is_spent(AWAITED_SECONDS, master.now)
    master.waited, master.deleted = 0.0, {"b"}
    master.run_all(interactive=False, **words)
    assert master.waited == 0.0
    for relay in ("r1", "r2"):
        assert "b" not in master.peers(relay)
        assert master.ledger.ack(relay).digests["wg0"] == master.ledger.head("wg0").digests[relay]


def test_forged_start_has_formula_applied_seldom(master: CountingMaster) -> None:
    """The event names a node that has a place in the mesh and no facts."""
    accepted = master.inventory().accepted | {"new": "key of new"}
    original = master.inventory
    master.inventory = lambda: original().__class__(  # type: ignore[method-assign]
        policy=original().policy, accepted=accepted, mine=original().mine
    )
    master.hour(lambda _: None, started=("new",))
    assert 1 <= len(master.enrolled) <= 10
