"""One node answers pushes as it likes: others are told all that they must know, and the rest after a limited time."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.master.records.acknowledgement import HOLD_LIMIT, MAX_RETRY_AFTER
from tests.unit.harness.fake_master import FakeMaster, mine
from tests.unit.harness.hostile import nested

REFUSAL = {"error": "it broke", "rolled_back": True}
ANSWERS = st.sampled_from(
    [
        None,
        "applied",
        {"wg0": {**REFUSAL, "digest": None}},
        {"wg0": {"error": "no disk"}},
        {"wg0": {"digest": "d" * 100_000}},
        {"wg0": {"error": nested(960), "rolled_back": True}},
        nested(960),
        {},
        "x" * 100_000,
        {1: 2, "wg0": {2: 3}},
    ]
)
DISTURBING = st.sampled_from(["port", "nothing"])


class HostileMaster(FakeMaster):
    """Three relays and four leaves, of which *villain* answers by *answer* and publishes facts by *serial*."""

    def __init__(self, villain: str) -> None:
        super().__init__()
        relays = {f"r{i}": {"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2, 3)}
        self.policy["wg0"]["nodes"] = {**relays, "?": {}}
        self.mine = {node: mine(node) for node in (*relays, "a", "b", "c", "d")}
        self.villain = villain
        self.answer: Any = "applied"

    def applied(self, node: str) -> Any:
        """The villain's answer is its own."""
        return super().applied(node) if node != self.villain or self.answer == "applied" else self.answer

    def links(self, nodes: list[str]) -> dict[str, Any]:
        """All nodes answer, and report nothing."""
        return {node: {} for node in nodes if node not in self.off}

    def act(self, answer: Any, serial: int | None) -> None:
        """One move of the villain."""
        self.off = {self.villain} if answer is None else set()
        self.answer = answer
        if serial is not None:
            key = base64.b64encode(hashlib.sha256(f"{serial}".encode()).digest()).decode()
            self.mine[self.villain] = mine(self.villain, next_key=key)

    def behind(self) -> set[str]:
        """The nodes but the villain that do not run what is published."""
        digests = self.ledger.head("wg0").digests
        acks = self.ledger.acks(digests)
        return {n for n, digest in digests.items() if acks[n].digests.get("wg0") != digest} - {self.villain}

    def admitting(self, gone: str) -> set[str]:
        """The nodes but the villain whose acknowledged view has *gone* as a peer."""
        acks = self.ledger.acks(self.ledger.head("wg0").digests)
        views = {n: self.ledger.view_with_digest(n, "wg0", ack.digests.get("wg0")) for n, ack in acks.items()}
        peers = {n: {p.node for i in view.interfaces for p in i.peers} for n, view in views.items() if view}
        return {node for node, names in peers.items() if gone in names} - {self.villain}


@settings(max_examples=12, deadline=None)
@given(
    villain=st.sampled_from(["r1", "r2", "a"]),
    moves=st.lists(st.tuples(ANSWERS, st.none() | st.integers(1, 3), st.booleans()), min_size=1, max_size=4),
)
def test_revocation_goes_out_in_next_run(villain: str, moves: list[tuple[Any, int | None, bool]]) -> None:
    """No other node admits a deleted node after one run, whichever changes the villain holds back at that time."""
    master = HostileMaster(villain)
    master.run()
    for answer, serial, changes_port in moves:
        master.act(answer, serial)
        if changes_port:
            master.policy["wg0"]["listen_port"] = master.policy["wg0"].get("listen_port", 51820) + 100
        master.run()
        master.now += 60.0
    master.deleted = {"d"}
    master.run()
    assert master.admitting("d") == set()


@settings(max_examples=12, deadline=None)
@given(
    villain=st.sampled_from(["r1", "r2", "a"]),
    moves=st.lists(st.tuples(ANSWERS, st.none() | st.integers(1, 9)), min_size=3, max_size=6),
)
def test_disturbing_change_is_held_limited_time(villain: str, moves: list[tuple[Any, int | None]]) -> None:
    """All others have it after HOLD_LIMIT, in whichever order the villain refuses, acknowledges and publishes."""
    master = HostileMaster(villain)
    master.run()
    master.policy["wg0"]["mtu"] = 1400
    step = (HOLD_LIMIT + 2 * MAX_RETRY_AFTER) / len(moves)
    for answer, serial in [*moves, moves[-1]]:
        master.act(answer, serial)
        master.run_all(interactive=False)
        master.now += step
    assert master.behind() == set()


@pytest.mark.parametrize("villain", ["r1", "a"])
def test_harmless_view_passes_a_refusal(villain: str) -> None:
    """A new leaf is told to all relays, and gets its view, while a port is held back."""
    master = HostileMaster(villain)
    master.run()
    master.answer = {"wg0": {**REFUSAL, "digest": None}}
    master.policy["wg0"]["nodes"]["r2"]["endpoint"] = "203.0.113.22"
    master.policy["wg0"]["listen_port"] = 52000
    master.run()
    master.mine["e"] = mine("e")
    assert "e" in master.run().applied
