"""Relays route the leaves of other relays by the blocks of their sites."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from saltext_wgmesh.core.model.addresses import host_prefixes
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Site
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof import packet_walk
from tests.unit.harness.worlds import all_facts, leaf, mesh, relay


def make(policy_, facts):
    return planner.plan_mesh(policy_, facts, Allocations())


def _routed(view: View, address: str) -> tuple[str, ...]:
    """Return the next hops of the view for an address, by a longest-prefix match by hand."""
    pairs = [(ip_network(p), r.via) for r in view.routes for p in r.prefixes]
    return max((p.prefixlen, via) for p, via in pairs if ip_address(address) in p)[1]


def test_block_is_one_prefix_for_other_relays():
    """Four leaves have two orders of relays: one order is routed by the block, the other by host prefixes."""
    block = Site(name="fra", relays=("r1", "r2"), networks=(ip_network("10.100.7.0/24"),))
    policy_ = mesh(relay("r1"), relay("r2"), relay("r3"), leaf("n*", "fra"), sites=(block,))
    made = make(policy_, all_facts("r1", "r2", "r3", "n1", "n2", "n3", "n4", "n5"))
    leaves = {n: m for n, m in made.members.items() if not m.is_relay}
    orders = [m.relays for m in leaves.values()]
    most = max(set(orders), key=lambda h: (orders.count(h), h))
    few = sorted(p for m in leaves.values() if m.relays != most for p in host_prefixes(m.addresses))
    routes = {r.via: r.prefixes for r in made.views["r3"].routes}
    assert routes[most] == ("10.100.7.0/24",)
    assert sorted(p for via, prefixes in routes.items() if via == most[::-1] for p in prefixes) == few
    for m in leaves.values():
        assert _routed(made.views["r3"], m.addresses[0]) == m.relays
    assert not any("10.100.7.0/24" in r.prefixes for n in ("r1", "r2") for r in made.views[n].routes)


def test_relay_of_block_does_not_aggregate_it():
    """Three relays share a site: if each routed the block to the others, an unassigned address would loop."""
    block = Site(name="fra", relays=("r1", "r2", "r3"), networks=(ip_network("10.100.7.0/24"),))
    policy_ = mesh(*(relay(f"r{i}") for i in range(1, 5)), leaf("n*", "fra"), sites=(block,))
    made = make(policy_, all_facts("r1", "r2", "r3", "r4", *(f"n{i}" for i in range(12))))
    aggregating = {n for n, v in made.views.items() if any("10.100.7.0/24" in r.prefixes for r in v.routes)}
    assert aggregating == {"r4"}
    taken = {a for m in made.members.values() for a in m.addresses}
    unassigned = next(str(a) for a in ip_network("10.100.7.0/24").hosts() if str(a) not in taken)
    for source in ("r1", "r4", "n0"):
        assert packet_walk.walk(made, source, unassigned).outcome is packet_walk.WalkOutcome.UNREACHABLE


def test_single_address_does_not_use_block():
    """The block would save no route."""
    block = Site(name="fra", relays=("r1",), networks=(ip_network("10.100.7.0/24"),))
    made = make(
        mesh(relay("r1"), relay("r2"), relay("r3"), leaf("a", "fra"), sites=(block,)), all_facts("r1", "r2", "r3", "a")
    )
    assert not any("10.100.7.0/24" in r.prefixes for v in made.views.values() for r in v.routes)
