"""What would drop too much of a mesh is held until the operator confirms it, and the mesh is looked after meanwhile."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from saltext_wgmesh.core import health, render
from saltext_wgmesh.core.errors import LedgerError, PolicyError
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.master import checkup, converge, inventory, pinned, record, show, status
from saltext_wgmesh.master.draft import draft
from tests.unit.test_converge import World, mine

LEAVES = ("a", "b", "c", "d", "e")


class Fleet(World):
    """Two relays and five leaves that run generation 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        super().__init__(monkeypatch)
        self.opts = {"pki_dir": str(folder)}
        self.unheard: set[str] = set()
        nodes = self.policy["wg0"]["nodes"]
        nodes["r2"] = {"role": "relay", "endpoint": "203.0.113.2"}
        nodes |= {leaf: {} for leaf in LEAVES}
        self.mine = {node: mine(node) for node in nodes}
        monkeypatch.setattr(inventory, "accepted_keys", lambda _opts: self._inventory().accepted)
        monkeypatch.setattr(inventory, "raw_policy", lambda _opts: self.policy)
        monkeypatch.setattr(checkup, "ask", lambda _opts, nodes, _gone: {node: self.hears(node) for node in nodes})
        self.reports()
        self.pushes.clear()

    def _inventory(self) -> inventory.Inventory:
        # What the ledger keeps of the policy is not what the test changes next.
        return copy.deepcopy(super()._inventory())

    def hears(self, node: str) -> dict[str, LinkReport]:
        """All links of *node* are up, but those to whom nobody hears, and of these all."""

        def state(other: str) -> LinkState:
            return LinkState.DOWN if self.unheard & {node, other} else LinkState.UP

        links = {n: Link(neighbour=n, interface="wg0", state=state(n), since=1.0) for n in self.peers(node)}
        return {"wg0": LinkReport(mesh="wg0", watched=True, links=links)}

    def reports(self, **words: str) -> dict[str, converge.Report]:
        asked = converge.Asked(**{kind: frozenset({word}) for kind, word in words.items()})
        return {report.mesh: report for report in converge.converge(self.opts, asked)}

    def run(self, **words: str) -> converge.Report:
        return self.reports(**words)["wg0"]

    def drop(self, *nodes: str) -> None:
        """The policy has no rule for *nodes* any more."""
        for node in nodes:
            del self.policy["wg0"]["nodes"][node]

    def members(self, mesh: str = "wg0") -> set[str]:
        """Who has a view."""
        return {n for n, digest in self.ledger.head(mesh).digests.items() if ":" not in digest}

    def peers(self, node: str) -> set[str]:
        return {p["node"] for i in self.ledger.views(node)["wg0"]["interfaces"] for p in i["peers"]}


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    return Fleet(monkeypatch, tmp_path)


ALL = {"r1", "r2", *LEAVES}


def test_a_policy_that_drops_half_the_nodes_is_held_until_its_digest_is_confirmed(fleet):
    """Nothing is published or pushed, every look says what is held and what to do; the digest lets exactly that go."""
    fleet.drop("c", "d", "e")
    report = fleet.run()
    assert (report.generation, report.published, report.clean, fleet.pushes) == (1, False, False, [])
    assert (report.held["nodes"], report.held["links"]) == (["c", "d", "e"], [])
    assert "3 of 7 nodes (3 matched by no entry of wgmesh:wg0:nodes), more than prune_guard: 20 %" in report.held["why"]
    digest = report.held["digest"]
    assert report.held["do"].endswith(f"salt-run wgmesh.converge confirm={digest}")
    assert show.plan(fleet.opts)["wg0"]["held"] == report.held
    assert status.status(fleet.opts, live=False)["wg0"]["held"] == report.held
    assert fleet.members() == ALL
    report = fleet.run(confirm=digest)
    assert (report.published, report.held, report.clean) == (True, {}, True)
    assert fleet.members() == {"r1", "r2", "a", "b"}
    assert fleet.ledger.views("c")["wg0"]["removed"] is True
    assert "held" not in status.status(fleet.opts, live=False)["wg0"]


