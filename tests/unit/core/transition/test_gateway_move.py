"""A subnet moves to another gateway: each question is answered, whichever nodes run which step."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

from hypothesis import HealthCheck, event, given, reject, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PlanError, PolicyError
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.model.view import Peer
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof import prove
from saltext_wgmesh.core.transition import state, step
from saltext_wgmesh.core.transition.evidence import Evidence
from saltext_wgmesh.core.transition.gateway_move import Stage
from saltext_wgmesh.core.transition.published_step import PublishedStep
from saltext_wgmesh.core.transition.state import NO_TRANSITION, Transition
from tests.unit.harness import oracle
from tests.unit.harness.mixtures import everywhere, mixed
from tests.unit.harness.strategies import facts_of, fleets

LAN, HOST = "192.168.7.0/24", "192.168.7.9"
NO_TROUBLE = Health()
NONE_APPLIED = Evidence(has_applied=lambda _: False, link_up=lambda _: True, link_carries=lambda _: True)


def office(*gateways: str) -> dict:
    """The policy of two sites, each with its own relay as first choice; the office's LAN is behind *gateways*."""
    sites = {"fra": {"relays": ["r1", "r2"]}, "nyc": {"relays": ["r2", "r1"]}}
    relays = {f"r{i}": {"role": "relay", "endpoint": f"203.0.113.{i}"} for i in (1, 2)}
    leaves = {n: {"site": site} for n, site in (("gw1", "nyc"), ("gw2", "nyc"), ("app", "nyc"), ("web", "fra"))}
    behind = {n: {**leaves[n], "routes": [LAN]} for n in gateways}
    return {"wg0": {"network": "10.100.0.0/16", "sites": sites, "nodes": {**relays, **behind, **leaves, **behind}}}


def _facts(raw: dict) -> dict[str, Facts]:
    return {n: facts_of(n, f"172.16.0.{i}", ipv6=False) for i, n in enumerate(sorted(raw["wg0"]["nodes"]), 1)}


def steps(raw: dict, wanted: dict, facts: dict[str, Facts], allocations: Allocations | None = None) -> list[Plan]:
    """The plans from that of *raw* to that of *wanted*, if every node applies each."""
    before = planner.plan_mesh(policy.parse_policy(raw).meshes["wg0"], facts, allocations or Allocations())
    mesh = policy.parse_policy(wanted).meshes["wg0"]
    found, transition = [before], NO_TRANSITION
    for _ in range(6):
        transition = step.links_to_keep(
            everywhere(found[-1], transition), planner.plan_mesh(mesh, facts, before.allocations)
        )
        found.append(planner.plan_mesh(mesh, facts, before.allocations, transition=transition))
        if not transition:
            return found
    raise AssertionError(f"it never ends: {transition}")


def asked(plan: Plan, node: str, answering: Plan | None = None) -> str | None:
    """Return what happens to a packet of *node* for the host in the LAN, or to its answer; None if the answer arrives.

    The answer meets the nodes as the plan *answering* has them.
    """
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
    """The plans of a fleet with two relays or more, whose LAN moves from one leaf to another."""
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
def test_move_each_question_is_answered(plans, random):
    """Also if some nodes apply the next step between the question and the answer."""
    assert len(plans) == 6
    assert all(prove.prove(plan) == () for plan in plans)
    for old, new in pairwise(plans):
        for _ in range(4):
            order = random.sample(sorted(new.members), len(new.members))
            at, later = sorted((random.randrange(len(order) + 1), random.randrange(len(order) + 1)))
            one = mixed({n: new if n in order[:at] else old for n in new.members}, plans[0])
            two = mixed({n: new if n in order[:later] else old for n in new.members}, plans[0])
            assert [said for n in new.members if (said := asked(one, n, two))] == []
    event(f"gateways with the same first relay: {len({plans[0].members[n].relays[:1] for n in _gateways(plans)}) == 1}")


def _gateways(plans: list[Plan]) -> set[str]:
    return {n for plan in plans for n, member in plan.members.items() if LAN in member.subnets}


