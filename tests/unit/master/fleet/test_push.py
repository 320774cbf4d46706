"""Pushes: which node is told, which again and when, and what blocks a push. Nodes are played by values."""

from __future__ import annotations

from typing import Any

import pytest

from saltext_wgmesh.core.liveness.mesh_health import Health, Outage
from tests.unit.harness.fake_master import FakeMaster, link_reports, mine

ROLLED_BACK = {"digest": "that of before", "error": "rolled back: a is not heard", "rolled_back": True}


@pytest.fixture
def master() -> FakeMaster:
    return FakeMaster()


def test_silent_drifted_node_leaves_run_clean(master):
    """It runs what is published, as far as is known."""
    master.run()
    master.now += 60
    master.off.add("b")
    report = master.run(drifted="b")
    assert (report.silent, report.is_clean) == (("b",), True)


def test_silent_node_is_retried_ever_more_slowly(master):
    """After 60, 120, 240, then every 300 seconds; at once if it is named; applied only when it says so."""
    master.off = {"a"}
    assert master.run().silent == ("a",)
    retried_at = []
    for second in range(1, 500):
        master.now = 1_000.0 + second
        if master.run().silent == ("a",):
            retried_at.append(second)
    assert retried_at == [60, 180, 420]
    assert master.run(retry="a").silent == ("a",)
    master.off = set()
    assert master.run(retry="a").applied == ("a",)


def test_silent_node_is_pushed_to_once_responsive(master):
    """Not one that answered with an error: it would be told again at each event."""
    master.links = lambda nodes: {n: {} for n in set(nodes) - master.off}
    master.off = {"a"}
    master.run()
    assert master.run(hints="a").silent == ()
    master.off = set()
    master.applied = lambda _node: {"wg0": {"error": "no disk"}}
    assert master.run(hints="a").failed == {"a": "no disk"}
    assert master.run(hints="a").failed == {}


def test_first_unanswered_push_is_followed_up(master):
    """The run names the node, so that the next one follows at once and takes its late answer; a later run does not."""
    master.off = {"a"}
    assert master.run().newly_unanswered == ("a",)
    assert master.run(retry="a").newly_unanswered == ()


def test_silent_node_gets_new_view_at_once(master):
    """The pause is for the view that it left unanswered, not for the node."""
    master.off = {"a"}
    master.run()
    master.policy["wg0"]["mtu"] = 1400
    assert master.run().silent == ("a",)


def test_late_answer_counts(master):
    """The next run finds it, and pushes nothing more to that node."""
    master.off = {"a"}
    assert master.run().not_acknowledged == ("a",)
    master.late = {"a": master.applied("a")}
    assert master.run().not_acknowledged == ()
    assert master.pushes == [["a", "b", "r1"]]


def test_late_answer_is_about_its_own_plan(master):
    """Not about the plan that came after: the node has not heard of that one yet, and blocks no other node."""
    master.off = {"a"}
    master.run()
    master.late = {"a": {"wg0": {"error": "the relay is not heard any more", "rolled_back": True, "digest": None}}}
    master.off = set()
    master.policy["wg0"]["mtu"] = 1400
    report = master.run()
    assert (report.push_blocked_by, report.not_acknowledged, report.failed) == ("", (), {})


def test_unanswered_view_is_not_retried_after_rollback(master):
    """The node may have rolled it back; an operator who has fixed the cause names the node."""
    master.off = {"a"}
    master.run()
    assert master.retried_rolled_back
    master.now += 100
    master.run()
    assert not master.retried_rolled_back
    master.run(retry="a")
    assert master.retried_rolled_back
    master.policy["wg0"]["mtu"] = 1400
    master.run()
    assert master.retried_rolled_back


def test_unacknowledged_node_is_named_within_the_pause(master):
    """A run within the pause pushes nothing, and still says which node it waits for."""
    master.off = {"a"}
    assert master.run().not_acknowledged == ("a",)
    again = master.run()
    assert (again.silent, again.not_acknowledged, again.made_changes) == ((), ("a",), False)
    master.off = set()
    assert master.run(retry="a").not_acknowledged == ()


def test_drifted_node_is_pushed_to_with_pauses(master):
    """A node that reports drift applies its view again, but not all the time."""
    master.links = lambda nodes: dict.fromkeys(nodes, link_reports({}))
    master.run()
    master.pushes.clear()
    for second in (1, 31, 32, 62):
        master.now = 1_000.0 + second
        master.run(drifted="a")
    assert master.pushes == [["a"], ["a"]]


