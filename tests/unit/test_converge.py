"""Converge: who is published to, who is pushed to, who is asked again and when. The fleet is played by a dict."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from saltext_wgmesh.core import health
from saltext_wgmesh.core.errors import LedgerError, PlanError, PolicyError
from saltext_wgmesh.core.linkstate import LinkReport
from saltext_wgmesh.master import checkup, converge, fleet, inventory
from saltext_wgmesh.master.ledger import Ledger
from tests.unit.test_ledger import MemoryCache


def mine(node: str, **changes: Any) -> dict[str, Any]:
    """The facts of *node* as its mine has them."""
    digest = hashlib.sha256(node.encode()).digest()
    own = {
        "schema": 1,
        "public_key": base64.b64encode(digest).decode(),
        "salt_key": f"key of {node}",
        "underlay": [f"192.0.2.{1 + digest[0] % 250}"],
        "networks": [],
        "ipv6": True,
    }
    return own | changes


class World:
    """A master, its ledger in memory, and nodes that answer pushes unless they are *off*."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.ledger = Ledger(MemoryCache())  # type: ignore[arg-type]
        self.policy: Any = {
            "wg0": {
                "network": "10.0.0.0/16",
                "nodes": {"r1": {"role": "relay", "endpoint": "203.0.113.1"}, "a": {}, "b": {}},
            }
        }
        self.mine = {node: mine(node) for node in ("r1", "a", "b")}
        self.opts: dict[str, Any] = {}
        self.off: set[str] = set()
        self.deleted: set[str] = set()
        self.pushes: list[list[str]] = []
        self.now = 1_000.0
        monkeypatch.setattr(converge.time, "time", lambda: self.now)
        monkeypatch.setattr(converge.Ledger, "of", lambda _opts: self.ledger)
        monkeypatch.setattr(inventory, "read", lambda _opts: self._inventory())
        monkeypatch.setattr(inventory, "drop_mine", lambda _opts, node: self.mine.pop(node))
        monkeypatch.setattr(converge, "_announce", lambda _opts, _report: None)
        self.insisted = True
        """Whether the last push did."""
        self.late: dict[str, Any] = {}
        """What nodes returned to the job that they left unanswered at first."""
        monkeypatch.setattr(fleet, "apply", lambda _opts, nodes, _unlikely, **how: self._told(nodes, **how))
        monkeypatch.setattr(fleet, "late", lambda _opts, jobs: {n: self.late[n] for n in jobs if n in self.late})

    def _inventory(self) -> inventory.Inventory:
        accepted = {node: f"key of {node}" for node in self.mine if node not in self.deleted}
        return inventory.Inventory(policy=self.policy, accepted=accepted, mine=dict(self.mine))

    def _told(self, nodes: list[str], *, insists: bool) -> fleet.Answers:
        self.insisted = insists
        return self._push(nodes)

    def _push(self, nodes: list[str]) -> fleet.Answers:
        self.pushes.append(list(nodes))
        returned = {node: self.applied(node) for node in nodes if node not in self.off}
        return fleet.Answers(returned=returned, jobs={node: "1" for node in nodes if node in self.off})

    def applied(self, node: str) -> dict[str, Any]:
        """What *node* returns when it has applied what is published now."""
        return {mesh: {"digest": view["digest"]} for mesh, view in self.ledger.views(node).items()}

    def converge(self, ask: str | None = None) -> converge.Report:
        again = frozenset([ask] if ask else [])
        (report,) = converge.converge(self.opts, converge.Asked(again=again))
        return report


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_new_fleet_is_published_and_pushed_once(world):
    """Every node gets its view in generation 1; the next run costs no job and no generation."""
    report = world.converge()
    assert (report.generation, report.published, report.applied) == (1, True, ["a", "b", "r1"])
    report = world.converge()
    assert (report.generation, report.published, report.eventful) == (1, False, False)
    assert world.pushes == [["a", "b", "r1"]]


