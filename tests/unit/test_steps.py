"""A rollout as the master takes it: the World's nodes acknowledge, and say of all their links that they are up."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.master import checkup, converge, drain, record, steps
from tests.unit.test_converge import World, mine

RELAYS = {r: {"role": "relay", "endpoint": f"203.0.113.{i}"} for i, r in enumerate(("r1", "r2", "r3"), start=1)}


class Fleet(World):
    """Two leaves of a site that has the relays r1 and r2; r3 stands elsewhere."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.policy = {
            "wg0": {
                "network": "10.0.0.0/16",
                "topology": "hub",
                "sites": {"s": {"relays": ["r1", "r2"]}},
                "nodes": {**RELAYS, "a": {"site": "s"}, "b": {"site": "s"}},
            }
        }
        self.mine = {node: mine(node) for node in (*RELAYS, "a", "b")}
        self.unheard: set[frozenset[str]] = set()
        """Links that are not up yet."""
        self.held: set[frozenset[str]] = set()
        """Links that carry again and still count as down, by what they did before."""
        self.dead: set[frozenset[str]] = set()
        monkeypatch.setattr(
            checkup, "ask", lambda _opts, nodes, _gone: {n: self._says(n) for n in nodes if n not in self.off}
        )

    def _says(self, node: str) -> dict[str, LinkReport]:
        def link(other: str, interface: str) -> Link:
            pair = frozenset({node, other})
            down = pair in self.held | self.dead
            state = LinkState.NEW if pair in self.unheard else LinkState.DOWN if down else LinkState.UP
            return Link(neighbour=other, interface=interface, state=state, since=0.0, heard=pair in self.held)

        view = record.published(self.ledger, "wg0").plan.views[node]
        links = {p.node: link(p.node, i.name) for i in view.interfaces for p in i.peers}
        return {"wg0": LinkReport(mesh="wg0", watched=True, links=links)}

    def homes(self) -> dict[str, tuple[str, ...]]:
        """Leaf → its relays in the published plan."""
        members = record.published(self.ledger, "wg0").plan.members
        return {node: m.homes for node, m in members.items() if m.homes}

    def uplinks(self, leaf: str) -> int:
        """How many *leaf* has."""
        return len(record.published(self.ledger, "wg0").plan.views[leaf].interfaces) - 1

    def ask(self, **words: str) -> converge.Report:
        (report,) = converge.converge(self.opts, converge.Asked(**{k: frozenset({v}) for k, v in words.items()}))
        return report


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet(monkeypatch)
    made.converge()
    return made


def run(fleet: Fleet) -> list[int]:
    """Runs until nothing goes on; the uplinks of *a* after each."""
    seen = []
    for _ in range(8):
        report = fleet.converge()
        seen.append(fleet.uplinks("a"))
        if not report.goes_on:
            return seen
    raise AssertionError("it never ends")


def test_a_drained_relay_is_left_in_steps_and_stays_drained(fleet):
    """The new relay is there before the old one is left; then it goes. Another plan does not bring it back."""
    assert {relay for pair in fleet.homes().values() for relay in pair} == {"r1", "r2"}
    report = fleet.ask(drain="r1")
    assert report.goes_on
    assert report.waiting == ["a--r1", "b--r1"]
    assert all(homes[-1] == "r1" and len(homes) == 3 for homes in fleet.homes().values())
    assert run(fleet)[-1] == 2
    assert all(set(homes) == {"r2", "r3"} for homes in fleet.homes().values())
    fleet.policy["wg0"]["nodes"]["c"] = {"site": "s"}
    fleet.mine["c"] = mine("c")
    run(fleet)
    assert not any("r1" in homes for homes in fleet.homes().values())
    assert fleet.ledger.head("wg0").drained == {"r1"}
    assert record.published(fleet.ledger, "wg0").plan.views["r2"].drained == ("r1",)
    fleet.ask(undrain="r1")
    run(fleet)
    assert any("r1" in homes for homes in fleet.homes().values())
    assert fleet.ledger.head("wg0").drained == frozenset()


def test_no_step_is_taken_before_the_new_links_are_heard_by_an_end(fleet):
    fleet.unheard = {frozenset({"a", "r3"})}
    fleet.ask(drain="r1")
    for _ in range(3):
        assert fleet.converge().waiting[0] == "a--r1"
    assert fleet.homes()["a"][-1] == "r1"
    assert "r1" not in fleet.homes()["b"]
    fleet.unheard = set()
    assert run(fleet)[-1] == 2


