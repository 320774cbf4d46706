"""A clock that was wrong costs nothing once it is right again: outages, rotations and laggards go on as usual."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.keys import rotation
from saltext_wgmesh.core.keys.psk_rollover import FleetState, PskRollover, advance_epoch, begin_epoch
from saltext_wgmesh.core.liveness import mesh_health
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.liveness.mesh_health import Health

JUMPS = st.sampled_from([-1e9, -86_400.0, -100.0, 0.0, 100.0, 86_400.0, 1e9])
NOW = 1.7e9
NEIGHBOURS = {"r1": frozenset({"a", "b"}), "a": frozenset({"r1"}), "b": frozenset({"r1"})}
PERIOD = 30 * 86_400
FLEET = frozenset({"a", "b"})


def reports(state: LinkState) -> dict[str, dict[str, LinkState]]:
    return {"a": {"r1": state}, "b": {"r1": state}, "r1": {"a": LinkState.UP, "b": LinkState.UP}}


@given(states=st.lists(st.tuples(st.sampled_from([LinkState.UP, LinkState.DOWN]), JUMPS), max_size=6))
def test_outage_ends_in_usual_time(states: list[tuple[LinkState, float]]) -> None:
    """A relay that is up is used again after its hold-down time and wait-to-restore, whatever the clock was before."""
    health, now = Health(), NOW
    for state, jump in states:
        now += 60.0
        health = mesh_health.update(health, NEIGHBOURS, reports(state), NEIGHBOURS, now + jump)
    longest = mesh_health.HOLD_DOWN_CEILING + mesh_health.WAIT_TO_RESTORE
    for second in (0.0, mesh_health.HOLD_DOWN_CEILING, longest):
        health = mesh_health.update(health, NEIGHBOURS, reports(LinkState.UP), NEIGHBOURS, now + second)
    assert health == Health()


@given(jump=JUMPS)
def test_rotation_goes_on_in_usual_time(jump: float) -> None:
    """Requests are sent again, activations time out and back-offs end, whatever the clock was when they were noted."""
    then = NOW + jump
    noted = rotation.Rotation(
        requested={"a": then},
        activated={"b": then},
        backed_off_until={"c": then + rotation.ACTIVATION_BACKOFF},
        period=PERIOD,
        checked_at=then,
    )
    seen = rotation.request_due(noted, (), PERIOD, NOW)
    assert NOW - seen.requested["a"] >= 0
    assert NOW - seen.activated["b"] >= 0
    assert seen.backed_off_until["c"] <= NOW + rotation.ACTIVATION_BACKOFF
    assert rotation.to_notify(seen, frozenset(), NOW + rotation.NOTIFY_INTERVAL) == ("a",)
    due = rotation.request_due(seen, ["a", "b", "c", "d"], PERIOD, NOW + PERIOD)
    assert set(due.requested) == {"a", "b", "c", "d"}


@given(jumps=st.tuples(JUMPS, JUMPS))
def test_laggard_is_notified_in_usual_time(jumps: tuple[float, float]) -> None:
    """A node that did not acknowledge an epoch is notified again once the clock is right and it can be reached."""

    def fleet(now: float) -> FleetState:
        return FleetState(
            members=FLEET,
            published=FLEET,
            acknowledged=FLEET,
            pending=frozenset(),
            unreachable=frozenset(),
            now=now,
        )

    started = begin_epoch(PskRollover(), "secret", fleet(NOW + jumps[0]))
    lagging = PskRollover(
        epochs=started.epochs,
        laggards={
            n: laggard.__class__(epoch=0, notified=False, since=NOW + jumps[1])
            for n, laggard in started.laggards.items()
        },
    )
    after = advance_epoch(lagging, fleet(NOW + 600.0))
    assert all(laggard.notified for laggard in after.laggards.values())
