"""The link survey of a run: which nodes are asked for their links, and what follows from their reports."""

from __future__ import annotations

from typing import Any

import pytest

from saltext_wgmesh.master.converge import converge
from saltext_wgmesh.master.records.inventory import Inventory
from saltext_wgmesh.master.requests.request import ConvergeRequest
from tests.unit.harness.fake_master import FakeMaster, mine


def report(**links: str) -> dict[str, Any]:
    """What ``wgmesh.links`` returns: neighbour → state."""
    told = {
        n: {"interface": "wg0", "state": state, "since": 1.0, "hold": 0.0, "interval": 100}
        for n, state in links.items()
    }
    return {"wg0": {"schema": 2, "mesh": "wg0", "from_watcher": True, "links": told}}


class SurveyedMaster(FakeMaster):
    """Two relays; each node's report of its links is set by the test, and the questions are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.policy["wg0"]["nodes"] |= {"r2": {"role": "relay", "endpoint": "203.0.113.2"}, "c": {"nat": True}}
        self.policy["wg0"]["nodes"] |= {"a": {"nat": True}, "b": {"nat": True}}
        self.mine |= {node: mine(node) for node in ("r2", "c")}
        self.reports: dict[str, Any] = {}
        self.asked: list[list[str]] = []
        self.run()

    def links(self, nodes: list[str]) -> dict[str, Any]:
        self.asked.append(nodes)
        return {node: self.reports[node] for node in nodes if node in self.reports}

    def relays(self) -> dict[str, tuple[str, ...]]:
        """Leaf → its relays as they are remembered."""
        return dict(self.ledger.head("wg0").allocations.relays)


@pytest.fixture
def master() -> SurveyedMaster:
    return SurveyedMaster()


def test_hint_leads_to_all_neighbours_of_the_suspect(master):
    """The dead relay itself is not asked; its leaves get the other relay as their first."""
    master.reports = {n: report(r1="down", r2="up") for n in "abc"} | {"r2": report(r1="down", a="up", b="up", c="up")}
    found = master.run(hints="a")
    assert master.asked == [["a"], ["b", "c", "r2"]]
    assert found.down == ("r1",)
    assert set(master.relays().values()) == {("r2", "r1")}


def test_named_suspects_are_covered_by_the_first_question(master):
    """The verdict is the same, by one question; suspects without a hint, or unknown ones, cost no question."""
    master.reports = {n: report(r1="down", r2="up") for n in "abc"} | {"r2": report(r1="down", a="up", b="up", c="up")}
    assert not master.run(suspects="r1").made_changes
    assert master.asked == []
    found = master.run(hints="a", suspects="r1")
    assert master.asked == [["a", "b", "c", "r2"]]
    assert found.down == ("r1",)


def test_forged_hint_changes_nothing(master):
    """Whichever node it names: the asked nodes say that all is well. A node without an accepted key is not asked."""
    before = master.relays()
    master.reports = {n: report(r1="up", r2="up") for n in "abc"}
    assert not master.run(hints="a").made_changes
    assert not master.run(hints="nobody").made_changes
    assert master.asked == [["a"]]
    assert master.relays() == before


def test_reports_on_strangers_are_ignored(master):
    """A node's word counts for its neighbours only. Unreadable reports say nothing."""
    master.reports = {
        "a": report(b="down", nobody="down", r1="up"),
        "b": {"wg0": {"schema": 9}},
        "c": "no such function",
    }
    for node in "abc":
        assert master.run(hints=node).down == ()


def test_only_trouble_has_witnesses_asked(master):
    """Until what was down has been up for the hold-down time; then it recovers, and no node is asked any more."""
    master.run()
    assert master.asked == []
    master.reports = {"a": report(r1="down", r2="up")} | {n: report(r1="up", r2="up") for n in "bc"}
    master.reports["r2"] = report(r1="up", a="up", b="up", c="up")
    master.reports["r1"] = report(r2="up", a="up", b="up", c="up")
    assert master.run(hints="a").down == ("a--r1",)
    master.reports["a"] = report(r1="up", r2="up")
    master.asked.clear()
    for second in (10, 20, 60):
        master.now = 1_000.0 + second
        master.run()
    assert master.asked == [["a", "r1"]] * 3
    assert master.run().down == ()
    assert len(master.asked) == 3


def test_unresponsive_node_is_asked_again_later(master):
    """When it starts, or when others are asked. Else a node that was away once could never get another relay."""
    master.reports = {n: report(r1="up", r2="up") for n in "bc"}
    master.run(hints="a")
    assert master.ledger.health("wg0").unresponsive == {"a"}
    master.asked.clear()
    master.run(hints="b")
    master.reports["a"] = report(r1="up", r2="up")
    master.run(started="a")
    assert master.asked == [["a", "b"], ["a"]]
    assert master.ledger.health("wg0").unresponsive == set()


def test_started_node_without_facts_is_enrolled(master):
    """If the policy has a place for it and its key is accepted; not if it has published under this key."""
    master.policy["wg0"]["nodes"]["new*"] = {}
    accepted = {**{n: f"key of {n}" for n in (*master.mine, "new1", "stranger")}}
    original = master.inventory
    master.inventory = lambda: Inventory(policy=original().policy, accepted=accepted, mine=original().mine)
    told = {node: master.run(started=node).enrolling for node in ("new1", "a", "stranger", "unknown")}
    assert told == {"new1": ("new1",), "a": (), "stranger": (), "unknown": ()}
    assert master.enrolled == [["new1"]]
    accepted["a"] = "another key"
    master.run(started="a")
    assert master.enrolled == [["new1"], ["a"]]


def test_rebalance_moves_leaves_back_at_once(master):
    """Without it they stay where they are while the relay recovers."""
    before = master.relays()
    master.reports = {n: report(r1="down", r2="up") for n in "abc"} | {"r2": report(r1="down", a="up", b="up", c="up")}
    master.run(hints="a")
    master.reports = {n: report(r1="up", r2="up") for n in "abc"} | {"r2": report(r1="up", a="up", b="up", c="up")}
    master.run()
    master.now += 31
    assert master.run().down == ()
    assert set(master.relays().values()) == {("r2", "r1")}
    converge(master.env, ConvergeRequest(rebalance=True))
    assert {first for first, _ in master.relays().values()} == {first for first, _ in before.values()}
