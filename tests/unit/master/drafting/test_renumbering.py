"""A published mesh gets other networks or addresses: in steps, without a packet lost, and with nothing left behind."""

from __future__ import annotations

import copy
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest

from saltext_wgmesh.core.errors import PlanError, PolicyError
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.transition.state import NO_TRANSITION
from tests.unit.harness.fake_master import mine
from tests.unit.harness.mixtures import disconnected_pairs, ends_up, mixed
from tests.unit.harness.renumbering import unheard
from tests.unit.harness.stepping_master import SteppingMaster

OLD, NEW = "10.0.0.0/16", "10.200.0.0/16"


@pytest.fixture
def fleet() -> SteppingMaster:
    return SteppingMaster()


def change(fleet: SteppingMaster, **settings: Any) -> None:
    """Change the policy of wg0."""
    fleet.policy = copy.deepcopy(fleet.policy)
    fleet.policy["wg0"] |= settings


def runs(fleet: SteppingMaster, most: int = 8) -> list[Plan]:
    """Run until nothing goes on, and return the plans that were published."""
    seen = []
    for _ in range(most):
        report = fleet.run()
        seen.append(fleet.plan())
        if not report.has_follow_up:
            return seen
    raise AssertionError("it never ends")


def inside(plan: Plan, networks: list[str]) -> bool:
    """Return whether each address, route and allowed-ip of *plan* is in one of *networks*."""
    texts = {p for v in plan.views.values() for r in v.routes for p in r.prefixes}
    texts |= {a for v in plan.views.values() for i in v.interfaces for p in i.peers for a in p.allowed_ips}
    texts |= {a for m in plan.members.values() for a in m.addresses}
    listed = [ip_network(n) for n in networks]
    hosts = [ip_address(t.partition("/")[0]) for t in texts]
    return all(any(h in n for n in listed) for h in hosts)


@pytest.mark.parametrize(
    ("before", "after", "steps"),
    [
        pytest.param([OLD], [NEW], 3, id="another network"),
        pytest.param([OLD, "fd00::/64"], [NEW, "fd01::/64"], 3, id="both families"),
        pytest.param([OLD], ["10.0.0.0/24"], 3, id="a part of it"),
        pytest.param(["10.0.0.0/24"], [OLD], 1, id="a wider one"),
        pytest.param([OLD], ["fd01::/64"], 3, id="another family"),
        pytest.param(["fd01::/64"], [OLD], 3, id="and back"),
        pytest.param(["fd01::/64"], [OLD, "fd01::/64"], 3, id="one more family"),
        pytest.param([OLD, "fd01::/64"], ["fd01::/64"], 3, id="one family less"),
        pytest.param([OLD, "fd01::/64"], [NEW], 3, id="one family less, and another network"),
    ],
)
def test_other_network_is_reached_in_steps(fleet, before, after, steps):
    """Nodes that have applied a step, and those that have not, hear each other; at the end nothing former is left."""
    change(fleet, network=before)
    first = runs(fleet)[-1]
    change(fleet, network=after)
    seen = runs(fleet)
    assert len(seen) == steps
    for old, new in pairwise([first, *seen]):
        for late in new.members:
            plan = mixed({n: old if n == late else new for n in new.members}, first)
            assert disconnected_pairs(plan, ends_up(old), old, new) == []
            assert list(unheard(plan)) == []
    assert inside(seen[-1], after)
    assert fleet.ledger.head("wg0").transition == NO_TRANSITION


