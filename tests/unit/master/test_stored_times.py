"""Every time in the master's ledger may be wrong: all goes on within its usual time, neither at once nor never."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.keys import psk_rollover, rotation
from saltext_wgmesh.core.keys.psk_rollover import FleetState, Laggard, PskRollover
from saltext_wgmesh.core.liveness import mesh_health
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.model.stored_time import is_plausible
from saltext_wgmesh.master.fleet.push import DRIFT_RETRY_AFTER
from saltext_wgmesh.master.records import banks
from saltext_wgmesh.master.records.acknowledgement import HOLD_LIMIT, MAX_RETRY_AFTER
from tests.unit.harness.fake_master import FakeMaster
from tests.unit.harness.rotating_master import RotatingMaster
from tests.unit.harness.secret_master import SecretMaster
from tests.unit.harness.two_relays import NOW, TwoRelays

SHIFTS = st.sampled_from([-1e9, 1e9])
TIMES = {"since", "up_since", "published_at", "at", "retry_at", "checked_at"}
"""Keys of the ledger's records whose value is a time."""
TIMES_BY_NODE = {"requested", "activated", "backed_off_until", "open_since"}
BANKS = st.sets(st.sampled_from(banks.ALL), min_size=1) | st.just(set(banks.ALL))


def shifted(raw: Any, by: float) -> Any:
    """*raw* with *by* seconds added to each time in it."""
    if isinstance(raw, dict):
        return {key: _shifted_value(key, value, by) for key, value in raw.items()}
    return [shifted(value, by) for value in raw] if isinstance(raw, (list, tuple)) else raw


def _shifted_value(key: str, value: Any, by: float) -> Any:
    if key in TIMES and isinstance(value, (int, float)):
        return value + by
    if key in TIMES_BY_NODE and isinstance(value, dict):
        return {node: at + by for node, at in value.items()}
    if key == "conduct":
        return {kind: [count, at + by] for kind, (count, at) in value.items()}
    if key == "holds":
        return {mesh: [change, since + by] for mesh, (change, since) in value.items()}
    return shifted(value, by)


def shift(master: FakeMaster, by: float, of: set[str]) -> None:
    """Add *by* to each time in the records of the banks *of*."""
    for bank in of & master.cache.banks.keys():
        master.cache.banks[bank] = {key: shifted(raw, by) for key, raw in master.cache.banks[bank].items()}


class Master(TwoRelays):
    """The same mesh, and what happens to it."""

    def has_settled(self) -> bool:
        """Whether no outage and no push is left."""
        head, health = self.ledger.head("wg0"), self.ledger.health("wg0")
        acks = self.ledger.acks(head.digests)
        return not (health.nodes or health.links) and all(
            acks[node].digests.get("wg0") == digest for node, digest in head.digests.items()
        )


def test_every_time_is_shifted_here() -> None:
    """No record has a number as large as a time that ``shift`` leaves alone."""
    master = Master()
    master.state, master.off = LinkState.DOWN, {"a"}
    master.run()
    master.policy["wg0"]["mtu"] = 1400
    master.run(rotate="b", hints={"b"})
    shift(master, -NOW, set(banks.ALL))
    assert not [number for number in _numbers(master.cache.banks) if number > NOW / 2]


def _numbers(raw: Any) -> list[float]:
    if isinstance(raw, dict):
        return [number for value in raw.values() for number in _numbers(value)]
    if isinstance(raw, (list, tuple)):
        return [number for value in raw for number in _numbers(value)]
    return [raw] if isinstance(raw, (int, float)) else []


@settings(max_examples=20, deadline=None)
@given(by=SHIFTS, of=BANKS, is_down=st.booleans())
def test_health_goes_on_in_usual_time(by: float, of: set[str], is_down: bool) -> None:
    """A relay that is down stays so; one that is up again is used after its usual rest, neither earlier nor later."""
    master = Master()
    master.run()
    master.state = LinkState.DOWN
    master.run(hints={"a"})
    assert master.ledger.health("wg0").down_nodes == {"r1"}
    master.now += 60
    master.state = LinkState.DOWN if is_down else LinkState.UP
    master.run(hints={"a"})
    shift(master, by, of)
    master.run(hints={"a"})
    health = master.ledger.health("wg0")
    assert health.down_nodes | health.recovering == {"r1"}
    assert all(is_plausible(outage.since, master.now) for outage in health.nodes.values())
    master.state = LinkState.UP
    for _ in range(4):
        master.run(hints={"a"})
        master.now += (mesh_health.HOLD_DOWN_CEILING + mesh_health.WAIT_TO_RESTORE) / 2
    assert master.has_settled()


