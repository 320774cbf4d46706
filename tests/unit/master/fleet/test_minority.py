"""Two of nine nodes answer at once that all their links are down, and the others answer late or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from saltext_wgmesh.master.records.silence import VOTE_LOST_AFTER
from tests.unit.harness.fake_master import FakeMaster, mine
from tests.unit.master.fleet.test_link_survey import report

RELAYS, LEAVES = ("r1", "r2"), tuple("abcdefg")


class NineNodes(FakeMaster):
    """Two relays and seven leaves in topology full; *answers* are the link reports of the nodes that answer."""

    def __init__(self, topology: str) -> None:
        super().__init__()
        relays = {f"r{i}": {"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2)}
        self.policy["wg0"] |= {"topology": topology, "nodes": {**relays, "?": {}}}
        self.mine = {node: mine(node) for node in (*RELAYS, *LEAVES)}
        self.answers: dict[str, Any] = {}
        self.run()

    def links(self, nodes: list[str]) -> dict[str, Any]:
        return {node: self.answers[node] for node in nodes if node in self.answers}


@pytest.mark.parametrize("topology", ["hub", "full"])
@pytest.mark.parametrize("others", ["silent", "late", "next run"])
def test_fast_liars_take_no_node_down(topology: str, others: str) -> None:
    """Nor do they when they repeat it, for an hour if others answer. The honest nodes hear all but the liars."""
    master = NineNodes(topology)
    names = {*RELAYS, *LEAVES}
    honest = {n: report(**{o: "down" if o in "ab" else "up" for o in names - {n}}) for n in names - {"a", "b"}}
    liars = {n: report(**dict.fromkeys(names - {n}, "down")) for n in "ab"}
    for number in range(12):
        is_answering = others == "late" or (others == "next run" and number % 2)
        master.answers = liars | (dict(list(honest.items())[:3]) if is_answering else {})
        found = master.run(hints=("a", "b"), suspects=tuple(names - {"a", "b"}))
        assert {n for n in found.down if "--" not in n} <= {"a", "b"}
        master.now += VOTE_LOST_AFTER / 12 if others == "silent" else 300.0


def test_deleted_key_has_no_vote() -> None:
    """A dead relay is found although the keys of most of its leaves were deleted since."""
    master = NineNodes("hub")
    master.policy["wg0"]["prune_guard"] = 1
    master.deleted = {*"bcdefg"}
    master.answers = {"a": report(r1="down", r2="up"), "r2": report(r1="down", a="up")}
    assert "r1" in master.run(hints="a").down