def test_a_run_that_nobody_waits_for_plans_only_what_changed(world, monkeypatch):
    """Since a run that left nothing to do; a new policy, new facts, a deleted key and a word that insists do."""
    answer = {"wg0": LinkReport(mesh="wg0", watched=True)}
    monkeypatch.setattr(checkup, "ask", lambda _opts, nodes, _gone: dict.fromkeys(nodes, answer))
    world.converge()

    def planned(**words: str) -> bool:
        asked = converge.Asked(**{kind: frozenset({node}) for kind, node in words.items()})
        return bool(converge.converge({}, asked, waited_for=False))

    def settled() -> bool:
        """A run sees what changed, the one after it that nothing is left to do, and then there is rest."""
        return [planned() for _ in range(3)] == [True, True, False]

    assert [planned(), planned(), planned(hints="a")] == [True, False, False]
    assert [planned(started="a"), planned(drifted="a"), planned(again="a"), planned()] == [True, True, True, False]
    world.policy["wg0"]["mtu"] = 1400
    assert settled()
    world.policy["wg0"]["nodes"]["c"] = {}
    world.mine["c"] = mine("c")
    assert settled()
    world.deleted.add("c")
    assert settled()


def test_what_rests_is_forgotten_when_it_was_quiet_for_long_though_nobody_is_asked(world, monkeypatch):
    """By any run; until then it stays as it was believed."""
    monkeypatch.setattr(checkup, "ask", lambda _opts, nodes, _gone: dict.fromkeys(nodes))
    world.converge()
    returned = health.Trouble(since=0.0, by=("a",), good_since=1.0)
    world.ledger.keep_health("wg0", health.Health(nodes={"r1": returned}, resting=frozenset({"r1"})))
    world.now = health.HOLD + health.QUIET
    world.converge()
    assert world.ledger.health("wg0").resting == {"r1"}
    world.now += 2
    world.converge()
    assert world.ledger.health("wg0") == health.Health()


def test_who_drifted_and_does_not_answer_ends_nothing(world):
    """It runs what is published, as far as is known."""
    world.converge()
    world.now += 60
    world.off.add("b")
    (report,) = converge.converge({}, converge.Asked(drifted=frozenset({"b"})))
    assert (report.silent, report.clean) == (["b"], True)


def test_who_does_not_answer_a_question_for_the_first_time_is_to_be_asked_once_more(world, monkeypatch):
    """Not again and again: who is away would keep the master busy."""
    monkeypatch.setattr(checkup, "ask", lambda _opts, _nodes, _gone: {})
    world.converge()
    hinted = converge.Asked(hints=frozenset({"a"}))
    assert [converge.converge({}, hinted)[0].unheard for _ in range(2)] == [["a"], []]


def test_facts_with_keys_of_any_kind_are_no_reason_to_fail(world):
    """Salt's mine carries what msgpack does."""
    world.mine["b"] = {1: "x", "a": b"\xff", None: ["y"]}
    for _ in range(2):
        (report,) = converge.converge({}, waited_for=False)
    assert report.to_mend == ["b"]


def test_only_nodes_whose_view_changed_are_spoken_to(world):
    """A third leaf concerns itself and the relay, and not the other leaves."""
    world.converge()
    world.policy["wg0"]["nodes"]["c"] = {}
    world.mine["c"] = mine("c")
    assert world.converge().applied == ["c", "r1"]


def test_a_silent_node_is_asked_again_ever_more_slowly(world):
    """After 60, 120, 240, then every 300 seconds; at once if it is named; applied only when it says so."""
    world.off = {"a"}
    assert world.converge().silent == ["a"]
    asked_at = []
    for second in range(1, 500):
        world.now = 1_000.0 + second
        if world.converge().silent == ["a"]:
            asked_at.append(second)
    assert asked_at == [60, 180, 420]
    assert world.converge(ask="a").silent == ["a"]
    world.off = set()
    assert world.converge(ask="a").applied == ["a"]