def test_who_is_away_holds_nobody_up_and_keeps_its_links(fleet):
    """It is not waited for; when it is back, the steps go on for it."""
    fleet.off = {"a"}
    report = fleet.ask(drain="r1")
    while report.goes_on:
        report = fleet.converge()
    assert "r1" in fleet.homes()["a"]
    assert "r1" not in fleet.homes()["b"]
    fleet.off = set()
    fleet.converge("a")
    run(fleet)
    assert all(set(homes) == {"r2", "r3"} for homes in fleet.homes().values())


def test_a_link_that_carries_again_goes_when_others_carry_though_it_counts_as_cut(fleet):
    """The node's own hold may end at any moment: then it uses the link again, and must not lose it under its feet."""
    had = fleet.homes()["a"]
    fleet.held, fleet.unheard = {frozenset({"a", "r1"})}, {frozenset({"a", "r3"})}
    report = fleet.ask(hints="a")
    assert (fleet.ledger.health("wg0").cut, report.waiting) == ({("a", "r1")}, ["a--r1"])
    assert fleet.homes()["a"] == (*(r for r in had if r != "r1"), "r3", "r1")
    fleet.unheard = set()
    assert run(fleet)[-1] == 2
    assert fleet.homes()["a"] == (*(r for r in had if r != "r1"), "r3")


def test_a_link_that_is_dead_goes_at_once(fleet):
    had = fleet.homes()["a"]
    fleet.dead = {frozenset({"a", "r1"})}
    assert fleet.ask(hints="a").waiting == []
    assert fleet.homes()["a"] == (*(r for r in had if r != "r1"), "r3")


def test_nobody_depends_on_a_new_relay_until_the_others_hear_it(fleet):
    fleet.mine["r4"] = mine("r4")
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["r4"] = {"role": "relay", "endpoint": "203.0.113.4"}
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r4", "r1"]
    fleet.unheard = {frozenset({"r4", "r2"})}
    assert "r4" in fleet.converge().waiting
    fleet.converge()
    assert all("r4" not in homes[:1] for homes in fleet.homes().values())
    fleet.unheard = set()
    run(fleet)
    assert all(set(homes) == {"r4", "r1"} for homes in fleet.homes().values())
    assert fleet.ledger.head("wg0").drained == frozenset()


@pytest.mark.parametrize("preshared_keys", [False, True])
def test_relays_leave_though_only_one_stays(fleet, tmp_path, preshared_keys):
    """They can't be drained further than to be everybody's last choice; that this is so shows in the plan alone."""
    fleet.opts["pki_dir"] = str(tmp_path)
    fleet.policy["wg0"]["preshared_keys"] = preshared_keys
    run(fleet)
    wanted = copy.deepcopy(fleet.policy)
    wanted["wg0"] |= {"sites": {"s": {"relays": ["r1"]}}, "prune_guard": 100}
    for relay in ("r2", "r3"):
        del wanted["wg0"]["nodes"][relay]
    fleet.policy = wanted
    run(fleet)
    assert fleet.homes() == {"a": ("r1",), "b": ("r1",)}


def test_a_relay_that_leaves_the_policy_is_drained_first(fleet):
    """By the old policy; then the new one counts, and it is told to leave."""
    fleet.policy = copy.deepcopy(fleet.policy)
    del fleet.policy["wg0"]["nodes"]["r1"]
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r2"]
    fleet.converge()
    assert "r1" in record.published(fleet.ledger, "wg0").plan.members
    run(fleet)
    assert "r1" not in record.published(fleet.ledger, "wg0").plan.members
    assert fleet.ledger.views("r1")["wg0"]["removed"]
    assert fleet.ledger.head("wg0").kept == steps.rollout.NOTHING


def across(fleet: Fleet) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What r3 is in the published plan: its role, its relays, those that it has left, and those linked by a trunk."""
    member = record.published(fleet.ledger, "wg0").plan.members["r3"]
    return member.role.value, member.homes, member.idle, member.trunks


def crossed(fleet: Fleet, rule: dict[str, Any]) -> list[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    """What r3 is after each run, if that is its *rule* in the policy from now on."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["r3"] = rule
    seen = []
    for _ in range(12):
        report = fleet.converge()
        seen.append(across(fleet))
        if not report.goes_on:
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
"""One link after the other is left, made anew and used again."""


