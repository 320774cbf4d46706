"""A subnet goes to another gateway: whoever runs which step, what asks for it is answered."""

from __future__ import annotations

import copy
from itertools import pairwise

from hypothesis import HealthCheck, event, given, reject, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import plan as planner
from saltext_wgmesh.core import policy, rollout, verify
from saltext_wgmesh.core.errors import PlanError, PolicyError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.moves import Stage
from saltext_wgmesh.core.rollout import NOTHING, Kept, Witness
from saltext_wgmesh.core.types import Facts, Peer, Plan, Register
from tests.unit import oracle
from tests.unit.strategies import facts_of, fleets
from tests.unit.test_rollout import ALL_IS_WELL, CALM, mixed

LAN, HOST = "192.168.7.0/24", "192.168.7.9"
IDLE = Witness(runs=lambda _: False, hears=lambda _: True, alive=lambda _: True)


def office(*gateways: str) -> dict:
    """Two sites, each with a relay of its own that the other has too; the office's LAN is behind *gateways*."""
    sites = {"fra": {"relays": ["r1", "r2"]}, "nyc": {"relays": ["r2", "r1"]}}
    relays = {f"r{i}": {"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2)}
    leaves = {n: {"site": site} for n, site in (("gw1", "nyc"), ("gw2", "nyc"), ("app", "nyc"), ("web", "fra"))}
    behind = {n: {**leaves[n], "routes": [LAN]} for n in gateways}
    return {"wg0": {"network": "10.100.0.0/16", "sites": sites, "nodes": {**relays, **behind, **leaves, **behind}}}


def _facts(raw: dict) -> dict[str, Facts]:
    return {n: facts_of(n, f"172.16.0.{i}", ipv6=False) for i, n in enumerate(sorted(raw["wg0"]["nodes"]), 1)}


def steps(raw: dict, wanted: dict, facts: dict[str, Facts], register: Register | None = None) -> list[Plan]:
    """The plans from that of *raw* to that of *wanted*, if every node takes up each."""
    before = planner.make(policy.parse(raw).meshes["wg0"], facts, register or Register())
    mesh = policy.parse(wanted).meshes["wg0"]
    found, kept = [before], NOTHING
    for _ in range(6):
        kept = rollout.keep(found[-1], kept, planner.make(mesh, facts, before.register), CALM, ALL_IS_WELL)
        found.append(planner.make(mesh, facts, before.register, kept=kept))
        if not kept:
            return found
    raise AssertionError(f"it never ends: {kept}")


def asked(plan: Plan, node: str, answering: Plan | None = None) -> str | None:
    """What becomes of a packet of *node* for the LAN's host and of the answer, which meets the nodes as *answering* has
    them; None if that arrives."""
    own = next((a for a in plan.members[node].addresses if ":" not in a), None)
    if own is None or LAN in (*plan.members[node].subnets, *plan.members[node].standby_subnets):
        return None
    how, hops = oracle.walk(plan, node, own, HOST, frozenset())
    if how != "delivered":
        return f"{node} asks: {how} {hops}"
    how, back = oracle.walk(answering or plan, hops[-1], HOST, own, frozenset())
    return None if how == "delivered" else f"{hops[-1]} answers {node}: {how} {back}, asked by {hops}"


@st.composite
def gateway_changes(draw):
    """A fleet with two relays or more, and a LAN that goes from one leaf to another, which may have it already."""
    fleet = draw(fleets(relays=4, leaves=5))
    raw = copy.deepcopy(fleet.raw)
    nodes = raw["wg0"]["nodes"]
    leaves = [n for n, rule in nodes.items() if rule.get("role") != "relay" and fleet.facts[n]]
    if len(leaves) < 2 or len(nodes) - len(leaves) < 2 or not any("." in n for n in raw["wg0"]["network"]):
        reject()
    old, new = draw(st.permutations(leaves))[:2]
    for rule in nodes.values():
        rule.pop("routes", None)

    def behind(*gateways: str) -> dict:
        rules = {n: {**nodes[n], "routes": [LAN]} for n in gateways}
        return {"wg0": {**raw["wg0"], "nodes": {**rules, **{n: r for n, r in nodes.items() if n not in rules}}}}

    first = behind(old, new) if draw(st.booleans()) else behind(old)
    second = behind(new, old) if draw(st.booleans()) else behind(new)
    try:
        return steps(first, second, fleet.facts)
    except (PolicyError, PlanError):
        reject()


@given(gateway_changes(), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_whoever_asks_amid_a_move_is_answered(plans, random):
    """Also if some nodes take up the next step between the question and the answer."""
    assert len(plans) == 6
    assert all(verify.check(plan) == () for plan in plans)
    for old, new in pairwise(plans):
        for _ in range(4):
            order = random.sample(sorted(new.members), len(new.members))
            at, later = sorted((random.randrange(len(order) + 1), random.randrange(len(order) + 1)))
            one = mixed({n: new if n in order[:at] else old for n in new.members}, plans[0])
            two = mixed({n: new if n in order[:later] else old for n in new.members}, plans[0])
            assert [said for n in new.members if (said := asked(one, n, two))] == []
    event(f"gateways with the same first relay: {len({plans[0].members[n].homes[:1] for n in _gateways(plans)}) == 1}")


def _gateways(plans: list[Plan]) -> set[str]:
    return {n for plan in plans for n, member in plan.members.items() if LAN in member.subnets}


def test_the_steps_of_a_move():
    raw, wanted = office("gw1"), office("gw2")
    _, ready, first, *_, last = plans = steps(raw, wanted, _facts(raw))
    assert ready.members["gw1"].homes[0] != ready.members["gw2"].homes[0]
    assert [plan.members["gw1"].subnets for plan in plans[1:]] == [(LAN,), (LAN,), (), (), ()]
    assert [plan.members["gw2"].subnets for plan in plans[1:]] == [(), (), (LAN,), (LAN,), (LAN,)]
    turned = ready.members["gw2"].homes[0]
    assert _peer(ready, turned, "gw1").allowed_ips[1:] == _peer(first, turned, "gw2").allowed_ips[1:] == (LAN,)
    assert last.members["gw1"].standby_subnets == ()
    assert last.views == steps(raw, raw | wanted, _facts(raw))[-1].views


def _peer(plan: Plan, node: str, other: str) -> Peer:
    return next(p for i in plan.views[node].interfaces for p in i.peers if p.node == other)


def test_a_gateway_that_is_down_is_not_waited_for():
    raw, wanted = office("gw1"), office("gw2")
    before = planner.make(policy.parse(raw).meshes["wg0"], _facts(raw), Register())
    after = planner.make(policy.parse(wanted).meshes["wg0"], _facts(raw), before.register)
    assert rollout.keep(before, NOTHING, after, Health(down=frozenset({"gw1"})), ALL_IS_WELL) == NOTHING


def _begun() -> tuple[Kept, Plan, Plan]:
    """The first step from gw1 to gw2, what it keeps and the plan that it makes; and the plan that is wanted."""
    facts = _facts(office("gw1"))
    before = planner.make(policy.parse(office("gw1")).meshes["wg0"], facts, Register())
    mesh = policy.parse(office("gw2")).meshes["wg0"]
    after = planner.make(mesh, facts, before.register)
    kept = rollout.keep(before, NOTHING, after, CALM, ALL_IS_WELL)
    return kept, planner.make(mesh, facts, before.register, kept=kept), after


def test_a_step_waits_until_all_run_it():
    kept, ready, after = _begun()
    assert rollout.keep(ready, kept, after, CALM, IDLE) == kept
    assert rollout.keep(ready, kept, after, CALM, ALL_IS_WELL).moves[LAN].stage is Stage.FIRST


def test_the_gateways_and_their_relays_are_waited_for_though_they_are_silent():
    kept, ready, after = _begun()
    for silent, waits in (("web", False), ("gw1", True), ("gw2", True), ("r1", True), ("r2", True)):
        witness = Witness(runs=lambda n, silent=silent: n != silent, hears=lambda _: True, alive=lambda _: True)
        health = Health(silent=frozenset({silent}))
        assert (rollout.keep(ready, kept, after, health, witness) == kept) is waits, silent


def test_a_move_that_is_called_off_goes_back_by_the_same_steps():
    raw, wanted = office("gw1"), office("gw2")
    facts = _facts(raw)
    for stages in range(1, 5):
        plans = steps(raw, wanted, facts)
        kept = NOTHING
        for plan in plans[:stages]:
            kept = rollout.keep(plan, kept, plans[-1], CALM, ALL_IS_WELL)
        kept = rollout.keep(plans[stages], kept, plans[0], CALM, ALL_IS_WELL)
        back = {move.old: move.new for move in kept.moves.values()}
        assert back == ({"gw2": "gw1"} if stages > 2 else {}), stages


def test_what_is_kept_is_the_same_out_of_the_ledger():
    raw, wanted = office("gw1"), office("gw2")
    plans = steps(raw, wanted, _facts(raw))
    kept: Kept = rollout.keep(plans[0], NOTHING, plans[-1], CALM, ALL_IS_WELL)
    assert rollout.from_dict(rollout.as_dict(kept)) == kept
