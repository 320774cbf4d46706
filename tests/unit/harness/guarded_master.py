"""A master of two relays and five leaves that run generation 1."""

from __future__ import annotations

from typing import Any

from saltext_wgmesh.core.liveness.link_report import LinkState
from tests.unit.harness.fake_master import FakeMaster, link_reports, mine

LEAVES = ("a", "b", "c", "d", "e")
ALL = {"r1", "r2", *LEAVES}


class GuardedMaster(FakeMaster):
    """Every node reports that its links are up, but those of the *unheard*."""

    def __init__(self, **opts: Any) -> None:
        super().__init__(**opts)
        self.unheard: set[str] = set()
        """Nodes that no other node hears, and that hear no other."""
        nodes = self.policy["wg0"]["nodes"]
        nodes["r2"] = {"role": "relay", "endpoint": "203.0.113.2"}
        nodes |= {leaf: {} for leaf in LEAVES}
        self.mine = {node: mine(node) for node in nodes}
        self.run_all()
        self.pushes.clear()

    def links(self, nodes: list[str]) -> dict[str, Any]:
        return {node: self._report(node) for node in nodes}

    def _report(self, node: str) -> dict[str, Any]:
        def state(other: str) -> LinkState:
            return LinkState.DOWN if self.unheard & {node, other} else LinkState.UP

        return link_reports({other: ("wg0", state(other)) for other in self.peers(node)})

    def drop(self, *nodes: str) -> None:
        """The policy has no rule for *nodes* any more."""
        for node in nodes:
            del self.policy["wg0"]["nodes"][node]