def test_unanswered_push_is_repeated_after_the_plan_returns(master):
    """The node may still apply the plan in between a moment later, and would then be the only one."""
    master.run()
    master.off = {"a"}
    master.policy["wg0"]["mtu"] = 1400
    master.run()
    master.off = set()
    master.policy["wg0"].pop("mtu")
    report = master.run()
    assert (sorted(report.applied), report.not_acknowledged) == (["a", "b", "r1"], ())


# --- a view that a node rolled back --------------------------------------------------------------------


@pytest.fixture
def broken(master):
    """Generation 2 has another port for all nodes; the relay, which is told first, rolls it back."""
    master.run()
    applied = master.applied

    def answer(node: str) -> dict[str, Any]:
        if node == "r1" and master.ledger.head("wg0").generation == 2:
            return {"wg0": ROLLED_BACK}
        return applied(node)

    master.applied = answer
    master.policy["wg0"]["listen_port"] = 51900
    return master


def test_rolled_back_view_is_pushed_to_no_other(broken):
    """Neither by the run itself, nor by later ones, however long; the node itself is left alone too."""
    blocked = "blocked: r1: rolled back: a is not heard"
    report = broken.run()
    assert report.failed == {"r1": "rolled back: a is not heard"}
    assert report.push_blocked_by == blocked
    broken.now += 10_000
    report = broken.run()
    assert (report.push_blocked_by, report.failed) == (blocked, {})
    assert broken.pushes[1:] == [["r1"]]
    assert report.not_acknowledged == ("a", "b", "r1")


def test_rollback_blocks_no_other_mesh(broken):
    """Neither in the run in which it shows nor later."""
    told, rest = broken.applied, lambda node: FakeMaster.applied(broken, node)
    broken.applied = lambda node: {**rest(node), **told(node)}
    nodes = {node: {"endpoint": f"192.0.2.{i}"} for i, node in enumerate(("x", "y"), 1)}
    broken.policy["wg1"] = {"network": "10.1.0.0/24", "listen_port": 52000, "nodes": nodes}
    broken.mine |= {node: mine(node) for node in nodes}
    for mtu in (1420, 1400):
        broken.policy["wg1"]["mtu"] = mtu
        reports = broken.run_all()
        assert reports["wg0"].push_blocked_by == "blocked: r1: rolled back: a is not heard"
        assert reports["wg1"].push_blocked_by == ""
        assert {"x", "y"} <= set(reports["wg1"].applied)


def test_rolled_back_view_is_retried_by_name(broken):
    """The named node is told, and as long as it rolls the view back the others are not."""
    broken.run()
    broken.run(retry="r1")
    assert broken.pushes[1:] == [["r1"], ["r1"]]


def test_another_plan_is_not_blocked(broken):
    """It is pushed as any other."""
    broken.run()
    broken.policy["wg0"]["listen_port"] = 51901
    report = broken.run()
    assert (report.generation, report.push_blocked_by, report.not_acknowledged) == (3, "", ())


def test_rolled_back_view_is_retried_after_another_plan(broken):
    """The node never left what the plan in between wants of it, so it was not even told."""
    before = broken.ledger.head("wg0").digests["r1"]
    held = {"wg0": {**ROLLED_BACK, "digest": before}}
    applied = broken.applied
    broken.applied = lambda n: held if n == "r1" and broken.ledger.head("wg0").generation == 2 else applied(n)
    assert broken.run().push_blocked_by
    broken.policy["wg0"].pop("listen_port")
    assert broken.run().not_acknowledged == ()
    broken.policy["wg0"]["listen_port"] = 51900
    report = broken.run()
    assert (report.generation, report.push_blocked_by, report.not_acknowledged) == (4, "", ())


@pytest.mark.parametrize(
    ("answered_ago", "up_since", "is_awaited"),
    [(5.0, None, True), (40.0, None, False), (40.0, 1_039.0, True)],
    ids=["answered lately", "silent", "in hold-down"],
)
def test_node_that_answered_is_awaited(master, answered_ago, up_since, is_awaited):
    """An outage of its links does not make a node silent that answered seconds ago, or that its neighbours hear."""
    master.run()
    master.now += answered_ago
    outage = Outage(since=1_001.0, reporters=("r1",), up_since=up_since)
    master.ledger.save_health("wg0", Health(nodes={"a": outage}, down_nodes=frozenset({"a"})))
    master.policy["wg0"]["mtu"] = 1400
    assert "a" in master.run().applied
    assert ("a" not in master.not_awaited) is is_awaited
