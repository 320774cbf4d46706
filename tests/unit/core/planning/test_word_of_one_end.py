"""The word of one end of a link changes the relays of these two nodes, and of no other one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness.mesh_health import Health, Outage
from saltext_wgmesh.core.model.pairs import node_pair
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Site, Topology
from saltext_wgmesh.core.planning import planner
from tests.unit.harness.worlds import all_facts, leaf, mesh, relay

RELAYS = ("r1", "r2", "r3")
topologies = st.sampled_from(Topology)


def made(topology, leaves, relays, health, allocations):
    """A plan of that many leaves, some at a site, and its allocations."""
    policy = mesh(
        *(relay(r, f"203.0.113.{i}", "fra" if r == "r1" else None) for i, r in enumerate(relays, 1)),
        *(leaf(n, "fra" if i % 2 else None, nat=True) for i, n in enumerate(leaves)),
        topology=topology,
        sites=(Site(name="fra", relays=tuple(relays[:2])),),
    )
    return planner.plan_mesh(policy, all_facts(*relays, *leaves), allocations, health)


def relays_of(plan, but=()):
    return {n: m.relays for n, m in plan.members.items() if n not in but}


@settings(max_examples=25, deadline=None)
@given(topology=topologies, count=st.integers(1, 8), data=st.data())
def test_down_links_of_one_node_move_it_alone(topology, count, data):
    """In whichever order its links go down, come back and are forgotten."""
    leaves = tuple(f"n{i}" for i in range(count))
    before = made(topology, leaves, RELAYS, Health(), Allocations())
    liar = data.draw(st.sampled_from([*leaves, *RELAYS]))
    own = sorted({node_pair(liar, o) for link in before.links for o in (link.a, link.b) if liar in (link.a, link.b)})
    own = [pair for pair in own if pair[0] != pair[1]]
    plan = before
    for _ in range(data.draw(st.integers(1, 4))):
        down = data.draw(st.frozensets(st.sampled_from(own)))
        lately = data.draw(st.sets(st.sampled_from(own))) | down
        links = {pair: Outage(since=0.0, reporters=(liar,)) for pair in lately}
        plan = made(topology, leaves, RELAYS, Health(down_links=down, links=links), plan.allocations)
        concerned = {liar, *(n for pair in lately for n in pair)}
        assert relays_of(plan, concerned) == relays_of(before, concerned)
    plan = made(topology, leaves, RELAYS, Health(), plan.allocations)
    assert relays_of(plan) == relays_of(before)


@settings(max_examples=15, deadline=None)
@given(topology=topologies, liar=st.sampled_from(["r1", "r2", "n0", "n5"]), lasts=st.booleans())
def test_new_relay_gets_share_despite_one_word(topology, liar, lasts):
    """A node that calls its link to the new relay down keeps none but itself from it."""
    leaves = tuple(f"n{i}" for i in range(9))
    before = made(topology, leaves, RELAYS[:2], Health(), Allocations())
    pair = node_pair(liar, "r3")
    outage = {pair: Outage(since=0.0, reporters=(liar,), up_since=None if lasts else 1.0)}
    health = Health(down_links=frozenset({pair} if lasts else ()), links=outage)
    calm = made(topology, leaves, RELAYS, Health(), before.allocations)
    plan = made(topology, leaves, RELAYS, health, before.allocations)
    assert relays_of(plan, (liar,)) == relays_of(calm, (liar,))
    assert any(relays[:1] == ("r3",) for relays in relays_of(calm).values())
