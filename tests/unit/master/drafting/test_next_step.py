"""The steps from one plan to the next: nodes acknowledge, and report all of their links up unless told otherwise."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from saltext_wgmesh.core.transition import state
from tests.unit.harness.fake_master import mine
from tests.unit.harness.stepping_master import RELAYS, SteppingMaster, run_to_end


@pytest.fixture
def fleet() -> SteppingMaster:
    master = SteppingMaster()
    master.run()
    return master


def test_drained_relay_is_left_in_steps(fleet):
    """The new relay is there before the old one is left; then it goes. Another plan does not bring it back."""
    assert {relay for pair in fleet.relays_of_leaves().values() for relay in pair} == {"r1", "r2"}
    report = fleet.run(drain="r1")
    assert report.has_follow_up
    assert report.transition_waits_for == ("a--r1", "b--r1")
    assert all(homes[-1] == "r1" and len(homes) == 3 for homes in fleet.relays_of_leaves().values())
    assert run_to_end(fleet)[-1] == 2
    assert all(set(homes) == {"r2", "r3"} for homes in fleet.relays_of_leaves().values())
    fleet.policy["wg0"]["nodes"]["c"] = {"site": "s"}
    fleet.mine["c"] = mine("c")
    run_to_end(fleet)
    assert not any("r1" in homes for homes in fleet.relays_of_leaves().values())
    assert fleet.ledger.head("wg0").drained == {"r1"}
    assert fleet.plan().views["r2"].drained_relays == ("r1",)
    fleet.run(undrain="r1")
    run_to_end(fleet)
    assert any("r1" in homes for homes in fleet.relays_of_leaves().values())
    assert fleet.ledger.head("wg0").drained == frozenset()


def test_step_waits_for_the_new_links(fleet):
    """Until an end of each reports it up."""
    fleet.unheard = {frozenset({"a", "r3"})}
    fleet.run(drain="r1")
    for _ in range(3):
        assert fleet.run().transition_waits_for[0] == "a--r1"
    assert fleet.relays_of_leaves()["a"][-1] == "r1"
    assert "r1" not in fleet.relays_of_leaves()["b"]
    fleet.unheard = set()
    assert run_to_end(fleet)[-1] == 2


def test_absent_node_blocks_no_step_and_keeps_links(fleet):
    """It is not waited for; when it is back, the steps go on for it."""
    fleet.off = {"a"}
    report = fleet.run(drain="r1")
    while report.has_follow_up:
        report = fleet.run()
    assert "r1" in fleet.relays_of_leaves()["a"]
    assert "r1" not in fleet.relays_of_leaves()["b"]
    fleet.off = set()
    fleet.run(retry="a")
    run_to_end(fleet)
    assert all(set(homes) == {"r2", "r3"} for homes in fleet.relays_of_leaves().values())


def test_link_in_hold_down_goes_when_others_carry(fleet):
    """The node's own hold may end at any moment: then it uses the link again, and must not lose it under its feet."""
    had = fleet.relays_of_leaves()["a"]
    fleet.holding_down, fleet.unheard = {frozenset({"a", "r1"})}, {frozenset({"a", "r3"})}
    report = fleet.run(hints="a")
    assert (fleet.ledger.health("wg0").down_links, report.transition_waits_for) == ({("a", "r1")}, ("a--r1",))
    assert fleet.relays_of_leaves()["a"] == (*(r for r in had if r != "r1"), "r3", "r1")
    fleet.unheard = set()
    assert run_to_end(fleet)[-1] == 2
    assert fleet.relays_of_leaves()["a"] == (*(r for r in had if r != "r1"), "r3")


def test_dead_link_goes_at_once(fleet):
    """The step waits for nothing."""
    had = fleet.relays_of_leaves()["a"]
    fleet.dead = {frozenset({"a", "r1"})}
    assert fleet.run(hints="a").transition_waits_for == ()
    assert fleet.relays_of_leaves()["a"] == (*(r for r in had if r != "r1"), "r3")


def test_new_relay_is_unused_until_heard(fleet):
    """By all other relays."""
    fleet.mine["r4"] = mine("r4")
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["r4"] = {"role": "relay", "endpoint": "203.0.113.4"}
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r4", "r1"]
    fleet.unheard = {frozenset({"r4", "r2"})}
    assert "r4" in fleet.run().transition_waits_for
    fleet.run()
    assert all("r4" not in homes[:1] for homes in fleet.relays_of_leaves().values())
    fleet.unheard = set()
    run_to_end(fleet)
    assert all(set(homes) == {"r4", "r1"} for homes in fleet.relays_of_leaves().values())
    assert fleet.ledger.head("wg0").drained == frozenset()