def test_move_takes_four_steps():
    """The first relays differ from the first step on; then one relay after the other delivers to the new gateway."""
    raw, wanted = office("gw1"), office("gw2")
    _, ready, first, *_, last = plans = steps(raw, wanted, _facts(raw))
    assert ready.members["gw1"].relays[0] != ready.members["gw2"].relays[0]
    assert [plan.members["gw1"].subnets for plan in plans[1:]] == [(LAN,), (LAN,), (), (), ()]
    assert [plan.members["gw2"].subnets for plan in plans[1:]] == [(), (), (LAN,), (LAN,), (LAN,)]
    turned = ready.members["gw2"].relays[0]
    assert _peer(ready, turned, "gw1").allowed_ips[1:] == _peer(first, turned, "gw2").allowed_ips[1:] == (LAN,)
    assert last.members["gw1"].standby_subnets == ()
    assert last.views == steps(raw, raw | wanted, _facts(raw))[-1].views


def _peer(plan: Plan, node: str, other: str) -> Peer:
    return next(p for i in plan.views[node].interfaces for p in i.peers if p.node == other)


def test_move_from_gateway_that_is_down_is_immediate():
    """The subnet goes to the new gateway at once."""
    raw, wanted = office("gw1"), office("gw2")
    before = planner.plan_mesh(policy.parse_policy(raw).meshes["wg0"], _facts(raw), Allocations())
    after = planner.plan_mesh(policy.parse_policy(wanted).meshes["wg0"], _facts(raw), before.allocations)
    published = replace(everywhere(before), health=Health(down_nodes=frozenset({"gw1"})))
    assert step.links_to_keep(published, after) == NO_TRANSITION


def _begun() -> tuple[Transition, Plan, Plan]:
    """The first step from gw1 to gw2: the transition, its plan, and the plan of the goal."""
    facts = _facts(office("gw1"))
    before = planner.plan_mesh(policy.parse_policy(office("gw1")).meshes["wg0"], facts, Allocations())
    mesh = policy.parse_policy(office("gw2")).meshes["wg0"]
    after = planner.plan_mesh(mesh, facts, before.allocations)
    transition = step.links_to_keep(everywhere(before), after)
    return transition, planner.plan_mesh(mesh, facts, before.allocations, transition=transition), after


def test_step_of_move_waits_until_all_applied():
    """The next step starts only after every node has applied the present one."""
    transition, ready, after = _begun()
    assert step.links_to_keep(replace(everywhere(ready, transition), evidence=NONE_APPLIED), after) == transition
    assert step.links_to_keep(everywhere(ready, transition), after).gateway_moves[LAN].stage is Stage.FIRST_RELAY


def test_move_waits_for_unresponsive_gateways_and_relays():
    """An unresponsive leaf is not waited for; a gateway or its relay is, since it may still forward."""
    transition, ready, after = _begun()
    for unresponsive, waits in (("web", False), ("gw1", True), ("gw2", True), ("r1", True), ("r2", True)):
        evidence = Evidence(
            has_applied=lambda n, unresponsive=unresponsive: n != unresponsive,
            link_up=lambda _: True,
            link_carries=lambda _: True,
        )
        health = Health(unresponsive=frozenset({unresponsive}))
        published = PublishedStep(plan=ready, transition=transition, health=health, evidence=evidence)
        assert (step.links_to_keep(published, after) == transition) is waits, unresponsive


def test_revoked_move_returns_by_the_same_steps():
    """A move that has not reached the new gateway simply ends; any other returns by a move of its own."""
    raw, wanted = office("gw1"), office("gw2")
    facts = _facts(raw)
    for stages in range(1, 5):
        plans = steps(raw, wanted, facts)
        transition = NO_TRANSITION
        for plan in plans[:stages]:
            transition = step.links_to_keep(everywhere(plan, transition), plans[-1])
        transition = step.links_to_keep(everywhere(plans[stages], transition), plans[0])
        back = {move.old: move.new for move in transition.gateway_moves.values()}
        assert back == ({"gw2": "gw1"} if stages > 2 else {}), stages


def test_transition_with_move_survives_the_ledger():
    """The plain form has the same move."""
    raw, wanted = office("gw1"), office("gw2")
    plans = steps(raw, wanted, _facts(raw))
    transition: Transition = step.links_to_keep(everywhere(plans[0]), plans[-1])
    assert state.transition_from_dict(state.transition_as_dict(transition)) == transition