def test_a_silent_node_is_pushed_to_as_soon_as_it_is_heard_of_again(world, monkeypatch):
    """Not one that answered, and could not apply what it was told: it would be told again at each event."""
    monkeypatch.setattr(checkup, "ask", lambda _opts, nodes, _gone: {n: {} for n in set(nodes) - world.off})
    world.off = {"a"}
    world.converge()
    hinted = converge.Asked(hints=frozenset({"a"}))
    assert converge.converge({}, hinted)[0].silent == []
    world.off = set()
    monkeypatch.setattr(world, "applied", lambda _node: {"wg0": {"error": "no disk"}})
    assert converge.converge({}, hinted)[0].failed == {"a": "no disk"}
    assert converge.converge({}, hinted)[0].failed == {}


def test_a_silent_node_is_asked_at_once_for_a_new_view(world):
    """The pause is for the view it left unanswered, not for the node."""
    world.off = {"a"}
    world.converge()
    world.policy["wg0"]["mtu"] = 1400
    assert world.converge().silent == ["a"]


def test_an_answer_that_nobody_waited_for_counts_all_the_same(world):
    """The next run finds it, and asks that node nothing more."""
    world.off = {"a"}
    assert world.converge().not_acknowledged == ["a"]
    world.late = {"a": world.applied("a")}
    assert world.converge().not_acknowledged == []
    assert world.pushes == [["a", "b", "r1"]]


def test_a_late_answer_speaks_of_the_plan_that_was_asked_for(world):
    """Not of the one that came after: of that the node did not hear yet, and nobody is held up for it."""
    world.off = {"a"}
    world.converge()
    world.late = {"a": {"wg0": {"error": "the relay is not heard any more", "taken_back": True, "digest": None}}}
    world.off = set()
    world.policy["wg0"]["mtu"] = 1400
    report = world.converge()
    assert (report.stopped, report.not_acknowledged, report.failed) == ("", [], {})


def test_who_left_a_push_unanswered_is_not_made_to_try_it_again_unless_somebody_asks(world):
    """It may have taken the view back; whoever sees to it that it would hold now names the node."""
    world.off = {"a"}
    world.converge()
    assert world.insisted
    world.now += 100
    world.converge()
    assert not world.insisted
    world.converge("a")
    assert world.insisted
    world.policy["wg0"]["mtu"] = 1400
    world.converge()
    assert world.insisted


