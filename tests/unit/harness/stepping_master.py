"""A master of three relays and two leaves, for transitions in steps."""

from __future__ import annotations

from typing import Any

from saltext_wgmesh.core.liveness.link_report import LinkState
from tests.unit.harness.fake_master import FakeMaster, link_reports, mine

RELAYS = {r: {"role": "relay", "endpoint": f"203.0.113.{i}"} for i, r in enumerate(("r1", "r2", "r3"), start=1)}


class SteppingMaster(FakeMaster):
    """Two leaves of a site that has the relays r1 and r2; r3 stands elsewhere. Nothing is published yet."""

    def __init__(self, **opts: Any) -> None:
        super().__init__(**opts)
        self.policy = {
            "wg0": {
                "network": "10.0.0.0/16",
                "topology": "hub",
                "sites": {"s": {"relays": ["r1", "r2"]}},
                "nodes": {**RELAYS, "a": {"site": "s"}, "b": {"site": "s"}},
            }
        }
        self.mine = {node: mine(node) for node in (*RELAYS, "a", "b")}
        self.unheard: set[frozenset[str]] = set()
        """Links that are not up yet."""
        self.holding_down: set[frozenset[str]] = set()
        """Links that carry packets again and are down still, for their hold-down time."""
        self.dead: set[frozenset[str]] = set()

    def links(self, nodes: list[str]) -> dict[str, Any]:
        return {node: self._report(node) for node in nodes if node not in self.off and node in self.plan().views}

    def _report(self, node: str) -> dict[str, Any]:
        def state(other: str) -> LinkState:
            pair = frozenset({node, other})
            if pair in self.unheard:
                return LinkState.NEW
            return LinkState.DOWN if pair in self.holding_down | self.dead else LinkState.UP

        view = self.plan().views[node]
        links = {p.node: (i.name, state(p.node)) for i in view.interfaces for p in i.peers}
        carrying = {other for pair in self.holding_down if node in pair for other in pair - {node}}
        return link_reports(links, carrying=carrying)

    def uplinks(self, leaf: str) -> int:
        """How many *leaf* has."""
        return len(self.plan().views[leaf].interfaces) - 1


def run_to_end(fleet: SteppingMaster) -> list[int]:
    """Runs until nothing goes on; the uplinks of *a* after each."""
    seen = []
    for _ in range(8):
        report = fleet.run()
        seen.append(fleet.uplinks("a"))
        if not report.has_follow_up:
            return seen
    raise AssertionError("it never ends")