def test_other_network_and_relays_change_together(fleet):
    """A relay that leaves is drained by the published policy first; one that becomes a leaf is renumbered, too."""
    first = runs(fleet)[-1]
    change(fleet, network=NEW, sites={"s": {"relays": ["r2", "r4"]}}, prune_guard=100)
    nodes = {n: rule for n, rule in fleet.policy["wg0"]["nodes"].items() if n != "r1"}
    fleet.mine["r4"] = mine("r4")
    change(fleet, nodes={"r4": {"role": "relay", "endpoint": "203.0.113.4"}, **nodes, "r3": {"site": "s"}})
    seen = runs(fleet, most=20)
    for old, new in pairwise([first, *seen]):
        common = {n: new for n in old.members if n in new.members}
        for late in common:
            plan = mixed({**common, late: old}, first) if common.keys() == new.members.keys() else new
            assert [t for t in unheard(plan) if "r1" not in t] == []
    assert inside(seen[-1], [NEW])
    assert {n: m.role.value for n, m in seen[-1].members.items()} == {
        "a": "leaf",
        "b": "leaf",
        "r2": "relay",
        "r3": "leaf",
        "r4": "relay",
    }


def test_block_of_a_site_moves_with_the_network(fleet):
    """Its nodes have addresses in the new block at the end."""
    fleet.policy["wg0"]["sites"]["s"]["network"] = "10.0.5.0/24"
    runs(fleet)
    change(fleet, network=NEW, sites={"s": {"relays": ["r1", "r2"], "network": "10.200.6.0/24"}})
    last = runs(fleet)[-1]
    assert all(last.members[n].addresses[0].startswith("10.200.6.") for n in "ab")


def test_other_block_alone_renumbers_no_node(fleet):
    """A node keeps an address that the mesh's network contains."""
    fleet.policy["wg0"]["sites"]["s"]["network"] = "10.0.5.0/24"
    before = runs(fleet)[-1].members["a"].addresses
    change(fleet, sites={"s": {"relays": ["r1", "r2"], "network": "10.0.6.0/24"}})
    assert runs(fleet)[-1].members["a"].addresses == before


@pytest.mark.parametrize("after", [1, 2])
def test_policy_goes_back_in_the_middle(fleet, after):
    """All nodes have their former addresses again, also a node that joined since."""
    first = runs(fleet)[-1]
    change(fleet, network=NEW)
    for _ in range(after):
        fleet.run()
    change(fleet, network=OLD)
    last = runs(fleet)[-1]
    assert {n: m.addresses for n, m in last.members.items()} == {n: m.addresses for n, m in first.members.items()}
    assert last.networks == (OLD,)


def test_third_network_follows_in_the_middle(fleet):
    """No node has three addresses of a family."""
    runs(fleet)
    change(fleet, network=NEW)
    fleet.run()
    change(fleet, network="10.77.0.0/16")
    seen = runs(fleet)
    assert all(len(m.addresses) <= 2 for plan in seen for m in plan.members.values())
    assert inside(seen[-1], ["10.77.0.0/16"])


def test_unreachable_node_holds_each_step(fleet):
    """It accepts nothing from an address that it does not know."""
    runs(fleet)
    fleet.off = {"b"}
    change(fleet, network=NEW)
    for _ in range(3):
        fleet.run()
    assert fleet.plan().networks == (NEW, OLD)
    assert fleet.plan().members["a"].addresses[0].startswith("10.0.")
    fleet.off = set()
    fleet.run(retry="b")
    assert inside(runs(fleet)[-1], [NEW])


@pytest.mark.parametrize("goal", [[OLD, "fd00::/64"], ["fd00::/64"], ["10.77.0.0/16", "fd00::/64"]])
def test_other_family_follows_while_node_is_silent(fleet, goal):
    """The relays have it at once. A plan without it would not be proved, and no mesh could be changed for an hour."""
    runs(fleet)
    fleet.off = {"b"}
    change(fleet, network=NEW)
    fleet.run()
    change(fleet, network=goal)
    fleet.run()
    fleet.off = set()
    fleet.run(retry="b")
    assert inside(runs(fleet)[-1], goal)


