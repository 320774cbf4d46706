"""Addresses are explicit, else allocated before, else hashed; no other node changes them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import NodeRule, Site
from saltext_wgmesh.core.planning import addresses
from tests.unit.harness.worlds import leaf, mesh


def assign(policy, nodes, allocations=None):
    """Return the addresses of *nodes*, whose rule is the entry of that name or the glob ``*``, and the problems."""
    rules = {r.pattern: r for r in policy.nodes}
    return addresses.assign_addresses(
        policy, {n: rules.get(n) or rules["*"] for n in nodes}, allocations or Allocations()
    )


def test_hashed_address_never_changes():
    """A fleet that loses its allocations gets the same addresses again: these values are part of the contract."""
    found, problems = assign(mesh(leaf("*"), network="10.100.0.0/16 fd00:64::/64"), ["db1", "web1"])
    assert problems == []
    assert found == {
        "db1": ("10.100.52.133", "fd00:64::13c2:dcd9:4d5a:7abd"),
        "web1": ("10.100.41.215", "fd00:64::2bbf:7218:d80c:cb60"),
    }


def test_address_sources_are_used_in_order():
    """An explicit address comes before an allocated one, and an allocated one before the hash."""
    policy = mesh(leaf("a", addresses=["10.100.0.1"]), leaf("*"))
    allocations = Allocations(addresses={"a": ("10.100.9.9",), "b": ("10.100.0.2",)})
    assert assign(policy, ["a", "b"], allocations)[0] == {"a": ("10.100.0.1",), "b": ("10.100.0.2",)}


def test_allocated_address_outside_network_is_replaced():
    """The node gets an address of the present network."""
    policy = mesh(leaf("*"), network="10.7.0.0/29")
    (address,) = assign(policy, ["a"], Allocations(addresses={"a": ("10.100.0.2",)}))[0]["a"]
    assert ip_address(address) in ip_network("10.7.0.0/29")


def test_small_network_is_used_to_last_host():
    """A /30 has two hosts; the third node is reported with the network that is full."""
    found, problems = assign(mesh(leaf("*"), network="10.7.0.0/30"), ["a", "b", "c"])
    assert sorted(found["a"] + found["b"]) == ["10.7.0.1", "10.7.0.2"]
    assert [str(p) for p in problems] == [
        "node c: the network 10.7.0.0/30 has no free address left; choose a wider one"
    ]


def test_both_addresses_of_a_31_are_hosts():
    """A /31 has neither a network nor a broadcast address (RFC 3021)."""
    found, problems = assign(mesh(leaf("*"), network="10.7.0.0/31"), ["a", "b"])
    assert sorted(found["a"] + found["b"]) == ["10.7.0.0", "10.7.0.1"]
    assert problems == []


def test_address_of_node_that_left_is_reserved():
    """No other node gets the address of a node that left."""
    allocations = Allocations(addresses={"left": ("10.7.0.1",)})
    found, _ = assign(mesh(leaf("*"), network="10.7.0.0/30"), ["a"], allocations)
    assert found == {"a": ("10.7.0.2",)}


def test_explicit_address_of_later_node_is_reserved():
    """No other node gets the explicit address of a node that has no facts yet."""
    policy = mesh(leaf("later", addresses=["10.7.0.2"]), leaf("*"), network="10.7.0.0/30")
    assert assign(policy, ["a"])[0] == {"a": ("10.7.0.1",)}


def test_explicit_address_of_another_node_is_a_problem():
    """The problem names both nodes."""
    policy = mesh(leaf("a", addresses=["10.100.0.5"]), leaf("*"))
    _, problems = assign(policy, ["a", "b"], Allocations(addresses={"b": ("10.100.0.5",)}))
    assert [str(p) for p in problems] == [
        "wgmesh:wg0:nodes:a:address: 10.100.0.5 belongs to node b; "
        "choose a free address, or give b an explicit address of its own"
    ]


def test_nodes_may_swap_explicit_addresses():
    """The explicit address of a node replaces its allocated one, which is free then."""
    policy = mesh(leaf("a", addresses=["10.100.0.2"]), leaf("b", addresses=["10.100.0.1"]))
    allocations = Allocations(addresses={"a": ("10.100.0.1",), "b": ("10.100.0.2",)})
    found, problems = assign(policy, ["a", "b"], allocations)
    assert (found, problems) == ({"a": ("10.100.0.2",), "b": ("10.100.0.1",)}, [])


def test_block_is_used_by_its_site_only():
    """Nodes of other sites get addresses outside the block, so that one prefix routes the site."""
    site = Site(name="fra", networks=(ip_network("10.7.0.0/29"),))
    policy = mesh(leaf("f1", "fra"), leaf("f2", "fra"), leaf("*"), network="10.7.0.0/28", sites=(site,))
    found, problems = assign(policy, ["f1", "f2", "o1", "o2", "o3", "o4", "o5", "o6", "o7"])
    block = ip_network("10.7.0.0/29")
    assert {n for n, (a,) in found.items() if ip_address(a) in block} == {"f1", "f2"}
    assert problems == []


def test_other_nodes_use_block_when_rest_is_full():
    """A node of no site gets an address of a block if there are no others."""
    site = Site(name="fra", networks=(ip_network("10.7.0.0/29"),))
    policy = mesh(leaf("*"), network="10.7.0.0/29", sites=(site,))
    found, problems = assign(policy, ["a"])
    assert (len(found["a"]), problems) == (1, [])


def test_full_block_is_reported_with_its_site():
    """The problem names the node, the site and its block."""
    site = Site(name="fra", networks=(ip_network("10.7.0.0/30"),))
    policy = mesh(leaf("*", "fra"), network="10.7.0.0/24", sites=(site,))
    _, problems = assign(policy, ["a", "b", "c"])
    assert [str(p) for p in problems] == [
        "node c: the blocks of site fra (10.7.0.0/30) have no free address left; choose a wider one"
    ]


def test_second_network_leaves_first_addresses_unchanged():
    """A network of another family gives each node a second address."""
    before, _ = assign(mesh(leaf("*")), ["a", "b"])
    after, _ = assign(mesh(leaf("*"), network="10.100.0.0/16 fd00::/64"), ["a", "b"], Allocations(addresses=before))
    assert {n: a[:1] for n, a in after.items()} == before
    assert all(len(a) == 2 for a in after.values())


def test_allocations_keep_family_that_mesh_lost():
    """An address of a family that the mesh no longer has stays allocated, and so do those of nodes that left."""
    allocations = Allocations(addresses={"a": ("10.100.0.1", "fd00::1"), "left": ("10.100.0.2",)})
    updated = addresses.updated_addresses(allocations, {"a": ("10.100.0.1",), "b": ("10.100.0.3",)})
    assert updated == {"a": ("10.100.0.1", "fd00::1"), "b": ("10.100.0.3",), "left": ("10.100.0.2",)}


NODES = [f"n{i}" for i in range(12)]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sets(st.sampled_from(NODES)), min_size=2, max_size=6))
def test_joins_and_leaves_renumber_no_node(fleets):
    """Each node has one address for ever, and no two nodes ever have the same one."""
    policy = mesh(leaf("*"), network="10.7.0.0/28 fd00::/124")
    allocations, first = Allocations(), {}
    for fleet in fleets:
        found, problems = assign(policy, fleet, allocations)
        assert problems == []
        allocations = Allocations(addresses=addresses.updated_addresses(allocations, found))
        for node, own in found.items():
            assert first.setdefault(node, own) == own
            assert all(ip_address(a) in n for a, n in zip(own, policy.networks, strict=True))
    given_out = [a for own in first.values() for a in own]
    assert len(given_out) == len(set(given_out))


def test_sixteen_thousand_nodes_fill_a_network():
    """The search past taken addresses stays short: 16,382 hosts, 16,000 nodes."""
    rule = NodeRule(pattern="*")
    policy = mesh(rule, network="10.7.0.0/18")
    found, problems = addresses.assign_addresses(policy, {f"n{i}": rule for i in range(16_000)}, Allocations())
    assert len({a for own in found.values() for a in own}) == 16_000
    assert problems == []


def test_prefix_key_sorts_by_number():
    """The key sorts by family, address and length, not by spelling."""
    prefixes = ["fd00::/64", "10.0.0.10/32", "10.0.0.9/32", "10.0.0.0/8"]
    assert sorted(prefixes, key=addresses.prefix_key) == ["10.0.0.0/8", "10.0.0.9/32", "10.0.0.10/32", "fd00::/64"]