def test_a_digest_of_something_else_lets_nothing_go(fleet):
    """Neither of nothing, nor of what was held before, nor of less; the error says what is held."""
    with pytest.raises(LedgerError, match="Held: nothing"):
        show.refuse_confirm(fleet.opts, "abc")
    fleet.drop("c", "d")
    old = fleet.run().held["digest"]
    fleet.drop("e")
    new = fleet.run().held["digest"]
    assert old != new
    with pytest.raises(LedgerError, match=f"confirm={old} is not what is held now.*confirm={new}"):
        show.refuse_confirm(fleet.opts, old)
    assert fleet.run(confirm=old).held["digest"] == new
    assert fleet.members() == ALL
    show.refuse_confirm(fleet.opts, new)


def test_it_is_told_once(fleet):
    """The first run that holds something is eventful; those after it are silent, and not clean."""
    fleet.drop("c", "d")
    assert [fleet.run().eventful for _ in range(3)] == [True, False, False]
    assert "newly_held" not in fleet.run().as_dict()
    fleet.drop("e")
    assert fleet.run().eventful


def test_what_is_put_back_is_held_no_more(fleet):
    before = copy.deepcopy(fleet.policy)
    fleet.drop("c", "d", "e")
    assert fleet.run().held
    fleet.policy = before
    report = fleet.run()
    assert (report.held, report.published, report.generation) == ({}, False, 1)


def test_keys_deleted_one_after_the_other_pass_each(fleet):
    """Down to the last two."""
    for number, node in enumerate(LEAVES, start=2):
        fleet.deleted.add(node)
        report = fleet.run()
        assert (report.generation, report.held) == (number, {})
        assert node not in fleet.members()


def test_keys_deleted_at_once_are_held_and_come_back_whole(fleet):
    """Nothing is forgotten of them, so that keys that are accepted again find everything as it was."""
    fleet.deleted |= {"c", "d", "e"}
    report = fleet.run()
    assert "3 of 7 nodes (3 without an accepted key)" in report.held["why"]
    assert fleet.members() == ALL
    assert {"c", "d", "e"} <= fleet.mine.keys()
    fleet.deleted.clear()
    report = fleet.run()
    assert (report.generation, report.clean, report.held) == (1, True, {})
    assert "interfaces" in fleet.ledger.views("c")["wg0"]


def test_keys_deleted_at_once_go_when_it_is_confirmed(fleet):
    fleet.deleted |= {"c", "d", "e"}
    fleet.run(confirm=fleet.run().held["digest"])
    assert fleet.members() == {"r1", "r2", "a", "b"}
    assert not {"c", "d", "e"} & fleet.mine.keys()
    assert fleet.ledger.views("c") == {}


@pytest.mark.parametrize("held", ["policy", "keys"])
def test_a_key_that_is_deleted_while_something_is_held_goes_all_the_same(fleet, held):
    """A revocation waits for nobody."""
    if held == "policy":
        fleet.drop("c", "d", "e")
    else:
        fleet.deleted |= {"c", "d", "e"}
    digest = fleet.run().held["digest"]
    fleet.deleted.add("a")
    fleet.run()
    assert fleet.members() == ALL - {"a"}
    assert "a" not in fleet.peers("r1")
    assert fleet.run().held["digest"] == digest


def test_a_mesh_of_which_something_is_held_is_healed_all_the_same(fleet):
    """A relay that dies meanwhile is the last choice of all leaves, those included whose removal is held."""
    fleet.drop("c")
    fleet.deleted |= {"d", "e"}
    fleet.run()
    fleet.ledger.keep_health(
        "wg0", health.Health(down=frozenset({"r1"}), nodes={"r1": health.Trouble(since=0.0, by=("a",))})
    )
    before = fleet.ledger.head("wg0").generation
    converge._publish(fleet.opts, fleet.ledger, draft(fleet.opts, fleet.ledger)[0])
    assert fleet.ledger.head("wg0").generation == before + 1
    assert {fleet.ledger.views(leaf)["wg0"]["routes"][0]["via"][0] for leaf in LEAVES} == {"r2"}


