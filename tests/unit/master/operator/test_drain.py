"""Draining a node: what depends on it, and when it is safe to stop."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master.operator import drain
from tests.unit.harness.fake_master import reachable_by_commands
from tests.unit.harness.stepping_master import SteppingMaster, run_to_end


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> SteppingMaster:
    """Three relays and two leaves that run generation 1; the drain reads the same ledger."""
    made = SteppingMaster()
    made.run()
    reachable_by_commands(made, monkeypatch)
    return made


def test_dependants_of_a_relay_are_listed(fleet):
    """Its leaves until they have left it, and each node that has not applied the new plan."""
    assert [line for line in drain.dependants(fleet.ledger, "r1") if "relay" in line] == [
        f"wg0: {leaf} has it as a relay" for leaf in fleet.relays_of_leaves()
    ]
    fleet.off = {"b"}
    fleet.run(drain="r1")
    assert "wg0: b has not applied the new plan" in drain.dependants(fleet.ledger, "r1")
    fleet.off = set()
    fleet.run(retry="b")
    run_to_end(fleet)
    assert list(drain.dependants(fleet.ledger, "r1")) == []


def test_node_outside_every_mesh_is_not_drained(fleet):
    """The error names the command that lists nodes."""
    with pytest.raises(LedgerError, match=r"nobody is in no published mesh: 'salt-run wgmesh\.status'"):
        drain.require_drainable({}, "nobody")


def test_last_relay_is_not_drained(fleet):
    """With two of three relays drained the third must stay; and it cannot be undrained."""
    for relay in ("r1", "r2"):
        fleet.run(drain=relay)
        run_to_end(fleet)
    with pytest.raises(LedgerError, match="r3 is the only relay of wg0 that is not drained"):
        drain.require_drainable({}, "r3")
    with pytest.raises(LedgerError, match="r3 is not drained; drained are: r1, r2"):
        drain.require_drained({}, "r3")


@pytest.mark.parametrize(
    ("counts", "down", "remaining"),
    [
        ([7, 7], False, ()),
        ([7, 9], False, ("it forwarded 2 packets within 1 s",)),
        ([None, None], False, ("it does not answer: whether it forwards packets is not known",)),
        ([None, None], True, ()),
    ],
    ids=["idle", "forwards", "no answer", "no answer and down"],
)
def test_drained_relay_is_safe_once_idle(fleet, monkeypatch, counts, down, remaining):
    """The relay itself says how much it forwards. Without its answer it is safe only if its neighbours call it down."""
    fleet.run(drain="r1")
    run_to_end(fleet)
    if down:
        fleet.ledger.save_health("wg0", replace(fleet.ledger.health("wg0"), down_nodes=frozenset({"r1"})))
    forwarded, now = itertools.cycle(counts), itertools.count(step=10.0)
    monkeypatch.setattr(drain.jobs, "forwarded", lambda _opts, _node: next(forwarded))
    monkeypatch.setattr(drain.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(drain.time, "monotonic", lambda: next(now))
    found = drain.wait_until_unused({}, "r1")
    assert (found.safe_to_stop, found.remaining) == (not remaining, remaining)


def test_drain_result_carries_the_exit_status():
    """salt-run exits with 1 if something remains."""
    assert drain.DrainResult(node="r1").as_dict() == {"node": "r1", "safe_to_stop": True}
    assert drain.DrainResult(node="r1", remaining=("wg0: a has it as a relay",)).as_dict() == {
        "node": "r1",
        "safe_to_stop": False,
        "remaining": ["wg0: a has it as a relay"],
        "retcode": 1,
    }
