"""A run of converge: what it publishes, what it refuses, and when it plans nothing."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.errors import PlanError, PolicyError
from saltext_wgmesh.core.liveness import mesh_health
from tests.unit.harness.fake_master import FakeMaster, link_reports, mine


@pytest.fixture
def master() -> FakeMaster:
    return FakeMaster()


def test_new_fleet_is_published_and_pushed_once(master):
    """Every node gets its view in generation 1; the next run costs no job and no generation."""
    report = master.run()
    assert (report.generation, report.published, report.applied) == (1, True, ("a", "b", "r1"))
    report = master.run()
    assert (report.generation, report.published, report.made_changes) == (1, False, False)
    assert master.pushes == [["a", "b", "r1"]]


def test_announced_are_runs_that_changed_something(master):
    """One event for each such report."""
    reports = [master.run(), master.run()]
    assert master.announced == reports[:1]


def test_scheduled_run_plans_only_after_a_change(master):
    """A run that is not interactive plans only if something changed since a run that left nothing to do.

    A new policy, new facts, a deleted key and a request that forces a run are changes.
    """
    master.links = lambda nodes: dict.fromkeys(nodes, link_reports({}))
    master.run()

    def planned(**words: str) -> bool:
        return bool(master.run_all(interactive=False, **words))

    def settles() -> bool:
        """A run sees what changed, the one after it that nothing is left to do, and then there is rest."""
        return [planned() for _ in range(3)] == [True, True, False]

    assert [planned(), planned(), planned(hints="a")] == [True, False, False]
    assert [planned(started="a"), planned(drifted="a"), planned(retry="a"), planned()] == [True, True, True, False]
    master.policy["wg0"]["mtu"] = 1400
    assert settles()
    master.policy["wg0"]["nodes"]["c"] = {}
    master.mine["c"] = mine("c")
    assert settles()
    master.deleted.add("c")
    # It is told first, and the same run then sees that nothing is left to do.
    assert [planned(), planned()] == [True, False]


def test_recovered_outage_is_forgotten_without_asking(master):
    """Any run forgets it after the quiet period; until then it stays as it was."""
    master.links = lambda nodes: {node: {} for node in nodes}
    master.run()
    returned = mesh_health.Outage(since=0.0, reporters=("a",), up_since=1.0)
    master.ledger.save_health("wg0", mesh_health.Health(nodes={"r1": returned}, recovering=frozenset({"r1"})))
    master.now = mesh_health.HOLD_DOWN + mesh_health.WAIT_TO_RESTORE
    master.run()
    assert master.ledger.health("wg0").recovering == {"r1"}
    master.now += 2
    master.run()
    assert master.ledger.health("wg0") == mesh_health.Health()


def test_first_unanswered_question_is_asked_once_more(master):
    """Not again and again: a node that is away would keep the master busy."""
    master.run()
    assert [master.run(hints="a").newly_unresponsive for _ in range(2)] == [("a",), ()]


def test_facts_with_any_keys_fail_no_run(master):
    """Salt's mine carries whatever msgpack does."""
    master.mine["b"] = {1: "x", "a": b"\xff", None: ["y"]}
    for _ in range(2):
        report = master.run_all(interactive=False)["wg0"]
    assert report.needs_attention == ("b",)


def test_only_nodes_with_changed_views_are_pushed_to(master):
    """A third leaf concerns itself and the relay, and not the other leaves."""
    master.run()
    master.policy["wg0"]["nodes"]["c"] = {}
    master.mine["c"] = mine("c")
    assert master.run().applied == ("c", "r1")