def test_facts_that_vanish_for_good_are_held(fleet):
    """Facts under other Salt keys than those accepted are no facts: five at once are held, one passes."""
    for leaf in LEAVES:
        fleet.mine[leaf]["salt_key"] = "another"
    original = fleet._inventory
    fleet._inventory = lambda: inventory.Inventory(
        policy=fleet.policy, accepted={**original().accepted, **dict.fromkeys(LEAVES, "new")}, mine=fleet.mine
    )
    report = fleet.run()
    assert "5 without facts that can be believed" in report.held["why"]
    assert fleet.members() == ALL


def test_direct_links_are_counted_too(fleet):
    """One node may lose all of its links; a policy that has none of the others' any more is held."""
    pairs = [list(pair) for pair in combinations(LEAVES, 2)]
    fleet.policy["wg0"]["links"] = pairs
    fleet.run()
    fleet.policy["wg0"]["links"] = [pair for pair in pairs if "a" not in pair]
    while fleet.run().published:
        pass
    assert fleet.peers("a") == {"r1", "r2"}
    fleet.policy["wg0"]["links"] = []
    report = fleet.run()
    assert (report.held["nodes"], report.held["links"][0]) == ([], "b--c")
    assert "6 of 6 direct links" in report.held["why"]
    assert "c" in fleet.peers("b")
    assert fleet.run(confirm=report.held["digest"]).held == {}
    while fleet.run().published:
        pass
    assert (fleet.peers("b"), fleet.run().held) == ({"r1", "r2"}, {})


def test_links_lost_because_many_nodes_say_that_they_have_no_address_are_held(fleet):
    """Facts of two of them are enough to be asked; what else these facts say counts."""
    fleet.policy["wg0"]["sites"] = {"s": {}}
    for leaf in LEAVES:
        fleet.policy["wg0"]["nodes"][leaf] = {"site": "s"}
    fleet.run()
    for leaf in LEAVES:
        fleet.mine[leaf]["underlay"] = []
    assert len(fleet.run().held["links"]) == 10
    assert fleet.peers("a") == {"r1", "r2", "b", "c", "d", "e"}


@pytest.mark.parametrize(("guard", "held"), [(42, True), (43, False), (100, False)])
def test_the_share_is_the_policys(fleet, guard, held):
    """Three of seven are 42.9 %."""
    fleet.policy["wg0"]["prune_guard"] = guard
    fleet.drop("c", "d", "e")
    assert bool(fleet.run().held) is held


def test_another_mesh_is_published_meanwhile(fleet):
    fleet.policy["wg1"] = {**copy.deepcopy(fleet.policy["wg0"]), "network": "10.1.0.0/16", "listen_port": 52000}
    for rule in fleet.policy["wg1"]["nodes"].values():
        if "endpoint" in rule:
            rule["endpoint"] += ":52000"
    fleet.drop("c", "d", "e")
    reports = fleet.reports()
    assert (reports["wg0"].published, bool(reports["wg0"].held)) == (False, True)
    assert (reports["wg1"].published, reports["wg1"].held) == (True, {})


def test_relays_that_are_drained_before_they_go_are_held_once_at_most(fleet):
    """A policy without both relays of four needs one word, though the steps of the rollout take out more each time."""
    fleet.policy["wg0"]["nodes"] |= {f"r{n}": {"role": "relay", "endpoint": f"203.0.113.{n}"} for n in (3, 4)}
    fleet.mine |= {f"r{n}": mine(f"r{n}") for n in (3, 4)}
    fleet.run()
    fleet.drop("r1", "r2", "a")
    fleet.run(confirm=fleet.run().held["digest"])
    for _ in range(6):
        assert fleet.run().held == {}
    assert not {"r1", "r2", "a"} & fleet.members()


# --- a mesh taken out of the policy ------------------------------------------------------------------------


