"""A node that can open no link, for want of an address family, is refused before anything is published."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Topology
from saltext_wgmesh.core.planning import planner
from tests.unit.harness.worlds import facts, leaf, mesh, relay

V4, V6 = "198.51.100.7", "2001:db8::7"
UNDERLAYS = st.sampled_from([(V4,), (V6,), (V4, V6)])
HOSTS = st.sampled_from(["203.0.113.1", "2001:db8::1", "relay.example.com"])


def families(own: Facts) -> set[int]:
    return {6 if ":" in a else 4 for a in own.underlay}


def opens(own: Facts, endpoint: str | None) -> bool:
    """Say whether the node has the family of the endpoint, read from its text."""
    if not endpoint or endpoint.startswith("relay"):
        return bool(endpoint)
    return (6 if endpoint.startswith("[") else 4) in families(own)


@settings(max_examples=200, deadline=None)
@given(
    relays=st.lists(st.tuples(HOSTS, UNDERLAYS), min_size=1, max_size=3),
    leaves=st.lists(UNDERLAYS, min_size=1, max_size=4),
    topology=st.sampled_from(Topology),
)
def test_planned_relay_link_can_be_opened(relays, leaves, topology):
    """Each link of a new mesh has an end that can open it; other nodes are unplaced, with the reason."""
    rules = [relay(f"r{i}", host) for i, (host, _) in enumerate(relays)] + [leaf(f"n{i}") for i in range(len(leaves))]
    known = {f"r{i}": facts(f"r{i}", *own) for i, (_, own) in enumerate(relays)}
    known |= {f"n{i}": facts(f"n{i}", *own) for i, own in enumerate(leaves)}
    made = planner.plan_mesh(mesh(*rules, topology=topology), known, Allocations())
    assert made.members.keys() | made.unplaced.keys() == known.keys()
    endpoints = {(n, p.node): p.endpoint for n, v in made.views.items() for i in v.interfaces for p in i.peers}
    for link in made.links:
        ends = (link.a, link.b), (link.b, link.a)
        assert any(opens(known[own], endpoints[own, other]) for own, other in ends), link
    assert all("alone" in reason or "none of its relays" in reason for reason in made.unplaced.values())


def test_leaf_of_other_family_is_unplaced():
    """An IPv6-only leaf does not reach an IPv4 relay, unless its network translates (464XLAT)."""
    policy = mesh(relay("r1"), leaf("n1"))
    known = {"r1": facts("r1", V4), "n1": facts("n1", V6)}
    made = planner.plan_mesh(policy, known, Allocations())
    assert made.unplaced == {
        "n1": "it can open a link to no relay: its underlay has IPv6 alone; "
        "write the endpoint as a name with addresses of both families"
    }
    known["n1"] = replace(known["n1"], networks=("192.0.0.0/29",))
    assert planner.plan_mesh(policy, known, Allocations()).unplaced == {}


def test_member_that_lost_a_family_stays():
    """It may just have lost an address for a moment: what runs is not torn down."""
    policy = mesh(relay("r1"), relay("r2", "2001:db8::2"), leaf("n1"))
    known = {"r1": facts("r1", V4, V6), "r2": facts("r2", V4, V6), "n1": facts("n1", V4)}
    first = planner.plan_mesh(policy, known, Allocations())
    assert first.members["n1"].relays == ("r1",)
    policy = mesh(relay("r1", "2001:db8::1"), relay("r2", "2001:db8::2"), leaf("n1"))
    assert planner.plan_mesh(policy, known, first.allocations).members["n1"].relays
