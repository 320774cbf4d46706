"""Pairs of leaves are linked directly or not, with the reason in words."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.model.policy import Endpoint, Role, Site, Topology
from saltext_wgmesh.core.planning import direct_links
from tests.unit.harness.worlds import mesh


def member(node, site=None, *, nat=False, host=None, underlay=None, port=51820):
    """Return a leaf with an address of its own, unless *underlay* says otherwise."""
    if underlay is None:
        underlay = (f"172.16.0.{sum(map(ord, node)) % 250 + 1}",)
    return Member(
        node=node,
        role=Role.LEAF,
        site=site,
        nat=nat,
        public_key=node,
        listen_port=port,
        interface="wg0",
        endpoint=Endpoint(host=host, port=4500) if host else None,
        underlay=underlay,
        addresses=(),
    )


FULL = "topology full links every pair"
FRA, CLOSED = Site(name="fra"), Site(name="closed", direct=False)
V6 = ("2001:db8::1",)

CASES = {
    "site": ("partial", member("a", "fra"), member("b", "fra"), True, "both are at site fra"),
    "one behind nat": ("partial", member("a", "fra", nat=True), member("b", "fra"), True, "both are at site fra"),
    "both behind nat": (
        "partial",
        member("a", "fra", nat=True),
        member("b", "fra", nat=True),
        False,
        "both are at site fra, but neither side can open: "
        "a is behind NAT and has no endpoint, b is behind NAT and has no endpoint",
    ),
    "site with direct: false": (
        "partial",
        member("a", "closed"),
        member("b", "closed"),
        False,
        "site closed is set to direct: false",
    ),
    "public": ("partial", member("a", "fra", host="x"), member("b", host="y"), True, "both have an endpoint"),
    "one public, across sites": (
        "partial",
        member("a", "fra", host="x"),
        member("b", "nyc"),
        False,
        "topology partial links across sites only nodes that both have an endpoint: b has none",
    ),
    "none public, at no site": (
        "partial",
        member("a"),
        member("b"),
        False,
        "topology partial links across sites only nodes that both have an endpoint: a and b have none",
    ),
    "hub": (
        "hub",
        member("a", "fra", host="x"),
        member("b", "fra", host="y"),
        False,
        "topology hub links leaves to relays alone",
    ),
    "hub, in links": ("hub", member("c"), member("d", nat=True), True, "the policy's links name this pair"),
    "full": ("full", member("a"), member("b", nat=True), True, "topology full links every pair"),
    "full, two sites, none public": (
        "full",
        member("a", "fra"),
        member("b", "nyc"),
        False,
        "topology full links every pair, but neither side can open: a has no endpoint and shares no underlay with b, "
        "b has no endpoint and shares no underlay with a",
    ),
    "full, two sites, one public": ("full", member("a", "fra", host="x"), member("b", "nyc"), True, FULL),
    "full, one site": ("full", member("a", "fra"), member("b", "fra"), True, FULL),
    "full, no family in common": (
        "full",
        member("a"),
        member("b", underlay=V6),
        False,
        "topology full links every pair, but neither side can open: "
        "b has no address family in common with a, a has no address family in common with b",
    ),
    "no underlay address known": (
        "partial",
        member("a", "fra", nat=True),
        member("b", "fra", underlay=()),
        False,
        "both are at site fra, but neither side can open: "
        "a is behind NAT and has no endpoint, b has no endpoint and reports no underlay address",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_pair_has_verdict_with_reason(case):
    """A pair is direct if the policy asks for it and a side can open; the reason is the setting or the obstacle."""
    topology, a, b, direct, reason = CASES[case]
    policy = mesh(sites=(FRA, CLOSED), topology=Topology(topology), links=(("c", "d"),))
    expected = direct_links.Verdict(direct=direct, reason=reason)
    assert direct_links.direct_link_verdict(policy, a, b) == expected
    assert direct_links.direct_pairs(policy, [b, a]) == ([(a.node, b.node)] if direct else [])


def endpoints(policy, opener, target):
    """Where *opener* may reach *target*, as text."""
    return tuple(map(str, direct_links.endpoints_for(policy, opener, target)))


def test_endpoint_of_policy_is_the_only_one():
    """An endpoint in the policy takes the place of all underlay addresses."""
    policy = mesh(sites=(FRA,))
    target = member("b", "fra", host="vpn.example.com")
    assert endpoints(policy, member("a", "fra"), target) == ("vpn.example.com:4500",)


def test_underlay_address_has_family_of_opener():
    """The endpoint has the listen port of the target, and a family that the opener has."""
    policy = mesh(sites=(FRA,))
    target = member("b", "fra", underlay=("172.16.0.9", "2001:db8::9"), port=7000)
    assert endpoints(policy, member("a", "fra", underlay=V6), target) == ("[2001:db8::9]:7000",)
    assert endpoints(policy, member("a", "fra", underlay=()), target) == ("172.16.0.9:7000", "[2001:db8::9]:7000")


def test_underlay_address_needs_a_shared_underlay():
    """A node of another site can't reach an underlay address."""
    policy = mesh(sites=(FRA,))
    assert endpoints(policy, member("a"), member("b", "fra")) == ()


kinds = st.builds(
    lambda site, nat, host, underlay: {"site": site, "nat": nat, "host": host, "underlay": underlay},
    st.sampled_from([None, "fra", "closed"]),
    st.booleans(),
    st.sampled_from([None, "x"]),
    st.sampled_from([(), ("172.16.0.1",), V6, ("172.16.0.1", *V6)]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(kinds, max_size=6), st.sampled_from(Topology), st.booleans())
def test_direct_pairs_agree_with_verdicts(nodes, topology, linked):
    """``direct_pairs`` skips pairs for speed, and none that ``direct_link_verdict`` calls direct."""
    members = [member(f"n{i}", **kind) for i, kind in enumerate(nodes)]
    policy = mesh(sites=(FRA, CLOSED), topology=topology, links=(("n0", "n1"),) if linked else ())
    slow = [
        (a.node, b.node) for a, b in combinations(members, 2) if direct_links.direct_link_verdict(policy, a, b).direct
    ]
    assert direct_links.direct_pairs(policy, members[::-1]) == slow