def in_one_order(seen: list[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]]) -> list[object]:
    """As if the relays of r3 were r1 and r2 in this order, whichever comes first."""
    full = next(homes for role, homes, idle, _ in seen if role == "leaf" and not idle)
    named = dict(zip(full, ("r1", "r2"), strict=True))

    def renamed(some: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(named[r] for r in some)

    return [(role, renamed(homes), renamed(idle), tuple(sorted(renamed(trunks)))) for role, homes, idle, trunks in seen]


def test_a_relay_becomes_a_leaf_one_link_after_the_other(fleet):
    seen = crossed(fleet, LEAF)
    assert in_one_order(list(dict.fromkeys(seen)))[: len(TO_LEAF)] == TO_LEAF
    assert fleet.ledger.head("wg0").kept == steps.rollout.NOTHING


def test_a_relay_that_leaves_have_is_left_by_them_before_it_becomes_a_leaf(fleet):
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r3", "r1"]
    run(fleet)
    assert all("r3" in homes for homes in fleet.homes().values())
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r1", "r2"]
    seen = list(dict.fromkeys(crossed(fleet, LEAF)))
    assert seen[0][0] == "relay"
    assert in_one_order(seen[1:]) == TO_LEAF


def test_a_relay_stays_one_until_its_leaves_hear_another(fleet):
    """Though nothing changes until then, and all run what is published."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r3", "r1"]
    run(fleet)
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["sites"]["s"]["relays"] = ["r1", "r2"]
    fleet.policy["wg0"]["nodes"]["r3"] = LEAF
    fleet.unheard = {frozenset({"a", "r2"})}
    for _ in range(4):
        fleet.converge()
        assert across(fleet)[0] == "relay"
    fleet.unheard = set()
    for _ in range(9):
        fleet.converge()
    assert across(fleet)[::3] == ("leaf", ())


def test_a_leaf_becomes_a_relay_in_the_opposite_order(fleet):
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
    assert fleet.ledger.head("wg0").kept == steps.rollout.NOTHING


def test_a_node_between_relay_and_leaf_waits_for_each_link_and_says_so(fleet):
    """It stays with its other link; a run that died in between leaves it there, too."""
    fleet.unheard = {frozenset({"r3", "r1"}), frozenset({"r3", "r2"})}
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["r3"] = LEAF
    for _ in range(4):
        assert fleet.converge().waiting == ["r3"]
    assert across(fleet)[2:] == ((), ("r1", "r2"))
    fleet.unheard = set()
    for _ in range(12):
        fleet.converge()
    assert across(fleet)[3] == ()


def test_a_node_between_relay_and_leaf_goes_back_if_it_is_to(fleet):
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["r3"] = LEAF
    for _ in range(3):
        fleet.converge()
    assert across(fleet)[3]
    assert crossed(fleet, RELAYS["r3"])[-1] == ("relay", (), (), ())
    assert fleet.ledger.head("wg0").kept == steps.rollout.NOTHING


@pytest.mark.parametrize("how", ["away", "refuses"])
def test_one_leaf_can_not_keep_a_relay_in_the_mesh(fleet, monkeypatch, how):
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
        fleet.converge("a")
    assert fleet.homes()["b"] == ("r2",)
    assert "r1" not in record.published(fleet.ledger, "wg0").plan.members


def test_a_relay_whose_key_is_deleted_goes_at_once(fleet):
    fleet.deleted = {"r1"}
    fleet.converge()
    assert "r1" not in record.published(fleet.ledger, "wg0").plan.members


def test_a_wave_that_fails_stops_those_after_it_and_they_follow_when_it_is_mended(fleet, monkeypatch):
    """Another MTU alters every link: the first relay is told alone."""
    fleet.policy["wg0"]["mtu"] = 1380
    answer: Any = fleet.applied
    monkeypatch.setattr(fleet, "applied", lambda n: {"wg0": {"error": "no"}} if n == "r1" else answer(n))
    report = fleet.converge()
    assert fleet.pushes[1:] == [["r1"]]
    assert (report.stopped, report.failed, report.not_acknowledged) == ("r1: no", {"r1": "no"}, ["a", "b", *RELAYS])
    assert fleet.converge().stopped == "r1: no"
    assert len(fleet.pushes) == 2
    monkeypatch.setattr(fleet, "applied", answer)
    report = fleet.converge("r1")
    assert fleet.pushes[2:] == [["r1"], ["r2", "r3"], ["a", "b"]]
    assert (report.stopped, report.not_acknowledged) == ("", [])


def test_what_still_depends_on_a_node_is_said(fleet, monkeypatch):
    monkeypatch.setattr(drain.Ledger, "of", lambda _opts: fleet.ledger)
    assert [line for line in drain._dependants(fleet.ledger, "r1") if "relay" in line] == [
        f"wg0: {leaf} has it as a relay" for leaf, homes in fleet.homes().items() if homes[0] == "r1"
    ]
    fleet.off = {"b"}
    fleet.ask(drain="r1")
    assert "wg0: b has not applied the new plan" in drain._dependants(fleet.ledger, "r1")
    fleet.off = set()
    fleet.converge("b")
    run(fleet)
    assert drain._dependants(fleet.ledger, "r1") == []
    with pytest.raises(LedgerError, match="nobody is in no published mesh"):
        drain.check({}, "nobody")
    fleet.ask(drain="r2")
    run(fleet)
    with pytest.raises(LedgerError, match="r3 is the only relay of wg0 that is not drained"):
        drain.check({}, "r3")
    with pytest.raises(LedgerError, match="r3 is not drained; drained are: r1, r2"):
        drain.check_drained({}, "r3")


@pytest.mark.parametrize(
    ("counts", "down", "still"),
    [
        ([7, 7], False, []),
        ([7, 9], False, ["it forwarded 2 packets within 1 s"]),
        ([None, None], False, ["it does not answer: whether it forwards anything is not known"]),
        ([None, None], True, []),
    ],
)
def test_a_drained_relay_may_be_stopped_once_it_forwards_nothing(fleet, monkeypatch, counts, down, still):
    """As it says itself; one that is silent may forward all the same, unless its neighbours call it down."""
    monkeypatch.setattr(drain.Ledger, "of", lambda _opts: fleet.ledger)
    fleet.ask(drain="r1")
    run(fleet)
    if down:
        fleet.ledger.keep_health("wg0", replace(fleet.ledger.health("wg0"), down=frozenset({"r1"})))
    told, now = itertools.cycle(counts), itertools.count(step=10.0)
    monkeypatch.setattr(drain.fleet, "forwarded", lambda _opts, _node: next(told))
    monkeypatch.setattr(drain.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(drain.time, "monotonic", lambda: next(now))
    found = drain.wait({}, "r1")
    assert (found["safe_to_stop"], found.get("still", [])) == (not still, still)


def ports(fleet: Fleet) -> dict[str, int]:
    """Node → the port of its access interface in the published plan."""
    views = record.published(fleet.ledger, "wg0").plan.views
    return {node: view.interfaces[0].listen_port for node, view in views.items()}


def test_another_port_is_taken_by_one_relay_after_the_other_and_then_by_the_leaves(fleet):
    """The next moves once all neighbours of those that moved hear them, if they can be asked."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["listen_port"] = 7000
    fleet.converge()
    fleet.unheard = {frozenset({"r1", "r3"})}
    seen = [ports(fleet)]
    for attempt in range(8):
        fleet.converge()
        if attempt == 2:
            fleet.unheard = set()
        if ports(fleet) != seen[-1]:
            seen.append(ports(fleet))
    moved = [[node for node, port in at.items() if port == 7000] for at in seen]
    assert moved == [["r1"], ["r1", "r2"], ["r1", "r2", "r3"], ["a", "b", "r1", "r2", "r3"]]
    assert fleet.ledger.head("wg0").kept == steps.rollout.NOTHING


def test_while_a_relay_moves_views_name_it_where_it_is(fleet):
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["listen_port"] = 7000
    report = fleet.converge()
    assert report.waiting == ["a", "b", "r2", "r3"]
    endpoints = {
        p.node: p.endpoint for i in record.published(fleet.ledger, "wg0").plan.views["r3"].interfaces for p in i.peers
    }
    assert endpoints == {"r1": "203.0.113.1:7003", "r2": "203.0.113.2:51823"}


def test_another_address_comes_before_the_old_one_goes(fleet):
    """Reached at both, then sending from the new one, then without the old; each once all who can be asked run it."""
    old = record.published(fleet.ledger, "wg0").plan.members["a"].addresses[0]
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"]["nodes"]["a"]["address"] = "10.0.9.9"
    fleet.off = {"b"}
    seen = []
    for attempt in range(8):
        fleet.converge("b" if attempt == 3 else None)
        addresses = record.published(fleet.ledger, "wg0").plan.members["a"].addresses
        seen += [addresses] if addresses not in seen[-1:] else []
        if attempt == 0:
            assert fleet.ledger.head("wg0").kept.addresses == {"a": (old, "10.0.9.9")}
        fleet.off = {"r3"} if attempt > 2 else {"b"}
    assert seen == [(old, "10.0.9.9"), ("10.0.9.9", old), ("10.0.9.9",)]
    probed = record.published(fleet.ledger, "wg0").plan.views["r1"].interfaces[0].peers[0].address
    assert probed == "10.0.9.9"