def second(fleet: Fleet) -> None:
    """A mesh of two nodes beside it."""
    fleet.policy["wg1"] = {
        "network": "10.1.0.0/16",
        "listen_port": 52000,
        "nodes": {"r1": {"role": "relay", "endpoint": "203.0.113.1"}, "a": {}},
    }
    fleet.reports()


@pytest.mark.parametrize("how", ["removed", "absent"])
def test_a_mesh_out_of_the_policy_goes_when_it_is_confirmed_and_comes_back_with_its_addresses(fleet, how):
    """Held first, then every node is told to leave; what is published then holds no node, and addresses stay."""
    second(fleet)
    addresses = dict(fleet.ledger.head("wg0").register.addresses)
    old = fleet.policy.pop("wg0")
    if how == "absent":
        fleet.policy["wg0"] = "absent"
    held = fleet.run().held
    assert held["nodes"] == sorted(ALL)
    assert "7 in a mesh that the policy has no more" in held["why"]
    assert fleet.members() == ALL
    report = fleet.run(confirm=held["digest"])
    assert (report.held, report.applied) == ({}, sorted(ALL))
    assert {fleet.ledger.views(n)["wg0"]["removed"] for n in ALL} == {True}
    assert (fleet.run().published, fleet.run().clean) == (False, True)
    told = status.status(fleet.opts, live=False)["wg0"]
    assert (told["nodes"], told["not_acknowledged"], told["retired"]) == ({}, [], True)
    assert fleet.members("wg1") == {"r1", "a"}
    fleet.policy["wg0"] = old
    fleet.run()
    assert fleet.members() == ALL
    assert dict(fleet.ledger.head("wg0").register.addresses) == addresses


def test_the_only_mesh_goes_by_the_word_absent(fleet):
    """An empty policy is still an error; the word is none, and is held all the same."""
    fleet.policy = {}
    with pytest.raises(PolicyError):
        fleet.run()
    fleet.policy = {"wg0": "absent"}
    fleet.run(confirm=fleet.run().held["digest"])
    assert fleet.members() == set()


def test_who_is_silent_is_told_to_leave_later(fleet):
    """The status names who has not left yet."""
    fleet.off = {"c"}
    fleet.policy = {"wg0": "absent"}
    fleet.run(confirm=fleet.run().held["digest"])
    assert status.status(fleet.opts, live=False)["wg0"]["not_acknowledged"] == ["c"]
    fleet.off = set()
    assert fleet.run(again="c").applied == ["c"]


def test_a_mesh_in_the_place_of_one_that_is_held_waits_for_it(fleet):
    """Renaming a mesh would have two on one port: the error says how the old one goes, and then it is published."""
    fleet.policy["wg1"] = fleet.policy.pop("wg0")
    with pytest.raises(PolicyError, match="listen") as caught:
        fleet.reports()
    digest = str(caught.value).rpartition("confirm=")[2].split()[0].rstrip(";")
    show.refuse_confirm(fleet.opts, digest)
    reports = fleet.reports(confirm=digest)
    assert (fleet.members("wg0"), fleet.members("wg1")) == (set(), ALL)
    assert reports["wg1"].published
    # Nobody needs to say any more which of the two is meant.
    assert show.graph(fleet.opts, None, "table")
    assert record.mesh_of(fleet.ledger, None) == "wg1"


def test_plan_tells_whom_the_policy_names_and_who_is_not_there(fleet, monkeypatch):
    """A name that no minion has, a minion that published nothing; not who has no place, nor who is there."""
    assert "lacking" not in show.plan(fleet.opts)["wg0"]
    fleet.policy["wg0"]["nodes"] |= {"ghost": {}, "nobody": "absent", "f*": {}}
    found = fleet._inventory()
    accepted = {**found.accepted, **dict.fromkeys(("f1", "nobody", "stranger"), "key")}
    monkeypatch.setattr(inventory, "read", lambda _opts: replace(found, accepted=accepted))
    told = show.plan(fleet.opts)["wg0"]["lacking"]
    assert set(told) == {"ghost", "f1"}
    assert "no minion of this id has an accepted key" in told["ghost"]
    assert "'salt f1 state.apply wgmesh'" in told["f1"]