@pytest.mark.parametrize("preshared_keys", [False, True])
def test_relays_leave_until_only_one_stays(fleet, tmp_path, preshared_keys):
    """They can't be drained further than to be everybody's last choice; that this is so shows in the plan alone."""
    fleet.opts["pki_dir"] = str(tmp_path)
    fleet.policy["wg0"]["preshared_keys"] = preshared_keys
    run_to_end(fleet)
    wanted = copy.deepcopy(fleet.policy)
    wanted["wg0"] |= {"sites": {"s": {"relays": ["r1"]}}, "prune_guard": 100}
    for relay in ("r2", "r3"):
        del wanted["wg0"]["nodes"][relay]
    fleet.policy = wanted
    run_to_end(fleet)
    assert fleet.relays_of_leaves() == {"a": ("r1",), "b": ("r1",)}


def test_leaving_relay_is_drained_first(fleet):
    """By the old policy; then the new one counts, and it is told to leave."""
    fleet.policy = copy.deepcopy(fleet.policy)
    del fleet.policy["wg0"]["nodes"]["r1"]
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r2"]
    fleet.run()
    assert "r1" in fleet.plan().members
    run_to_end(fleet)
    assert "r1" not in fleet.plan().members
    assert fleet.ledger.assignments("r1")["wg0"]["removed"]
    assert fleet.ledger.head("wg0").transition == state.NO_TRANSITION


def role_of_r3(fleet: SteppingMaster) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What r3 is in the published plan: its role, its relays, those that it has left, and those linked by a trunk."""
    member = fleet.plan().members["r3"]
    return member.role.value, member.relays, member.unrouted_relays, member.trunk_linked_relays


def crossed(
    fleet: SteppingMaster, rule: dict[str, Any]
) -> list[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    """What r3 is after each run, if that is its *rule* in the policy from now on."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["r3"] = rule
    seen = []
    for _ in range(12):
        report = fleet.run()
        seen.append(role_of_r3(fleet))
        if not report.has_follow_up:
            return seen
    raise AssertionError("it never ends")


LEAF = {"site": "s"}
TO_LEAF = [
    ("leaf", ("r1", "r2"), (), ("r1", "r2")),
    ("leaf", ("r1",), ("r2",), ("r1", "r2")),
    ("leaf", ("r1", "r2"), (), ("r1",)),
    ("leaf", ("r2",), ("r1",), ("r1",)),
    ("leaf", ("r1", "r2"), (), ()),
]
"""One link after the other is left, recreated and used again."""


def in_one_order(seen: list[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]]) -> list[object]:
    """As if the relays of r3 were r1 and r2 in this order, whichever comes first."""
    full = next(homes for role, homes, idle, _ in seen if role == "leaf" and not idle)
    named = dict(zip(full, ("r1", "r2"), strict=True))

    def renamed(some: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(named[r] for r in some)

    return [(role, renamed(homes), renamed(idle), tuple(sorted(renamed(trunks)))) for role, homes, idle, trunks in seen]


def test_relay_becomes_a_leaf_link_by_link(fleet):
    """In the order that is written out above."""
    seen = crossed(fleet, LEAF)
    assert in_one_order(list(dict.fromkeys(seen)))[: len(TO_LEAF)] == TO_LEAF
    assert fleet.ledger.head("wg0").transition == state.NO_TRANSITION


def test_used_relay_is_left_before_becoming_leaf(fleet):
    """Its leaves get other relays first."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r3", "r1"]
    run_to_end(fleet)
    assert all("r3" in homes for homes in fleet.relays_of_leaves().values())
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r1", "r2"]
    seen = list(dict.fromkeys(crossed(fleet, LEAF)))
    assert seen[0][0] == "relay"
    assert in_one_order(seen[1:]) == TO_LEAF


def test_relay_stays_until_leaves_hear_another(fleet):
    """Though nothing changes until then, and all run what is published."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r3", "r1"]
    run_to_end(fleet)
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r1", "r2"]
    fleet.policy["wg0"]["nodes"]["r3"] = LEAF
    fleet.unheard = {frozenset({"a", "r2"})}
    for _ in range(4):
        fleet.run()
        assert role_of_r3(fleet)[0] == "relay"
    fleet.unheard = set()
    for _ in range(9):
        fleet.run()
    assert role_of_r3(fleet)[::3] == ("leaf", ())


def test_leaf_becomes_a_relay_in_reverse_order(fleet):
    """Link by link, too."""
    crossed(fleet, LEAF)
    seen = list(dict.fromkeys(crossed(fleet, RELAYS["r3"])))
    assert [(len(homes), len(idle), len(trunks)) for _, homes, idle, trunks in seen] == [
        (1, 1, 0),
        (2, 0, 1),
        (1, 1, 1),
        (2, 0, 2),
        (0, 0, 0),
    ]
    assert seen[-1][0] == "relay"
    assert fleet.ledger.head("wg0").transition == state.NO_TRANSITION


def test_node_changing_role_waits_for_each_link(fleet):
    """It stays with its other link; a run that died in between leaves it there, too."""
    fleet.unheard = {frozenset({"r3", "r1"}), frozenset({"r3", "r2"})}
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["r3"] = LEAF
    for _ in range(4):
        assert fleet.run().transition_waits_for == ("r3",)
    assert role_of_r3(fleet)[2:] == ((), ("r1", "r2"))
    fleet.unheard = set()
    for _ in range(12):
        fleet.run()
    assert role_of_r3(fleet)[3] == ()


