"""A master of a small mesh, one of whose relays goes down and comes up."""

from __future__ import annotations

from typing import Any

from saltext_wgmesh.core.liveness.link_report import LinkState
from tests.unit.harness.fake_master import FakeMaster, link_reports, mine

NOW = 1.7e9
"""When the master starts, in seconds since the epoch."""


class TwoRelays(FakeMaster):
    """A mesh of two relays and two leaves, which report r1 as down or up."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.policy["wg0"]["nodes"]["r2"] = {"role": "relay", "endpoint": "203.0.113.2"}
        self.mine["r2"] = mine("r2")
        self.state = LinkState.UP

    def links(self, nodes: list[str]) -> dict[str, Any]:
        up = {"r2": ("wg0-u2", LinkState.UP), "r1": ("wg0-u1", self.state)}
        return {n: link_reports({r: link for r, link in up.items() if r != n}) for n in nodes if n not in self.off}
