"""Addresses: explicit, else kept, else hashed; never taken away by others."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import addresses
from saltext_wgmesh.core.types import NodeRule, Register, Site
from tests.unit.worlds import leaf, mesh


def assign(policy, nodes, register=None):
    """The addresses of *nodes*, whose rule is the entry of that name or the glob ``*``."""
    rules = {r.pattern: r for r in policy.nodes}
    return addresses.assign(policy, {n: rules.get(n) or rules["*"] for n in nodes}, register or Register())


def test_the_hash_of_the_name_gives_an_address_that_never_changes():
    """A fleet that loses its register gets the same addresses again: these values are part of the contract."""
    found, problems = assign(mesh(leaf("*"), network="10.100.0.0/16 fd00:64::/64"), ["db1", "web1"])
    assert problems == []
    assert found == {
        "db1": ("10.100.52.133", "fd00:64::13c2:dcd9:4d5a:7abd"),
        "web1": ("10.100.41.215", "fd00:64::2bbf:7218:d80c:cb60"),
    }


def test_explicit_comes_before_the_register_and_the_register_before_the_hash():
    policy = mesh(leaf("a", addresses=["10.100.0.1"]), leaf("*"))
    register = Register(addresses={"a": ("10.100.9.9",), "b": ("10.100.0.2",)})
    assert assign(policy, ["a", "b"], register)[0] == {"a": ("10.100.0.1",), "b": ("10.100.0.2",)}


def test_a_kept_address_outside_the_network_is_replaced():
    policy = mesh(leaf("*"), network="10.7.0.0/29")
    (address,) = assign(policy, ["a"], Register(addresses={"a": ("10.100.0.2",)}))[0]["a"]
    assert ip_address(address) in ip_network("10.7.0.0/29")


def test_small_ranges_are_used_to_the_last_host_and_no_further():
    """A /30 has two hosts; the third node is named with the network that has no room for it."""
    found, problems = assign(mesh(leaf("*"), network="10.7.0.0/30"), ["a", "b", "c"])
    assert sorted(found["a"] + found["b"]) == ["10.7.0.1", "10.7.0.2"]
    assert [str(p) for p in problems] == [
        "node c: the network 10.7.0.0/30 has no free address left; choose a wider one"
    ]


def test_a_pair_of_addresses_has_neither_network_nor_broadcast():
    """RFC 3021: both addresses of a /31 are hosts."""
    found, problems = assign(mesh(leaf("*"), network="10.7.0.0/31"), ["a", "b"])
    assert sorted(found["a"] + found["b"]) == ["10.7.0.0", "10.7.0.1"]
    assert problems == []


def test_addresses_of_nodes_that_left_are_not_given_to_others():
    register = Register(addresses={"gone": ("10.7.0.1",)})
    found, _ = assign(mesh(leaf("*"), network="10.7.0.0/30"), ["a"], register)
    assert found == {"a": ("10.7.0.2",)}


def test_an_explicit_address_of_an_absent_node_is_kept_free():
    policy = mesh(leaf("later", addresses=["10.7.0.2"]), leaf("*"), network="10.7.0.0/30")
    assert assign(policy, ["a"])[0] == {"a": ("10.7.0.1",)}


def test_an_explicit_address_that_another_node_holds_is_a_problem_with_both_names():
    policy = mesh(leaf("a", addresses=["10.100.0.5"]), leaf("*"))
    _, problems = assign(policy, ["a", "b"], Register(addresses={"b": ("10.100.0.5",)}))
    assert [str(p) for p in problems] == [
        "wgmesh:wg0:nodes:a:address: 10.100.0.5 belongs to node b; "
        "choose a free address, or give b an explicit address of its own"
    ]


def test_two_nodes_may_swap_explicit_addresses():
    """Who has an explicit address of its own no longer holds what the register says."""
    policy = mesh(leaf("a", addresses=["10.100.0.2"]), leaf("b", addresses=["10.100.0.1"]))
    register = Register(addresses={"a": ("10.100.0.1",), "b": ("10.100.0.2",)})
    found, problems = assign(policy, ["a", "b"], register)
    assert (found, problems) == ({"a": ("10.100.0.2",), "b": ("10.100.0.1",)}, [])


def test_a_site_with_a_block_fills_it_and_leaves_it_to_nobody_else():
    """Others stay out of the block, so that one prefix stands for the site."""
    site = Site(name="fra", networks=(ip_network("10.7.0.0/29"),))
    policy = mesh(leaf("f1", "fra"), leaf("f2", "fra"), leaf("*"), network="10.7.0.0/28", sites=(site,))
    found, problems = assign(policy, ["f1", "f2", "o1", "o2", "o3", "o4", "o5", "o6", "o7"])
    block = ip_network("10.7.0.0/29")
    assert {n for n, (a,) in found.items() if ip_address(a) in block} == {"f1", "f2"}
    assert problems == []


def test_when_only_blocks_have_room_the_others_go_there():
    site = Site(name="fra", networks=(ip_network("10.7.0.0/29"),))
    policy = mesh(leaf("*"), network="10.7.0.0/29", sites=(site,))
    found, problems = assign(policy, ["a"])
    assert (len(found["a"]), problems) == (1, [])


def test_a_full_block_is_named_with_its_site():
    site = Site(name="fra", networks=(ip_network("10.7.0.0/30"),))
    policy = mesh(leaf("*", "fra"), network="10.7.0.0/24", sites=(site,))
    _, problems = assign(policy, ["a", "b", "c"])
    assert [str(p) for p in problems] == [
        "node c: the blocks of site fra (10.7.0.0/30) have no free address left; choose a wider one"
    ]


def test_a_second_family_leaves_the_first_as_it_is():
    before, _ = assign(mesh(leaf("*")), ["a", "b"])
    after, _ = assign(mesh(leaf("*"), network="10.100.0.0/16 fd00::/64"), ["a", "b"], Register(addresses=before))
    assert {n: a[:1] for n, a in after.items()} == before
    assert all(len(a) == 2 for a in after.values())


def test_the_register_keeps_the_family_that_the_mesh_no_longer_has():
    register = Register(addresses={"a": ("10.100.0.1", "fd00::1"), "gone": ("10.100.0.2",)})
    kept = addresses.remember(register, {"a": ("10.100.0.1",), "b": ("10.100.0.3",)})
    assert kept == {"a": ("10.100.0.1", "fd00::1"), "b": ("10.100.0.3",), "gone": ("10.100.0.2",)}


NODES = [f"n{i}" for i in range(12)]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sets(st.sampled_from(NODES)), min_size=2, max_size=6))
def test_nobody_is_renumbered_by_joins_and_leaves_in_any_order(fleets):
    """Each node has one address for ever, and no two nodes ever have the same, even if they never meet."""
    policy = mesh(leaf("*"), network="10.7.0.0/28 fd00::/124")
    register, first = Register(), {}
    for fleet in fleets:
        found, problems = assign(policy, fleet, register)
        assert problems == []
        register = Register(addresses=addresses.remember(register, found))
        for node, own in found.items():
            assert first.setdefault(node, own) == own
            assert all(ip_address(a) in n for a, n in zip(own, policy.networks, strict=True))
    given_out = [a for own in first.values() for a in own]
    assert len(given_out) == len(set(given_out))


def test_ten_thousand_nodes_fit_into_a_range_that_is_nearly_full():
    """The walk past taken addresses stays short: 16,382 hosts, 16,000 nodes."""
    rule = NodeRule(pattern="*")
    policy = mesh(rule, network="10.7.0.0/18")
    found, problems = addresses.assign(policy, {f"n{i}": rule for i in range(16_000)}, Register())
    assert len({a for own in found.values() for a in own}) == 16_000
    assert problems == []


def test_prefixes_sort_by_number_and_not_by_spelling():
    prefixes = ["fd00::/64", "10.0.0.10/32", "10.0.0.9/32", "10.0.0.0/8"]
    assert sorted(prefixes, key=addresses.prefix_key) == ["10.0.0.0/8", "10.0.0.9/32", "10.0.0.10/32", "fd00::/64"]