def test_node_changing_role_can_go_back(fleet):
    """Halfway to a leaf it becomes a relay again."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["r3"] = LEAF
    for _ in range(3):
        fleet.run()
    assert role_of_r3(fleet)[3]
    assert crossed(fleet, RELAYS["r3"])[-1] == ("relay", (), (), ())
    assert fleet.ledger.head("wg0").transition == state.NO_TRANSITION


@pytest.mark.parametrize("how", ["away", "refuses"])
def test_failing_leaf_keeps_no_relay_in_mesh(fleet, monkeypatch, how):
    """It has left two pushes unanswered, or refuses what it is told; the others go on."""
    fleet.policy = copy.deepcopy(fleet.policy)
    for relay in ("r1", "r3"):
        del fleet.policy["wg0"]["nodes"][relay]
    fleet.policy["wg0"] |= {"sites": {"s": {"relays": ["r2"]}}, "prune_guard": 100}
    if how == "away":
        fleet.off = {"a"}
    else:
        answer: Any = fleet.applied
        monkeypatch.setattr(fleet, "applied", lambda n: {"wg0": {"error": "no"}} if n == "a" else answer(n))
    for _ in range(8):
        fleet.run(retry="a")
    assert fleet.relays_of_leaves()["b"] == ("r2",)
    assert "r1" not in fleet.plan().members


def test_relay_with_deleted_key_goes_at_once(fleet):
    """It is not drained: nothing can be told to it."""
    fleet.deleted = {"r1"}
    fleet.run()
    assert "r1" not in fleet.plan().members


def test_failed_wave_blocks_the_next_until_it_succeeds(fleet, monkeypatch):
    """Another MTU alters every link: the first relay is told alone."""
    fleet.policy["wg0"]["mtu"] = 1380
    answer: Any = fleet.applied
    monkeypatch.setattr(fleet, "applied", lambda n: {"wg0": {"error": "no"}} if n == "r1" else answer(n))
    report = fleet.run()
    assert fleet.pushes[1:] == [["r1"]]
    assert (report.push_blocked_by, report.failed, report.not_acknowledged) == (
        "r1: no",
        {"r1": "no"},
        ("a", "b", *RELAYS),
    )
    assert fleet.run().push_blocked_by == "r1: no"
    assert len(fleet.pushes) == 2
    monkeypatch.setattr(fleet, "applied", answer)
    report = fleet.run(retry="r1")
    assert fleet.pushes[2:] == [["r1"], ["r2", "r3"], ["a", "b"]]
    assert (report.push_blocked_by, report.not_acknowledged) == ("", ())


def ports(fleet: SteppingMaster) -> dict[str, int]:
    """Node → the port of its access interface in the published plan."""
    views = fleet.plan().views
    return {node: view.interfaces[0].listen_port for node, view in views.items()}


def test_port_change_takes_one_relay_after_another(fleet):
    """The next moves once all neighbours of those that moved hear them, if they can be asked."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["listen_port"] = 7000
    fleet.run()
    fleet.unheard = {frozenset({"r1", "r3"})}
    seen = [ports(fleet)]
    for attempt in range(8):
        fleet.run()
        if attempt == 2:
            fleet.unheard = set()
        if ports(fleet) != seen[-1]:
            seen.append(ports(fleet))
    moved = [[node for node, port in at.items() if port == 7000] for at in seen]
    assert moved == [["r1"], ["r1", "r2"], ["r1", "r2", "r3"], ["a", "b", "r1", "r2", "r3"]]
    assert fleet.ledger.head("wg0").transition == state.NO_TRANSITION


def test_views_name_a_moving_relay_where_it_is(fleet):
    """The relays that have not moved keep their port in all views."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["listen_port"] = 7000
    report = fleet.run()
    assert report.transition_waits_for == ("a", "b", "r2", "r3")
    endpoints = {p.node: p.endpoint for i in fleet.plan().views["r3"].interfaces for p in i.peers}
    assert endpoints == {"r1": "203.0.113.1:7003", "r2": "203.0.113.2:51823"}


def test_new_address_comes_before_the_old_goes(fleet):
    """Reached at both, then sending from the new one, then without the old; each once all reachable nodes run it."""
    old = fleet.plan().members["a"].addresses[0]
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["a"]["address"] = "10.0.9.9"
    fleet.off = {"b"}
    seen = []
    for attempt in range(8):
        fleet.run(retry={"b"} if attempt == 3 else set())
        addresses = fleet.plan().members["a"].addresses
        seen += [addresses] if addresses not in seen[-1:] else []
        if attempt == 0:
            assert fleet.ledger.head("wg0").transition.dual_addresses == {"a": (old, "10.0.9.9")}
        fleet.off = {"r3"} if attempt > 2 else {"b"}
    assert seen == [(old, "10.0.9.9"), ("10.0.9.9", old), ("10.0.9.9",)]
    probed = fleet.plan().views["r1"].interfaces[0].peers[0].address
    assert probed == "10.0.9.9"
