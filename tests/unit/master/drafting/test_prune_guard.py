"""What would drop too much of a mesh is held until the operator confirms it, and the mesh is maintained."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import combinations

import pytest

from saltext_wgmesh.core.errors import LedgerError, PolicyError
from saltext_wgmesh.master.operator import show, status
from saltext_wgmesh.master.records import inventory
from saltext_wgmesh.master.records.inventory import Inventory
from saltext_wgmesh.master.records.published import resolve_mesh
from tests.unit.harness.fake_master import mine, reachable_by_commands
from tests.unit.harness.guarded_master import ALL, LEAVES, GuardedMaster


@pytest.fixture
def fleet(monkeypatch, tmp_path) -> GuardedMaster:
    master = GuardedMaster(pki_dir=str(tmp_path))
    reachable_by_commands(master, monkeypatch)
    return master


def test_large_loss_is_held_until_confirmed(fleet):
    """Nothing is published or pushed, every look says what is held and what to do; the digest lets exactly that go."""
    fleet.drop("c", "d", "e")
    report = fleet.run()
    assert (report.generation, report.published, report.is_clean, fleet.pushes) == (1, False, False, [])
    assert (report.held_loss.nodes, report.held_loss.links) == (("c", "d", "e"), ())
    assert (
        "3 of 7 nodes (3 matched by no entry of wgmesh:wg0:nodes), more than prune_guard: 20 %" in report.held_loss.why
    )
    digest = report.held_loss.digest
    assert report.held_loss.remedy.endswith(f"salt-run wgmesh.converge confirm={digest}")
    assert show.plan(fleet.opts)["wg0"].held_loss == report.held_loss
    assert status.status(fleet.opts, live=False)["wg0"].held_loss == report.held_loss
    assert fleet.members() == ALL
    report = fleet.run(confirm=digest)
    assert (report.published, report.held_loss, report.is_clean) == (True, None, True)
    assert fleet.members() == {"r1", "r2", "a", "b"}
    assert fleet.ledger.assignments("c")["wg0"]["removed"] is True
    assert status.status(fleet.opts, live=False)["wg0"].held_loss is None


def test_confirming_another_digest_changes_nothing(fleet):
    """Neither of nothing, nor of what was held before, nor of less; the error says what is held."""
    with pytest.raises(LedgerError, match="Held: nothing"):
        show.require_held(fleet.opts, "abc")
    fleet.drop("c", "d")
    old = fleet.run().held_loss.digest
    fleet.drop("e")
    new = fleet.run().held_loss.digest
    assert old != new
    with pytest.raises(LedgerError, match=f"confirm={old} is not what is held now.*confirm={new}"):
        show.require_held(fleet.opts, old)
    assert fleet.run(confirm=old).held_loss.digest == new
    assert fleet.members() == ALL
    show.require_held(fleet.opts, new)


def test_held_loss_is_reported_once(fleet):
    """The first run that holds something is eventful; those after it are silent, and not clean."""
    fleet.drop("c", "d")
    assert [fleet.run().made_changes for _ in range(3)] == [True, False, False]
    assert "newly_held" not in fleet.run().as_dict()
    fleet.drop("e")
    assert fleet.run().made_changes


def test_restored_policy_ends_the_hold(fleet):
    """Nothing is published for it."""
    before = copy.deepcopy(fleet.policy)
    fleet.drop("c", "d", "e")
    assert fleet.run().held_loss
    fleet.policy = before
    report = fleet.run()
    assert (report.held_loss, report.published, report.generation) == (None, False, 1)


def test_keys_deleted_one_by_one_pass(fleet):
    """Down to the last two."""
    for number, node in enumerate(LEAVES, start=2):
        fleet.deleted.add(node)
        report = fleet.run()
        assert (report.generation, report.held_loss) == (number, None)
        assert node not in fleet.members()


def test_keys_deleted_at_once_are_held_and_restorable(fleet):
    """Nothing is forgotten of them, so that keys that are accepted again find everything as it was."""
    fleet.deleted |= {"c", "d", "e"}
    report = fleet.run()
    assert "3 of 7 nodes (3 without an accepted key)" in report.held_loss.why
    assert fleet.members() == ALL
    assert {"c", "d", "e"} <= fleet.mine.keys()
    fleet.deleted.clear()
    report = fleet.run()
    assert (report.generation, report.is_clean, report.held_loss) == (1, True, None)
    assert "interfaces" in fleet.ledger.assignments("c")["wg0"]


def test_keys_deleted_at_once_go_when_confirmed(fleet):
    """With all that the master had of them."""
    fleet.deleted |= {"c", "d", "e"}
    fleet.run(confirm=fleet.run().held_loss.digest)
    assert fleet.members() == {"r1", "r2", "a", "b"}
    assert not {"c", "d", "e"} & fleet.mine.keys()
    assert fleet.ledger.assignments("c") == {}


@pytest.mark.parametrize("held", ["policy", "keys"])
def test_key_deleted_during_a_hold_goes(fleet, held):
    """A revocation waits for no decision."""
    if held == "policy":
        fleet.drop("c", "d", "e")
    else:
        fleet.deleted |= {"c", "d", "e"}
    digest = fleet.run().held_loss.digest
    fleet.deleted.add("a")
    fleet.run()
    assert fleet.members() == ALL - {"a"}
    assert "a" not in fleet.peers("r1")
    assert fleet.run().held_loss.digest == digest


def test_mesh_with_a_held_loss_is_healed(fleet):
    """A relay that dies during the hold is the last choice of all leaves, those included whose removal is held."""
    fleet.drop("c")
    fleet.deleted |= {"d", "e"}
    fleet.run()
    fleet.unheard = {"r1"}
    before = fleet.ledger.head("wg0").generation
    report = fleet.run(hints="a")
    assert (report.down, report.generation) == (("r1",), before + 1)
    assert {fleet.ledger.assignments(leaf)["wg0"]["routes"][0]["via"][0] for leaf in LEAVES} == {"r2"}


def test_vanished_facts_are_held(fleet):
    """Facts under other Salt keys than those accepted are no facts: five at once are held, one passes."""
    for leaf in LEAVES:
        fleet.mine[leaf]["salt_key"] = "another"
    original = fleet.inventory
    fleet.inventory = lambda: Inventory(
        policy=fleet.policy, accepted={**original().accepted, **dict.fromkeys(LEAVES, "new")}, mine=fleet.mine
    )
    report = fleet.run()
    assert "5 without facts that can be trusted" in report.held_loss.why
    assert fleet.members() == ALL


def test_lost_direct_links_are_held(fleet):
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
    assert (report.held_loss.nodes, report.held_loss.links[0]) == ((), "b--c")
    assert "6 of 6 direct links" in report.held_loss.why
    assert "c" in fleet.peers("b")
    assert fleet.run(confirm=report.held_loss.digest).held_loss is None
    while fleet.run().published:
        pass
    assert (fleet.peers("b"), fleet.run().held_loss) == ({"r1", "r2"}, None)


def test_links_lost_by_vanished_addresses_are_held(fleet):
    """Facts of two of them are enough to be asked; what else these facts say counts."""
    fleet.policy["wg0"]["sites"] = {"s": {}}
    for leaf in LEAVES:
        fleet.policy["wg0"]["nodes"][leaf] = {"site": "s"}
    fleet.run()
    for leaf in LEAVES:
        fleet.mine[leaf]["underlay"] = []
    assert len(fleet.run().held_loss.links) == 10
    assert fleet.peers("a") == {"r1", "r2", "b", "c", "d", "e"}


@pytest.mark.parametrize(("guard", "held"), [(42, True), (43, False), (100, False)])
def test_limit_is_the_policys_prune_guard(fleet, guard, held):
    """Three of seven are 42.9 %."""
    fleet.policy["wg0"]["prune_guard"] = guard
    fleet.drop("c", "d", "e")
    assert bool(fleet.run().held_loss) is held


def test_held_mesh_blocks_no_other(fleet):
    """The other mesh is published in the same run."""
    fleet.policy["wg1"] = {**copy.deepcopy(fleet.policy["wg0"]), "network": "10.1.0.0/16", "listen_port": 52000}
    for rule in fleet.policy["wg1"]["nodes"].values():
        if "endpoint" in rule:
            rule["endpoint"] += ":52000"
    fleet.drop("c", "d", "e")
    reports = fleet.run_all()
    assert (reports["wg0"].published, bool(reports["wg0"].held_loss)) == (False, True)
    assert (reports["wg1"].published, reports["wg1"].held_loss) == (True, None)


def test_drained_relays_are_held_once(fleet):
    """A policy without both relays of four needs one word, though the steps of the rollout take out more each time."""
    fleet.policy["wg0"]["nodes"] |= {f"r{n}": {"role": "relay", "endpoint": f"203.0.113.{n}"} for n in (3, 4)}
    fleet.mine |= {f"r{n}": mine(f"r{n}") for n in (3, 4)}
    fleet.run()
    fleet.drop("r1", "r2", "a")
    fleet.run(confirm=fleet.run().held_loss.digest)
    for _ in range(6):
        assert fleet.run().held_loss is None
    assert not {"r1", "r2", "a"} & fleet.members()


# --- a mesh taken out of the policy ------------------------------------------------------------------------


def second(fleet: GuardedMaster) -> None:
    """A mesh of two nodes beside it."""
    fleet.policy["wg1"] = {
        "network": "10.1.0.0/16",
        "listen_port": 52000,
        "nodes": {"r1": {"role": "relay", "endpoint": "203.0.113.1"}, "a": {}},
    }
    fleet.run_all()


@pytest.mark.parametrize("how", ["removed", "absent"])
def test_removed_mesh_goes_when_confirmed_and_keeps_addresses(fleet, how):
    """Held first, then every node is told to leave; what is published then holds no node, and addresses stay."""
    second(fleet)
    addresses = dict(fleet.ledger.head("wg0").allocations.addresses)
    old = fleet.policy.pop("wg0")
    if how == "absent":
        fleet.policy["wg0"] = "absent"
    held = fleet.run().held_loss
    assert held.nodes == tuple(sorted(ALL))
    assert "7 in a mesh that the policy no longer has" in held.why
    assert fleet.members() == ALL
    report = fleet.run(confirm=held.digest)
    assert (report.held_loss, report.applied) == (None, tuple(sorted(ALL)))
    assert {fleet.ledger.assignments(n)["wg0"]["removed"] for n in ALL} == {True}
    assert (fleet.run().published, fleet.run().is_clean) == (False, True)
    told = status.status(fleet.opts, live=False)["wg0"].as_dict()
    assert (told["nodes"], told["not_acknowledged"], told["retired"]) == ({}, [], True)
    assert fleet.members("wg1") == {"r1", "a"}
    fleet.policy["wg0"] = old
    fleet.run()
    assert fleet.members() == ALL
    assert dict(fleet.ledger.head("wg0").allocations.addresses) == addresses


def test_table_of_former_mesh_is_refused(fleet):
    """Its nodes empty the table when they leave it, which may be late. The policy has nothing of it any longer."""
    second(fleet)
    fleet.policy["m813"] = fleet.policy.pop("wg1")
    fleet.run_all(confirm=_held(fleet))
    former = fleet.policy.pop("m813")
    fleet.off = {"a"}
    fleet.run_all(confirm=_held(fleet))
    fleet.policy["m2055"] = former
    with pytest.raises(PolicyError, match=r"wgmesh:m2055.*routing table 870928782 is also that of wgmesh:m813"):
        fleet.run_all()
    fleet.policy["m2056"] = fleet.policy.pop("m2055")
    assert fleet.run_all()["m2056"].published


def _held(fleet: GuardedMaster) -> str:
    """The digest of the only loss that is held now."""
    try:
        (held,) = (report.held_loss for report in fleet.run_all().values() if report.held_loss)
    except PolicyError as error:
        return str(error).rpartition("confirm=")[2].split()[0].rstrip(";")
    return held.digest


def test_only_mesh_is_removed_by_absent(fleet):
    """An empty policy is still an error; the word is none, and is held all the same."""
    fleet.policy = {}
    with pytest.raises(PolicyError):
        fleet.run()
    fleet.policy = {"wg0": "absent"}
    fleet.run(confirm=fleet.run().held_loss.digest)
    assert fleet.members() == set()


def test_silent_node_is_told_to_leave_later(fleet):
    """The status names the nodes that have not left yet."""
    fleet.off = {"c"}
    fleet.policy = {"wg0": "absent"}
    fleet.run(confirm=fleet.run().held_loss.digest)
    assert status.status(fleet.opts, live=False)["wg0"].not_acknowledged == ("c",)
    fleet.off = set()
    assert fleet.run(retry="c").applied == ("c",)


def test_renamed_mesh_waits_for_the_held_one(fleet):
    """Renaming a mesh would have two on one port: the error says how the old one goes, and then it is published."""
    fleet.policy["wg1"] = fleet.policy.pop("wg0")
    with pytest.raises(PolicyError, match="listen") as caught:
        fleet.run_all()
    digest = str(caught.value).rpartition("confirm=")[2].split()[0].rstrip(";")
    show.require_held(fleet.opts, digest)
    reports = fleet.run_all(confirm=digest)
    assert (fleet.members("wg0"), fleet.members("wg1")) == (set(), ALL)
    assert reports["wg1"].published
    # The removed mesh is no longer a candidate where none is named.
    assert show.graph(fleet.opts, None, "table")
    assert resolve_mesh(fleet.ledger, None) == "wg1"


def test_plan_names_missing_nodes(fleet, monkeypatch):
    """A name that no minion has, and a minion that published nothing; not nodes without a place."""
    assert show.plan(fleet.opts)["wg0"].missing == {}
    fleet.policy["wg0"]["nodes"] |= {"ghost": {}, "nobody": "absent", "f*": {}}
    found = fleet.inventory()
    accepted = {**found.accepted, **dict.fromkeys(("f1", "nobody", "stranger"), "key")}
    monkeypatch.setattr(inventory, "read_inventory", lambda _opts: replace(found, accepted=accepted))
    told = show.plan(fleet.opts)["wg0"].missing
    assert set(told) == {"ghost", "f1"}
    assert "no minion of this id has an accepted key" in told["ghost"]
    assert "'salt f1 state.apply wgmesh'" in told["f1"]
