"""The relays of leaves are balanced when new, and change only where a relay joins or leaves."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Site, Topology
from saltext_wgmesh.core.planning import relay_assignment
from tests.unit.harness.worlds import mesh, relay

RELAYS = [f"r{i}" for i in range(6)]
TEN = {f"n{i}": "fra" for i in range(10)}


def site(*relays):
    return mesh(sites=(Site(name="fra", relays=relays), Site(name="nyc", relays=("r4",))))


def assign(policy, leaves, relays, previous=None):
    return relay_assignment.assign_relays(policy, leaves, relays, Allocations(relays=previous or {}))


def test_leaf_has_both_relays_of_its_site():
    """A relay of the mesh that the site does not name is not used."""
    found = assign(site("r0", "r1"), {"a": "fra"}, ["r0", "r1", "r2"])
    assert set(found["a"]) == {"r0", "r1"}


def test_second_relay_comes_from_other_sites():
    """A site with one relay gets second relays from the mesh, evenly."""
    found = assign(site("r0"), TEN, ["r0", "r1", "r2"])
    assert {r[0] for r in found.values()} == {"r0"}
    assert Counter(r[1] for r in found.values()) == {"r1": 5, "r2": 5}


def test_relay_without_facts_is_not_assigned():
    """A leaf has fewer relays, or none, until relays publish facts."""
    assert assign(site("r0", "r1"), {"a": "fra"}, ["r1"]) == {"a": ("r1",)}
    assert assign(site("r0", "r1"), {"a": "fra"}, []) == {"a": ()}


def test_relay_at_the_site_comes_first():
    """A relay that the site names although it is at another site is the second relay of all leaves."""
    policy = mesh(relay("r0", site="nyc"), relay("r1", site="fra"), sites=(Site(name="fra", relays=("r0", "r1")),))
    assert set(assign(policy, TEN, ["r0", "r1"]).values()) == {("r1", "r0")}


def test_leaves_of_no_site_use_all_relays():
    """All relays of the mesh are balanced among leaves without a site."""
    found = assign(mesh(), dict.fromkeys(TEN), ["r0", "r1"])
    assert Counter(r[0] for r in found.values()) == {"r0": 5, "r1": 5}


def test_link_to_relay_appends_the_relay():
    """A link of the policy between a leaf and a relay makes it a third relay, unless the leaf has it already."""
    policy = mesh(sites=(Site(name="fra", relays=("r0", "r1")),), links=(("a", "r2"), ("a", "r0")))
    assert assign(policy, {"a": "fra"}, ["r0", "r1", "r2"])["a"][2:] == ("r2",)


def test_full_topology_assigns_relays_of_site_first():
    """The first two relays are those of the site, and all others follow."""
    policy = mesh(sites=(Site(name="fra", relays=("r2", "r3")),), topology=Topology.FULL)
    found = assign(policy, {"a": "fra"}, ["r0", "r1", "r2", "r3"])["a"]
    assert set(found[:2]) == {"r2", "r3"}
    assert set(found[2:]) == {"r0", "r1"}


def test_full_topology_lists_site_before_other_relays():
    """All relays of the site come before the others, also the third one."""
    policy = mesh(sites=(Site(name="fra", relays=("r1", "r2", "r3")),), topology=Topology.FULL)
    for leaf in "abcdef":
        found = assign(policy, {leaf: "fra"}, ["r0", "r1", "r2", "r3", "r4"])[leaf]
        assert set(found[:3]) == {"r1", "r2", "r3"}


def test_full_topology_appends_new_relay():
    """The order of previous relays stays when a relay joins."""
    policy = mesh(topology=Topology.FULL)
    previous = {f"n{i}": ("r1", "r2", "r0") for i in range(3)}
    found = assign(policy, dict.fromkeys(previous), ["r0", "r1", "r2", "r3"], previous)
    assert found == dict.fromkeys(previous, ("r1", "r2", "r0", "r3"))


def test_second_relay_replaces_lost_first():
    """The leaf gets a new second relay, and other leaves keep theirs."""
    previous = {"a": ("r0", "r1"), "b": ("r1", "r0"), "c": ("r2", "r1")}
    found = assign(site("r0", "r1", "r2"), dict.fromkeys(previous, "fra"), ["r1", "r2"], previous)
    assert found == {"a": ("r1", "r2"), "b": ("r1", "r2"), "c": ("r2", "r1")}


def test_returned_relay_gets_its_share():
    """Half of the leaves move to the relay, the ones that hashing prefers; the others keep their first relay."""
    previous = {f"n{i}": ("r1", "r4") for i in range(10)}
    found = assign(site("r0", "r1"), TEN, ["r0", "r1", "r4"], previous)
    assert {n for n, h in found.items() if h == ("r0", "r1")} == set(sorted(TEN, key=by_score)[:5])
    assert Counter(found.values()) == {("r0", "r1"): 5, ("r1", "r0"): 5}


def by_score(leaf):
    """Return a sort key: leaves with the highest rendezvous score for r0 first."""
    return -int.from_bytes(blake2b(f"{leaf}\0r0".encode(), digest_size=8).digest(), "big")


def test_assignment_without_allocations_never_changes():
    """A fleet that loses its allocations gets the same relays again. The hash of c prefers r0, which is full."""
    found = assign(mesh(), dict.fromkeys(["a", "b", "c", "d"]), ["r0", "r1"])
    assert found == {"a": ("r0", "r1"), "b": ("r0", "r1"), "c": ("r1", "r0"), "d": ("r1", "r0")}


fleets = st.sets(st.sampled_from([f"n{i}" for i in range(30)]), min_size=1)
relay_sets = st.lists(st.sampled_from(RELAYS), min_size=1, unique=True)


@st.composite
def histories(draw, *last):
    """Draw leaves, relays and their assignment after some changes; *last* are the strategies of the last change."""
    previous: dict = {}
    leaves, relays = {}, []
    for shape in [*[(fleets, relay_sets)] * draw(st.integers(0, 3)), last or (fleets, relay_sets)]:
        leaves, relays = dict.fromkeys(draw(shape[0])), draw(shape[1])
        previous = {**previous, **assign(mesh(), leaves, relays, previous)}
    return leaves, relays, previous


large = histories(
    st.sets(st.sampled_from([f"n{i}" for i in range(30)]), min_size=6),
    st.lists(st.sampled_from(RELAYS), min_size=2, max_size=5, unique=True),
)
"""At least as many leaves as relays, and at least two relays, but not all."""


@settings(max_examples=100, deadline=None)
@given(fleets, relay_sets)
def test_new_group_is_balanced(leaves, relays):
    """No relay is first for more than ceil(n/k) leaves, and each leaf has two relays if there are two."""
    found = assign(mesh(), dict.fromkeys(leaves), relays)
    firsts = Counter(r[0] for r in found.values())
    assert max(firsts.values()) <= -(-len(leaves) // len(relays))
    if len(leaves) >= len(relays):
        assert set(firsts) == set(relays)
    assert all(len(h) == min(2, len(relays)) == len(set(h)) for h in found.values())


@settings(max_examples=100, deadline=None)
@given(histories())
def test_unchanged_inputs_move_no_leaf(history):
    """The same leaves and relays give the same assignment."""
    leaves, relays, previous = history
    assert assign(mesh(), leaves, relays, previous) == {leaf: previous[leaf] for leaf in sorted(leaves)}


@settings(max_examples=200, deadline=None)
@given(large, st.data())
def test_lost_relay_moves_only_its_leaves(history, data):
    """A leaf without the relay keeps both relays in order; a leaf with it keeps the other one, as first."""
    leaves, relays, previous = history
    lost = data.draw(st.sampled_from(relays))
    found = assign(mesh(), leaves, [r for r in relays if r != lost], previous)
    for leaf in leaves:
        if lost not in previous[leaf]:
            assert found[leaf] == previous[leaf]
        else:
            assert found[leaf][0] == next(r for r in previous[leaf] if r != lost)


@settings(max_examples=200, deadline=None)
@given(large, st.data())
def test_new_relay_gets_its_share_only(history, data):
    """floor(n/k) leaves get it as their first relay, with their old first as second; all other leaves stay."""
    leaves, relays, previous = history
    new = data.draw(st.sampled_from([r for r in RELAYS if r not in relays]))
    found = assign(mesh(), leaves, [*relays, new], previous)
    moved = [leaf for leaf in leaves if found[leaf] != previous[leaf]]
    assert len(moved) == len(leaves) // (len(relays) + 1)
    assert all(found[leaf] == (new, previous[leaf][0]) for leaf in moved)


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_input_order_does_not_matter(history, data):
    """Neither the order of leaves nor that of relays matters."""
    leaves, relays, previous = history
    shuffled = dict.fromkeys(data.draw(st.permutations(sorted(leaves))))
    again = assign(mesh(), shuffled, data.draw(st.permutations(relays)), previous)
    assert list(again.items()) == list(assign(mesh(), leaves, relays, previous).items())