def test_two_meshes_on_one_port_are_refused(master):
    """The ports of relays grow with each relay that replaces another; the policy alone looks well."""
    first, second = ({"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2))
    master.policy["wg0"]["nodes"] = {"r1": first, "r2": second, "a": {}}
    master.policy["wg1"] = {
        "network": "10.1.0.0/16",
        "listen_port": 51823,
        "nodes": {"r1": {**first, "endpoint": "203.0.113.1"}, "a": {}},
    }
    master.mine["r2"] = mine("r2")
    master.run()
    del master.policy["wg0"]["nodes"]["r2"]
    master.policy["wg0"]["nodes"]["r3"] = second
    master.mine["r3"] = mine("r3")

    def some_runs() -> None:
        for _ in range(5):
            master.run()

    with pytest.raises(PlanError, match="UDP port 51823 of r1 is also one of the mesh wg0"):
        some_runs()


def test_former_member_is_told_to_leave(master):
    """``removed`` stands in its assignment for as long as it takes; a stranger gets the reason alone."""
    master.mine["stranger"] = mine("stranger")
    master.run()
    del master.policy["wg0"]["nodes"]["b"]
    for _ in range(2):
        master.run()
        assert master.ledger.assignments("b")["wg0"]["removed"] is True
        stranger = master.ledger.assignments("stranger")["wg0"]
        assert "removed" not in stranger
        assert stranger["reason"] == "no entry of wgmesh:wg0:nodes matches this id"


def test_leaf_without_relay_waits_and_running_one_stays(master):
    """A leaf whose relay has no facts is pending. Once it runs, a relay that goes silent takes nothing from it."""
    relay = master.mine.pop("r1")
    master.run()
    assert master.ledger.assignments("a")["wg0"]["pending"] is True
    master.mine["r1"] = relay
    master.run()
    assert master.ledger.assignments("a")["wg0"]["role"] == "leaf"


def test_node_with_deleted_key_is_out_everywhere(master):
    """Its peers lose it in the next generation; what the mine still had of it is reported once, and gone."""
    master.run()
    master.deleted = {"b"}
    report = master.run()
    assert report.changed == ("r1",)
    assert [text.partition(";")[0] for text in report.rejected] == [
        "b: its Salt key is not accepted any more, but its facts are still in the mine"
    ]
    assert report.is_clean
    assert "b" not in master.mine
    assert master.run().rejected == ()
    assert master.ledger.assignments("b") == {}
    assert master.peers("r1") == {"a"}


@pytest.mark.parametrize("policy", [None, {}, {"wg0": {}}, {"wg0": {"network": "10.0.0.0/16", "nodes": {}}}, "text", 5])
def test_empty_policy_changes_nothing(master, policy):
    """An empty policy on a running mesh raises; views, generation and pushes stay as they were."""
    master.run()
    before = {node: master.ledger.assignments(node) for node in master.mine}
    master.policy = policy
    with pytest.raises(PolicyError, match="nothing was changed"):
        master.run()
    assert {node: master.ledger.assignments(node) for node in master.mine} == before
    assert len(master.pushes) == 1


def test_failed_plan_keeps_what_was_observed(master):
    """Health and late answers are written before anything is planned."""
    master.off = {"a"}
    master.run()
    master.late = {"a": master.applied("a")}
    master.policy = {}
    with pytest.raises(PolicyError):
        master.run(hints="b")
    assert master.ledger.ack("a").pending is None
    assert master.ledger.health("wg0").unresponsive == {"b"}


def test_bad_facts_leave_the_node_as_it_runs(master):
    """Another schema, another node's key, a network of the mesh: the node is named and keeps its view."""
    master.run()
    before = master.ledger.assignments("a")
    for bad in (
        mine("a", schema=2),
        mine("a", public_key=mine("b")["public_key"]),
        mine("a", networks=["10.0.0.0/24"]),
        mine("a", public_key="AAAA"),
        mine("a", salt_key="key of an earlier a"),
        ["nonsense"],
    ):
        master.mine["a"] = bad
        report = master.run()
        assert any(text.startswith("a: ") for text in report.rejected), report.rejected
        assert "a" in report.needs_attention
        assert not report.is_clean
        assert master.ledger.assignments("a") == before
    assert len(master.pushes) == 1


def test_unplannable_meshes_are_all_named(master):
    """Two ranges are too small: one error names both, and nothing is published."""
    master.policy["wg0"]["network"] = "10.0.0.0/30"
    master.policy["wg1"] = {**master.policy["wg0"], "network": "10.1.0.0/30", "listen_port": 52000}
    with pytest.raises(PlanError) as caught:
        master.run()
    text = str(caught.value)
    assert "10.0.0.0/30" in text
    assert "10.1.0.0/30" in text
    assert master.ledger.meshes() == []
    assert master.pushes == []
