"""The master's clock may be wrong for any time: once it is right, a mesh settles within its usual time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness import mesh_health
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.master.records.acknowledgement import MAX_RETRY_AFTER, Ack
from saltext_wgmesh.master.requests.rate_limit import BURST, BURST_WINDOW, MAX_DELAY, RateLimit
from tests.unit.harness.two_relays import NOW, TwoRelays

JUMPS = st.sampled_from([-1e9, -86_400.0, 86_400.0, 1e9])
STEPS = st.lists(st.sampled_from(["relay down", "relay up", "leaf off", "leaf on", "change"]), min_size=1, max_size=3)
USUAL = mesh_health.HOLD_DOWN_CEILING + mesh_health.WAIT_TO_RESTORE + MAX_RETRY_AFTER


class Master(TwoRelays):
    """The same mesh, and what happens to it."""

    def take(self, step: str) -> None:
        """One step of the operator or of a node, and a run."""
        self.state = {"relay down": LinkState.DOWN, "relay up": LinkState.UP}.get(step, self.state)
        self.off = {"leaf off": {"a"}, "leaf on": set()}.get(step, self.off)
        if step == "change":
            self.policy["wg0"]["mtu"] = 1400 if self.policy["wg0"].get("mtu") != 1400 else 1380
        self.run()
        self.now += 60.0


@settings(max_examples=15, deadline=None)
@given(before=STEPS, within=STEPS, jump=JUMPS)
def test_mesh_settles_after_clock_is_right(before: list[str], within: list[str], jump: float) -> None:
    """No outage and no pending push is left after the usual time, whichever steps happened with the wrong clock."""
    master = Master()
    for step in before:
        master.take(step)
    master.now += jump
    for step in within:
        master.take(step)
    master.now -= jump
    master.state, master.off = LinkState.UP, set()
    for _ in range(4):
        master.run_all(interactive=False, hints={"a"})
        master.now += USUAL / 3
    head, health = master.ledger.head("wg0"), master.ledger.health("wg0")
    assert (dict(health.nodes), dict(health.links), health.down_nodes) == ({}, {}, frozenset())
    acks = master.ledger.acks(head.digests)
    assert {node: acks[node].digests.get("wg0") for node in head.digests} == dict(head.digests)
    assert head.published_at <= master.now


@given(jump=JUMPS | st.just(0.0), tries=st.integers(1, 8))
def test_push_is_repeated_in_usual_time(jump: float, tries: int) -> None:
    """A push that was left unanswered while the clock was wrong is repeated once it is right."""
    ack, wanted = Ack(), {"wg0": "1"}
    for _ in range(tries):
        ack = ack.after(None, wanted, NOW + jump)
    assert ack.is_due(wanted, NOW + MAX_RETRY_AFTER)
    assert jump == 0.0 or ack.is_due(wanted, NOW)


@given(jump=JUMPS, made_changes=st.booleans())
def test_runs_are_limited_as_usual(jump: float, made_changes: bool) -> None:
    """Runs that began while the clock was wrong delay none after it, and a jump within a run makes no long pause."""
    limit = RateLimit()
    for second in range(BURST + 1):
        limit = limit.run_began(NOW + jump + second).run_ended(NOW + second, made_changes=made_changes)
        limit = limit.run_began(NOW + second).run_ended(NOW + jump + second, made_changes=made_changes)
    assert limit.delay(NOW + BURST + MAX_DELAY) <= BURST_WINDOW
    for second in range(BURST):
        limit = limit.run_began(NOW + 100 + second).run_ended(NOW + 100 + second, made_changes=made_changes)
    assert 0 < limit.delay(NOW + 100 + BURST - 1) <= BURST_WINDOW