@pytest.mark.parametrize(
    ("before", "after"),
    [([OLD], ["fd01::/64"]), (["fd01::/64"], [OLD]), (["fd00::/64"], [OLD, "fd01::/64"]), ([OLD, "fd00::/64"], [NEW])],
)
@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize("role", [{"site": "s"}, {"role": "relay", "endpoint": "203.0.113.4"}], ids=["leaf", "relay"])
def test_node_joins_while_family_changes(fleet, before, after, late, role):
    """It waits until all others have the addresses that it knows, and each step is heard by both ends of each link."""
    change(fleet, network=before)
    runs(fleet)
    change(fleet, network=after)
    for _ in range(late):
        fleet.run()
    fleet.mine["c"] = mine("c")
    change(fleet, nodes={**fleet.policy["wg0"]["nodes"], "c": role})
    seen = runs(fleet)
    assert [text for plan in seen for text in unheard(plan)] == []
    assert "c" in seen[-1].members
    assert inside(seen[-1], after)


@pytest.mark.parametrize(
    ("before", "after"), [(OLD, "fd00::/64"), ("fd00::/64", OLD), ("fd00::/64", [OLD, "fd01::/64"])]
)
def test_other_family_with_new_relays_is_refused(fleet, before, after):
    """None of the relays would carry what nodes send from their present addresses."""
    change(fleet, network=before)
    runs(fleet)
    fleet.mine |= {node: mine(node) for node in ("q1", "q2")}
    nodes = {f"q{i}": {"role": "relay", "endpoint": f"203.0.113.1{i}"} for i in (1, 2)}
    sites = {"s": {"relays": ["q1", "q2"]}}
    change(fleet, prune_guard=100, sites=sites, nodes={**nodes, "a": {"site": "s"}, "b": {"site": "s"}}, network=after)
    with pytest.raises(PlanError, match="q1, q2 would join with it alone; keep the network while"):
        runs(fleet)
    change(fleet, network=before)
    runs(fleet)
    change(fleet, network=after)
    assert inside(runs(fleet)[-1], after if isinstance(after, list) else [after])


def test_allocated_former_address_is_given_to_none(fleet):
    """A node that joins in the middle gets an address of its own."""
    runs(fleet)
    change(fleet, network="10.0.0.0/24")
    fleet.run()
    fleet.mine["c"] = mine("c")
    change(fleet, nodes={**fleet.policy["wg0"]["nodes"], "c": {"site": "s"}})
    last = runs(fleet)[-1]
    own = [a for m in last.members.values() for a in m.addresses]
    assert len(own) == len(set(own)) == len(last.members) == 6


def test_node_with_lan_in_former_network_waits(fleet):
    """Routes of the mesh would take the node's own packets. It joins when the network has gone."""
    fleet.mine["c"] = mine("c", networks=["10.0.7.0/24"])
    fleet.policy["wg0"]["nodes"]["c"] = {"site": "s"}
    runs(fleet)
    change(fleet, network=NEW)
    seen = runs(fleet)
    assert ["c" in plan.members for plan in seen] == [False, False, True]
    assert "joins once" in seen[0].unplaced["c"]


def test_subnet_in_the_former_network_waits(fleet):
    """It is routed when no node has an address there."""
    runs(fleet)
    change(fleet, network=NEW, nodes={**fleet.policy["wg0"]["nodes"], "a": {"site": "s", "routes": ["10.0.7.0/24"]}})
    assert [plan.members["a"].subnets for plan in runs(fleet)] == [(), (), ("10.0.7.0/24",)]


@pytest.mark.parametrize("wish", ["mesh", "subnet", "endpoint"])
def test_former_network_is_given_to_none(fleet, wish):
    """Another mesh, a subnet of another mesh, or an endpoint in it: one error says what, where and what to do."""
    runs(fleet)
    nodes = fleet.policy["wg0"]["nodes"]
    change(fleet, network=NEW)
    relay = {"role": "relay", "endpoint": "203.0.113.9:7000"}
    if wish == "endpoint":
        change(fleet, nodes={**nodes, "r3": {"role": "relay", "endpoint": "10.0.0.9"}})
    else:
        subnets = {"routes": ["10.0.7.0/24"]} if wish == "subnet" else {}
        own = {"network": OLD if wish == "mesh" else "10.99.0.0/16", "listen_port": 7000}
        fleet.policy["wg1"] = {**own, "nodes": {"r1": relay, "a": subnets}}
    with pytest.raises(PolicyError, match=r"transition_waits_for has no 10\.0\.0\.0/16") as caught:
        fleet.run()
    assert len(caught.value.problems) == 1