@settings(max_examples=20, deadline=None)
@given(by=SHIFTS, of=BANKS)
def test_pushes_go_on_in_usual_time(by: float, of: set[str]) -> None:
    """A push that was left unanswered is repeated, and one that drifted is told once more."""
    master = Master()
    master.run()
    master.off = {"a"}
    master.policy["wg0"]["mtu"] = 1400
    master.run()
    shift(master, by, of)
    master.off = set()
    master.now += MAX_RETRY_AFTER
    master.run_all(interactive=False)
    assert master.has_settled()
    shift(master, by, of)
    master.now += DRIFT_RETRY_AFTER + 1
    master.run(drifted={"b"})
    assert master.pushes[-1] == ["b"]
    assert is_plausible(master.ledger.head("wg0").published_at, master.now)


@given(by=SHIFTS)
def test_hold_lasts_its_usual_time(by: float) -> None:
    """A node that refused a change neither loses its say at once, nor keeps it for more than HOLD_LIMIT."""
    master = Master()
    master.run()
    ack = master.ledger.ack("a").holding("wg0", "change", NOW)
    master.ledger.save_ack("a", ack)
    shift(master, by, set(banks.ALL))
    found = master.ledger.ack("a")
    assert found.may_hold("wg0", "change", NOW)
    found = found.holding("wg0", "change", NOW)
    assert found.may_hold("wg0", "change", NOW + HOLD_LIMIT - 1)
    assert not found.may_hold("wg0", "change", NOW + HOLD_LIMIT)


@pytest.mark.parametrize("by", [-1e9, 1e9])
@pytest.mark.parametrize("after", range(5))
def test_rotation_goes_on_in_usual_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: float, after: int) -> None:
    """An activated node is given its usual time to switch: the rotation takes no longer than without the shift."""
    nodes = {"r1": {"role": "relay", "endpoint": "203.0.113.1"}, "r2": {"role": "relay", "endpoint": "203.0.113.2"}}
    mesh = RotatingMaster(monkeypatch, tmp_path, {**nodes, "a": {}, "b": {}})
    began = mesh.now
    mesh.rotate("a")
    mesh.settle()
    usual = mesh.now - began
    before = mesh.keys()["a"]
    began = mesh.now
    mesh.rotate("a")
    for _ in range(after):
        mesh.now += 30
        mesh.run()
    shift(mesh, by, set(banks.ALL))
    mesh.settle()
    assert mesh.keys()["a"] != before
    assert mesh.now - began <= usual + rotation.NOTIFY_INTERVAL + 30 * after


@given(by=SHIFTS)
def test_activation_is_not_given_up_early(by: float) -> None:
    """A wrong time of an activation neither withdraws it, nor lets it stand for ever; nor are all nodes due at once."""
    period = 30 * 86_400
    noted = rotation.Rotation(activated={"a": NOW + by}, requested={"b": 0.0}, period=period, checked_at=NOW + by)
    found = rotation.request_due(noted, ["a", "b", "c"], period, NOW)
    assert found.activated == {"a": NOW}
    assert set(found.requested) == {"b"}
    assert rotation.to_notify(found, frozenset(), NOW) == ("b",)


@given(by=SHIFTS)
def test_laggard_gets_its_usual_time(by: float) -> None:
    """A node that was notified of an epoch has its usual time to acknowledge it."""

    def fleet(now: float) -> FleetState:
        some = frozenset({"a"})
        return FleetState(
            members=some, published=some, acknowledged=frozenset(), pending=some, unreachable=frozenset(), now=now
        )

    laggards = {"a": Laggard(epoch=0, notified=True, since=NOW + by)}
    found = psk_rollover.advance_epoch(PskRollover(epochs={0: "", 1: "s"}, laggards=laggards), fleet(NOW))
    assert found.laggards["a"].notified
    late = psk_rollover.advance_epoch(found, fleet(NOW + psk_rollover.EPOCH_TIMEOUT))
    assert not late.laggards["a"].notified


@settings(max_examples=6, deadline=None)
@given(by=SHIFTS, of=BANKS)
def test_psks_go_on_in_usual_time(by: float, of: set[str]) -> None:
    """Preshared keys come and go, and a node that was away follows in time."""
    with tempfile.TemporaryDirectory() as folder:
        master = SecretMaster(Path(folder))
        master.now = NOW
        master.run()
        master.turn(on=True)
        master.off = {"a"}
        master.run()
        shift(master, by, of)
        master.off = set()
        for _ in range(6):
            master.now += 100
            master.run_all(interactive=False)
        assert all(master.psks().values())
        assert not master.ledger.head("wg0").psk_rollover.laggards


@settings(max_examples=10, deadline=None)
@given(by=SHIFTS, of=BANKS)
def test_shift_pins_no_policy(by: float, of: set[str]) -> None:
    """An old outage of the only relay is no reason to roll the policy back, whatever its stored time is."""
    master = Master()
    del master.policy["wg0"]["nodes"]["r2"], master.mine["r2"]
    master.run()
    master.policy["wg0"]["listen_port"] = 51999
    master.run()
    master.now += 3600
    master.state = LinkState.DOWN
    master.run(hints={"a", "b"})
    shift(master, by, of)
    for _ in range(4):
        master.run(hints={"a", "b"})
        master.now += 40
    assert master.ledger.pin("wg0") is None