# --- back to an earlier generation -------------------------------------------------------------------------


def mtu(fleet: Fleet) -> int:
    return fleet.ledger.views("a")["wg0"]["mtu"]


def test_a_mesh_is_planned_by_the_policy_of_an_earlier_generation_until_the_pillar_changes(fleet):
    """With the nodes of now; a policy that changes ends it, as does generation 0, and plan and status say so."""
    fleet.policy["wg0"]["mtu"] = 1400
    assert fleet.run().generation == 2
    fleet.mine.pop("e")
    assert fleet.run().generation == 3
    pinned.pin(fleet.opts, 1, None)
    assert (fleet.run().generation, mtu(fleet)) == (4, 1420)
    assert fleet.run().published is False
    assert fleet.members() == ALL - {"e"}
    for told in (show.plan(fleet.opts), status.status(fleet.opts, live=False)):
        assert told["wg0"]["rolled_back"]["generation"] == 1
        assert "generation=0" in told["wg0"]["rolled_back"]["do"]
    pinned.pin(fleet.opts, 0, "wg0")
    assert (fleet.run().generation, mtu(fleet)) == (5, 1400)
    pinned.pin(fleet.opts, 1, "wg0")
    assert (fleet.run().generation, mtu(fleet)) == (6, 1420)
    fleet.policy["wg0"]["mtu"] = 1390
    assert (fleet.run().generation, mtu(fleet)) == (7, 1390)
    assert "rolled_back" not in status.status(fleet.opts, live=False)["wg0"]
    fleet.policy["wg0"]["mtu"] = 1400
    assert (fleet.run().generation, mtu(fleet)) == (8, 1400)


def test_a_policy_with_errors_hinders_no_rollback(fleet):
    fleet.policy["wg0"]["mtu"] = 1400
    fleet.run()
    fleet.policy["wg0"]["mtu"] = "large"
    with pytest.raises(PolicyError):
        fleet.run()
    pinned.pin(fleet.opts, 1, "wg0")
    fleet.run()
    assert mtu(fleet) == 1420


def test_the_order_of_rules_is_a_change_of_the_policy(fleet):
    """The first that matches counts."""
    pinned.pin(fleet.opts, 1, "wg0")
    fleet.run()
    assert "rolled_back" in status.status(fleet.opts, live=False)["wg0"]
    nodes = fleet.policy["wg0"]["nodes"]
    nodes["a"] = nodes.pop("a")
    fleet.run()
    assert "rolled_back" not in status.status(fleet.opts, live=False)["wg0"]


@pytest.mark.parametrize("generation", [3, 99, -1])
def test_an_unknown_generation_is_an_error_that_lists_the_known(fleet, generation):
    fleet.policy["wg0"]["mtu"] = 1400
    fleet.run()
    with pytest.raises(LedgerError, match=f"generation {generation} is not in the ledger; those are: 1, 2"):
        pinned.pin(fleet.opts, generation, "wg0")
    with pytest.raises(LedgerError, match="mesh=<one of wg0>"):
        pinned.pin(fleet.opts, 1, "wg7")


def test_a_rollback_to_a_policy_with_fewer_nodes_is_held_like_any_other(fleet):
    fleet.policy["wg0"]["nodes"] |= {"x": {}, "y": {}, "z": {}}
    fleet.mine |= {n: mine(n) for n in "xyz"}
    fleet.run()
    pinned.pin(fleet.opts, 1, "wg0")
    report = fleet.run()
    assert report.held["nodes"] == ["x", "y", "z"]
    fleet.run(confirm=report.held["digest"])
    assert fleet.members() == ALL


# --- the only relay ----------------------------------------------------------------------------------------


@pytest.fixture
def hub(fleet: Fleet) -> Fleet:
    """The fleet with one relay, which listens elsewhere since a moment ago."""
    fleet.drop("r2")
    del fleet.mine["r2"]
    fleet.run()
    fleet.now += 1000
    fleet.policy["wg0"]["listen_port"] = 51999
    fleet.run()
    fleet.now += 10
    return fleet