def test_network_of_removed_mesh_is_taken_at_once(fleet):
    """Each node leaves that mesh before it applies the others, so the steps wait for one that has not left it."""
    relay = {"role": "relay", "endpoint": "203.0.113.9:7000"}
    fleet.policy["wg1"] = {"network": NEW, "listen_port": 7000, "nodes": {"r1": relay, "a": {}, "b": {}}}
    runs(fleet)
    fleet.policy = {**fleet.policy, "wg1": "absent"}
    held = fleet.run_all()["wg1"].held_loss
    fleet.off = {"b"}
    change(fleet, network=NEW)
    for _ in range(3):
        fleet.run_all(confirm=held.digest)
    assert fleet.ledger.head("wg1").without_view.keys() >= {"r1", "a", "b"}
    assert fleet.plan().networks == (NEW, OLD)
    assert fleet.plan().members["a"].addresses[0].startswith("10.0.")
    fleet.off = set()
    fleet.run(retry="b")
    assert inside(runs(fleet)[-1], [NEW])


def test_address_of_another_node_is_awaited(fleet):
    """Each node gets its address when the other one has left it and all have applied that."""
    nodes = fleet.policy["wg0"]["nodes"]
    change(fleet, nodes={**nodes, "a": {"site": "s", "address": "10.0.9.1"}, "b": {"site": "s", "address": "10.0.9.2"}})
    runs(fleet)
    change(fleet, nodes={**nodes, "a": {"site": "s", "address": "10.0.9.2"}, "b": {"site": "s", "address": "10.0.9.3"}})
    last = runs(fleet)[-1]
    assert [last.members[n].addresses for n in "ab"] == [("10.0.9.2",), ("10.0.9.3",)]


def test_new_node_follows_address_it_awaited(fleet):
    """The run in which the former holder has left the address asks for one more, in which the new node joins."""
    nodes = fleet.policy["wg0"]["nodes"]
    change(fleet, nodes={**nodes, "a": {"site": "s", "address": "10.0.9.1"}})
    runs(fleet)
    fleet.mine["c"] = mine("c")
    change(fleet, nodes={**nodes, "a": {"site": "s", "address": "10.0.9.2"}, "c": {"site": "s", "address": "10.0.9.1"}})
    last = runs(fleet)[-1]
    assert [last.members[n].addresses for n in "ac"] == [("10.0.9.2",), ("10.0.9.1",)]


def test_exchanged_addresses_are_refused_with_reason(fleet):
    """Each of the two would wait for the other."""
    nodes = fleet.policy["wg0"]["nodes"]
    change(fleet, nodes={**nodes, "a": {"site": "s", "address": "10.0.9.1"}, "b": {"site": "s", "address": "10.0.9.2"}})
    runs(fleet)
    change(fleet, nodes={**nodes, "a": {"site": "s", "address": "10.0.9.2"}, "b": {"site": "s", "address": "10.0.9.1"}})
    with pytest.raises(PlanError, match="waits for it in turn; give one of them an address that is free"):
        fleet.run()


def test_reserved_range_warns_of_no_former_address(fleet):
    """The node leaves it anyway."""
    old = runs(fleet)[-1].members["a"].addresses[0]
    change(
        fleet,
        reserved=[old],
        nodes={**fleet.policy["wg0"]["nodes"], "a": {"site": "s", "address": "10.0.9.9"}},
    )
    fleet.run()
    assert not any(old in warning for draft in fleet.drafts() for warning in draft.warnings)