def test_two_meshes_that_would_listen_on_one_port_of_a_node_are_refused(world):
    """The ports of relays grow with each that comes in another's place; the policy alone looks well."""
    first, second = ({"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2))
    world.policy["wg0"]["nodes"] = {"r1": first, "r2": second, "a": {}}
    world.policy["wg1"] = {
        "network": "10.1.0.0/16",
        "listen_port": 51823,
        "nodes": {"r1": {**first, "endpoint": "203.0.113.1"}, "a": {}},
    }
    world.mine["r2"] = mine("r2")
    converge.converge({})
    del world.policy["wg0"]["nodes"]["r2"]
    world.policy["wg0"]["nodes"]["r3"] = second
    world.mine["r3"] = mine("r3")

    def some_runs():
        for _ in range(5):
            converge.converge({})

    with pytest.raises(PlanError, match="UDP port 51823 of r1 is also one of the mesh wg0"):
        some_runs()


def test_a_node_out_of_the_policy_is_told_to_leave_and_a_stranger_is_not(world):
    """``removed`` stands in the record of who was a member, for as long as it takes; others get the reason alone."""
    world.mine["stranger"] = mine("stranger")
    world.converge()
    del world.policy["wg0"]["nodes"]["b"]
    for _ in range(2):
        world.converge()
        assert world.ledger.views("b")["wg0"]["removed"] is True
        assert "removed" not in world.ledger.views("stranger")["wg0"]
        assert world.ledger.views("stranger")["wg0"]["reason"] == "no entry of wgmesh:wg0:nodes matches this id"


def test_without_its_relay_a_leaf_waits_and_a_running_one_stays(world):
    """A leaf whose relay has no facts is pending. Once it runs, a relay that goes silent takes nothing from it."""
    relay = world.mine.pop("r1")
    world.converge()
    assert world.ledger.views("a")["wg0"]["pending"] is True
    world.mine["r1"] = relay
    world.converge()
    assert world.ledger.views("a")["wg0"]["role"] == "leaf"


def test_a_deleted_key_takes_the_node_out_everywhere(world):
    """Its peers lose it in the next generation; what the mine still held of it is named once, and gone."""
    world.converge()
    world.deleted = {"b"}
    report = world.converge()
    assert report.changed == ["r1"]
    assert [text.partition(";")[0] for text in report.rejected] == [
        "b: its Salt key is not accepted any more, but its facts are still in the mine"
    ]
    assert report.clean
    assert "b" not in world.mine
    assert world.converge().rejected == []
    assert world.ledger.views("b") == {}
    peers = [p["node"] for i in world.ledger.views("r1")["wg0"]["interfaces"] for p in i["peers"]]
    assert peers == ["a"]


@pytest.mark.parametrize("policy", [None, {}, {"wg0": {}}, {"wg0": {"network": "10.0.0.0/16", "nodes": {}}}, "text", 5])
def test_a_policy_that_is_none_changes_nothing(world, policy):
    """An empty policy on a running mesh raises; views, generation and pushes stay as they were."""
    world.converge()
    before = {node: world.ledger.views(node) for node in world.mine}
    world.policy = policy
    with pytest.raises(PolicyError, match="nothing was changed"):
        world.converge()
    assert {node: world.ledger.views(node) for node in world.mine} == before
    assert len(world.pushes) == 1


def test_bad_facts_leave_the_node_as_it_runs(world):
    """Another schema, another node's key, a network of the mesh: the node is named and keeps its view."""
    world.converge()
    before = world.ledger.views("a")
    for bad in (
        mine("a", schema=2),
        mine("a", public_key=mine("b")["public_key"]),
        mine("a", networks=["10.0.0.0/24"]),
        mine("a", public_key="AAAA"),
        mine("a", salt_key="key of an earlier a"),
        ["nonsense"],
    ):
        world.mine["a"] = bad
        report = world.converge()
        assert any(text.startswith("a: ") for text in report.rejected), report.rejected
        assert "a" in report.to_mend
        assert not report.clean
        assert world.ledger.views("a") == before
    assert len(world.pushes) == 1


def test_who_does_not_run_what_is_published_is_named_though_not_asked_again(world):
    """A run within the pause asks nobody, and still says whom it waits for."""
    world.off = {"a"}
    assert world.converge().not_acknowledged == ["a"]
    again = world.converge()
    assert (again.silent, again.not_acknowledged, again.eventful) == ([], ["a"], False)
    world.off = set()
    assert world.converge(ask="a").not_acknowledged == []


def test_what_no_mesh_can_be_planned_with_is_told_of_all_meshes_at_once(world):
    """Two ranges are too small: one error names both, and nothing is published."""
    world.policy["wg0"]["network"] = "10.0.0.0/30"
    world.policy["wg1"] = {**world.policy["wg0"], "network": "10.1.0.0/30", "listen_port": 52000}
    with pytest.raises(PlanError) as caught:
        world.converge()
    text = str(caught.value)
    assert "10.0.0.0/30" in text
    assert "10.1.0.0/30" in text
    assert world.ledger.meshes() == []
    assert world.pushes == []


# --- health --------------------------------------------------------------------------------------------


def report(**links: str) -> dict[str, Any]:
    """What ``wgmesh.links`` returns: neighbour → state."""
    told = {
        n: {"interface": "wg0", "state": state, "since": 1.0, "hold": 0.0, "interval": 100}
        for n, state in links.items()
    }
    return {"wg0": {"schema": 1, "mesh": "wg0", "watched": True, "links": told}}


class Ailing(World):
    """Two relays; each node's report of its links is set by the test, and who was asked is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.policy["wg0"]["nodes"] |= {"r2": {"role": "relay", "endpoint": "203.0.113.2"}, "c": {"nat": True}}
        self.policy["wg0"]["nodes"] |= {"a": {"nat": True}, "b": {"nat": True}}
        self.mine |= {node: mine(node) for node in ("r2", "c")}
        self.reports: dict[str, Any] = {}
        self.asked: list[list[str]] = []
        self.enrolled: list[list[str]] = []
        monkeypatch.setattr(fleet, "links", lambda _opts, nodes, _gone: self._links(nodes))
        monkeypatch.setattr(fleet, "enrol", lambda _opts, nodes: self.enrolled.append(nodes))
        super().converge()

    def _links(self, nodes: list[str]) -> dict[str, Any]:
        self.asked.append(nodes)
        return {node: self.reports[node] for node in nodes if node in self.reports}

    def look(self, **asked: str) -> converge.Report:
        (found,) = converge.converge({}, converge.Asked(**{kind: frozenset({n}) for kind, n in asked.items()}))
        return found

    def homes(self) -> dict[str, tuple[str, ...]]:
        return dict(self.ledger.head("wg0").register.homes)


@pytest.fixture
def ailing(monkeypatch: pytest.MonkeyPatch) -> Ailing:
    return Ailing(monkeypatch)


def test_a_hint_has_the_node_asked_and_then_all_who_should_hear_the_suspect(ailing):
    """The dead relay itself is not asked; its leaves get the other relay as their first."""
    ailing.reports = {n: report(r1="down", r2="up") for n in "abc"} | {"r2": report(r1="down", a="up", b="up", c="up")}
    found = ailing.look(hints="a")
    assert ailing.asked == [["a"], ["b", "c", "r2"]]
    assert found.down == ["r1"]
    assert set(ailing.homes().values()) == {("r2", "r1")}


def test_who_should_hear_the_suspects_of_an_event_is_asked_in_the_first_question(ailing):
    """The verdict is the same, by one question; suspects without a hint, or unknown ones, ask nobody."""
    ailing.reports = {n: report(r1="down", r2="up") for n in "abc"} | {"r2": report(r1="down", a="up", b="up", c="up")}
    assert not ailing.look(suspects="r1").eventful
    assert ailing.asked == []
    found = ailing.look(hints="a", suspects="r1")
    assert ailing.asked == [["a", "b", "c", "r2"]]
    assert found.down == ["r1"]


def test_a_forged_hint_changes_nothing(ailing):
    """Whoever it names: those who are asked say that all is well. Who has no accepted key is not asked."""
    before = ailing.homes()
    ailing.reports = {n: report(r1="up", r2="up") for n in "abc"}
    assert not ailing.look(hints="a").eventful
    assert not ailing.look(hints="nobody").eventful
    assert ailing.asked == [["a"]]
    assert ailing.homes() == before


def test_a_node_can_not_speak_of_those_who_are_not_its_neighbours(ailing):
    """Nor do reports that can't be read say anything."""
    ailing.reports = {
        "a": report(b="down", nobody="down", r1="up"),
        "b": {"wg0": {"schema": 9}},
        "c": "no such function",
    }
    for node in "abc":
        assert ailing.look(hints=node).down == []


def test_a_run_without_trouble_asks_nobody_and_one_with_trouble_asks_the_witnesses(ailing):
    """Until what was down has been good for the hold; then it rests, and nobody is asked any more."""
    ailing.look()
    assert ailing.asked == []
    ailing.reports = {"a": report(r1="down", r2="up")} | {n: report(r1="up", r2="up") for n in "bc"}
    ailing.reports["r2"] = report(r1="up", a="up", b="up", c="up")
    ailing.reports["r1"] = report(r2="up", a="up", b="up", c="up")
    assert ailing.look(hints="a").down == ["a--r1"]
    ailing.reports["a"] = report(r1="up", r2="up")
    ailing.asked.clear()
    for second in (10, 20, 60):
        ailing.now = 1_000.0 + second
        ailing.look()
    assert ailing.asked == [["a", "r1"]] * 3
    assert ailing.look().down == []
    assert len(ailing.asked) == 3


def test_who_was_silent_is_asked_again_when_it_starts_or_others_are(ailing):
    """Else a node that was asked while it was away could never be given another relay."""
    ailing.reports = {n: report(r1="up", r2="up") for n in "bc"}
    ailing.look(hints="a")
    assert ailing.ledger.health("wg0").silent == {"a"}
    ailing.asked.clear()
    ailing.look(hints="b")
    ailing.reports["a"] = report(r1="up", r2="up")
    ailing.look(started="a")
    assert ailing.asked == [["a", "b"], ["a"]]
    assert ailing.ledger.health("wg0").silent == set()


def test_a_node_that_starts_without_facts_is_told_to_apply_the_formula(ailing):
    """If the policy has a place for it and its key is accepted; not one that has published under this key."""
    ailing.policy["wg0"]["nodes"]["new*"] = {}
    accepted = {**{n: f"key of {n}" for n in (*ailing.mine, "new1", "stranger")}}
    original = ailing._inventory
    ailing._inventory = lambda: inventory.Inventory(policy=original().policy, accepted=accepted, mine=original().mine)
    told = {node: ailing.look(started=node).enrolling for node in ("new1", "a", "stranger", "unknown")}
    assert told == {"new1": ["new1"], "a": [], "stranger": [], "unknown": []}
    assert ailing.enrolled == [["new1"]]
    accepted["a"] = "another key"
    ailing.look(started="a")
    assert ailing.enrolled == [["new1"], ["a"]]


def test_a_node_that_says_it_drifted_applies_its_view_again_but_not_all_the_time(ailing):
    ailing.pushes.clear()
    for second in (1, 31, 32, 62):
        ailing.now = 1_000.0 + second
        ailing.look(drifted="a")
    assert ailing.pushes == [["a"], ["a"]]


def test_a_rebalance_moves_the_leaves_back_at_once(ailing):
    """Without it they stay where they are while the relay that came back rests."""
    before = ailing.homes()
    ailing.reports = {n: report(r1="down", r2="up") for n in "abc"} | {"r2": report(r1="down", a="up", b="up", c="up")}
    ailing.look(hints="a")
    ailing.reports = {n: report(r1="up", r2="up") for n in "abc"} | {"r2": report(r1="up", a="up", b="up", c="up")}
    ailing.look()
    ailing.now += 31
    assert ailing.look().down == []
    assert set(ailing.homes().values()) == {("r2", "r1")}
    converge.converge({}, converge.Asked.of([("rebalance", "")]))
    assert {first for first, _ in ailing.homes().values()} == {first for first, _ in before.values()}


def test_an_address_is_released_only_when_its_node_is_gone(world):
    """Neither with an accepted key nor out of a published plan; afterwards the register knows nothing of it."""
    world.converge()
    world.monkeypatch.setattr(inventory, "accepted_keys", lambda _opts: world._inventory().accepted)
    with pytest.raises(LedgerError, match="accepted key"):
        converge.release({}, "a")
    world.deleted = {"a"}
    with pytest.raises(LedgerError, match="published plan"):
        converge.release({}, "a")
    world.converge()
    (address,) = world.ledger.head("wg0").register.addresses["a"]
    assert converge.release({}, "a") == {"wg0": [address]}
    assert "a" not in world.ledger.head("wg0").register.addresses
    with pytest.raises(LedgerError, match="no addresses"):
        converge.release({}, "a")


# --- a view that a node took back ----------------------------------------------------------------------


@pytest.fixture
def broken(world, monkeypatch):
    """Generation 2 has another port for everybody; the relay, which is told first, takes it back."""
    world.converge()
    applied = world.applied

    def answer(node: str) -> dict[str, Any]:
        if node == "r1" and world.ledger.head("wg0").generation == 2:
            return {"wg0": {"digest": "that of before", "error": "taken back: a is not heard", "taken_back": True}}
        return applied(node)

    monkeypatch.setattr(world, "applied", answer)
    world.policy["wg0"]["listen_port"] = 51900
    return world


def test_what_a_node_took_back_nobody_else_is_told_of(broken):
    """Not by the run itself, nor by later ones, however long they go on; the node itself is let alone too."""
    report = broken.converge()
    assert report.failed == {"r1": "taken back: a is not heard"}
    assert report.stopped == "held back: r1: taken back: a is not heard"
    broken.now += 10_000
    report = broken.converge()
    assert (report.stopped, report.failed) == ("held back: r1: taken back: a is not heard", {})
    assert broken.pushes[1:] == [["r1"]]
    assert report.not_acknowledged == ["a", "b", "r1"]


def test_other_meshes_go_on(broken, monkeypatch):
    """What one mesh can't have stops no other one, neither in the run in which it shows nor later."""
    told, rest = broken.applied, lambda node: World.applied(broken, node)
    monkeypatch.setattr(broken, "applied", lambda node: {**rest(node), **told(node)})
    nodes = {node: {"endpoint": f"192.0.2.{i}"} for i, node in enumerate(("x", "y"), 1)}
    broken.policy["wg1"] = {"network": "10.1.0.0/24", "listen_port": 52000, "nodes": nodes}
    broken.mine |= {node: mine(node) for node in nodes}
    for mtu in (1420, 1400):
        broken.policy["wg1"]["mtu"] = mtu
        first, second = converge.converge({})
        assert (first.mesh, first.stopped) == ("wg0", "held back: r1: taken back: a is not heard")
        assert (second.mesh, second.stopped) == ("wg1", "")
        assert {"x", "y"} <= set(second.applied)


def test_what_was_taken_back_is_tried_again_when_asked_for_by_name(broken):
    """The one that was asked for is told, and as long as that one takes it back the others are not."""
    broken.converge()
    broken.converge("r1")
    assert broken.pushes[1:] == [["r1"], ["r1"]]


def test_another_plan_is_not_held(broken):
    """It is pushed as any other."""
    broken.converge()
    broken.policy["wg0"]["listen_port"] = 51901
    report = broken.converge()
    assert (report.generation, report.stopped, report.not_acknowledged) == (3, "", [])


def test_who_left_a_push_unanswered_is_told_again_though_the_plan_is_what_it_ran(world):
    """It may take up what it was told a moment after nobody waits for it any more, and would then be the only one."""
    world.converge()
    world.off = {"a"}
    world.policy["wg0"]["mtu"] = 1400
    world.converge()
    world.off = set()
    world.policy["wg0"].pop("mtu")
    report = world.converge()
    assert (sorted(report.applied), report.not_acknowledged) == (["a", "b", "r1"], [])


def test_a_view_that_was_taken_back_is_tried_anew_after_the_plan_was_another_in_between(broken, monkeypatch):
    """The node never left what that other plan wants of it, so it was not even told."""
    before = broken.ledger.head("wg0").digests["r1"]
    held = {"wg0": {"digest": before, "error": "taken back: a is not heard", "taken_back": True}}
    applied = broken.applied
    second = lambda: broken.ledger.head("wg0").generation == 2  # noqa: E731
    monkeypatch.setattr(broken, "applied", lambda node: held if node == "r1" and second() else applied(node))
    assert broken.converge().stopped
    broken.policy["wg0"].pop("listen_port")
    assert broken.converge().not_acknowledged == []
    broken.policy["wg0"]["listen_port"] = 51900
    report = broken.converge()
    assert (report.generation, report.stopped, report.not_acknowledged) == (4, "", [])