def port(fleet: Fleet) -> int:
    return fleet.ledger.views("r1")["wg0"]["interfaces"][0]["listen_port"]


def look(fleet: Fleet, seconds: float) -> converge.Report:
    """What a run says that many seconds later, in which somebody hints at the relay."""
    fleet.now += seconds
    return fleet.run(hints="a")


def test_a_policy_that_costs_the_only_relay_is_gone_back_from(hub):
    """Not at once: leaves behind NAT find it when they are told. Status and report say why until the pillar changes."""
    hub.unheard = {"r1"}
    assert (look(hub, 0).warnings, port(hub)) == ([], 51999)
    assert (look(hub, pinned.PATIENCE - 1).warnings, port(hub)) == ([], 51999)
    (why,) = look(hub, 1).warnings
    assert "r1, the only relay, was not heard any more" in why
    assert port(hub) == 51820
    assert "r1, the only relay" in status.status(hub.opts, live=False)["wg0"]["rolled_back"]["why"]
    assert "r1, the only relay" in render.status(status.status(hub.opts, live=False))
    assert (look(hub, 60).warnings, port(hub)) == ([], 51820)
    hub.unheard.clear()
    look(hub, 60)
    hub.policy["wg0"]["listen_port"] = 51900
    look(hub, 60)
    assert port(hub) == 51900
    assert "rolled_back" not in status.status(hub.opts, live=False)["wg0"]


def test_an_operator_may_insist(hub):
    hub.unheard = {"r1"}
    look(hub, 0)
    look(hub, pinned.PATIENCE)
    assert port(hub) == 51820
    pinned.pin(hub.opts, 0, "wg0")
    hub.unheard.clear()
    look(hub, 60)
    assert port(hub) == 51999
    hub.unheard = {"r1"}
    look(hub, 10)
    assert (look(hub, pinned.PATIENCE).warnings, port(hub)) == ([], 51999)
    assert "rolled_back" not in status.status(hub.opts, live=False)["wg0"]


def test_a_relay_that_is_heard_again_is_no_reason(hub):
    hub.unheard = {"r1"}
    look(hub, 0)
    hub.unheard.clear()
    assert (look(hub, pinned.PATIENCE).warnings, port(hub)) == ([], 51999)


def test_a_relay_that_went_down_later_is_no_reason(hub):
    hub.unheard = {"r1"}
    look(hub, pinned.CAUSE)
    assert (look(hub, pinned.PATIENCE).warnings, port(hub)) == ([], 51999)


def test_neither_is_one_that_was_down_before(fleet):
    fleet.drop("r2")
    del fleet.mine["r2"]
    fleet.run()
    fleet.unheard = {"r1"}
    look(fleet, 10)
    fleet.policy["wg0"]["listen_port"] = 51999
    look(fleet, 10)
    assert (look(fleet, pinned.PATIENCE).warnings, port(fleet)) == ([], 51999)


def test_neither_is_what_did_not_concern_its_links(fleet):
    """A policy that adds a node."""
    fleet.drop("r2")
    del fleet.mine["r2"]
    fleet.run()
    fleet.policy["wg0"]["nodes"]["x"] = {}
    fleet.mine["x"] = mine("x")
    fleet.run()
    fleet.unheard = {"r1"}
    look(fleet, 10)
    assert look(fleet, pinned.PATIENCE).warnings == []
    assert "x" in fleet.members()


def test_with_another_relay_the_mesh_goes_on(fleet):
    fleet.policy["wg0"]["listen_port"] = 51999
    fleet.run()
    fleet.unheard = {"r1"}
    look(fleet, 10)
    assert look(fleet, pinned.PATIENCE).warnings == []


def test_a_policy_that_was_changed_since_is_tried(hub):
    hub.unheard = {"r1"}
    look(hub, 0)
    hub.policy["wg0"]["listen_port"] = 51900
    assert (look(hub, pinned.PATIENCE).warnings, port(hub)) == ([], 51900)
