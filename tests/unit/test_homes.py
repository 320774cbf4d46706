"""Homes: balanced when new, and moved only where a relay came or went."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import homes
from saltext_wgmesh.core.types import Register, Site, Topology
from tests.unit.worlds import mesh, relay

RELAYS = [f"r{i}" for i in range(6)]
TEN = {f"n{i}": "fra" for i in range(10)}


def site(*relays):
    return mesh(sites=(Site(name="fra", relays=relays), Site(name="nyc", relays=("r4",))))


def assign(policy, leaves, relays, had=None):
    return homes.assign(policy, leaves, relays, Register(homes=had or {}))


def test_a_leaf_has_the_two_relays_of_its_site():
    found = assign(site("r0", "r1"), {"a": "fra"}, ["r0", "r1", "r2"])
    assert set(found["a"]) == {"r0", "r1"}


def test_a_site_with_one_relay_is_filled_up_from_the_others():
    found = assign(site("r0"), TEN, ["r0", "r1", "r2"])
    assert {h[0] for h in found.values()} == {"r0"}
    assert Counter(h[1] for h in found.values()) == {"r1": 5, "r2": 5}


def test_relays_without_facts_do_not_count():
    assert assign(site("r0", "r1"), {"a": "fra"}, ["r1"]) == {"a": ("r1",)}
    assert assign(site("r0", "r1"), {"a": "fra"}, []) == {"a": ()}


def test_the_relays_that_stand_at_the_site_come_first():
    """The one that the site names although it stands elsewhere is in reserve for all leaves."""
    policy = mesh(relay("r0", site="nyc"), relay("r1", site="fra"), sites=(Site(name="fra", relays=("r0", "r1")),))
    assert set(assign(policy, TEN, ["r0", "r1"]).values()) == {("r1", "r0")}


def test_leaves_at_no_site_choose_among_all():
    found = assign(mesh(), dict.fromkeys(TEN), ["r0", "r1"])
    assert Counter(h[0] for h in found.values()) == {"r0": 5, "r1": 5}


def test_a_link_to_a_relay_makes_it_one_more_home():
    policy = mesh(sites=(Site(name="fra", relays=("r0", "r1")),), links=(("a", "r2"), ("a", "r0")))
    assert assign(policy, {"a": "fra"}, ["r0", "r1", "r2"])["a"][2:] == ("r2",)


def test_full_makes_all_relays_homes_with_those_of_the_site_first():
    policy = mesh(sites=(Site(name="fra", relays=("r2", "r3")),), topology=Topology.FULL)
    found = assign(policy, {"a": "fra"}, ["r0", "r1", "r2", "r3"])["a"]
    assert set(found[:2]) == {"r2", "r3"}
    assert set(found[2:]) == {"r0", "r1"}


def test_full_lists_all_relays_of_the_site_before_the_others():
    policy = mesh(sites=(Site(name="fra", relays=("r1", "r2", "r3")),), topology=Topology.FULL)
    for leaf in "abcdef":
        found = assign(policy, {leaf: "fra"}, ["r0", "r1", "r2", "r3", "r4"])[leaf]
        assert set(found[:3]) == {"r1", "r2", "r3"}


def test_full_keeps_its_order_when_a_relay_comes():
    policy = mesh(topology=Topology.FULL)
    had = {f"n{i}": ("r1", "r2", "r0") for i in range(3)}
    found = assign(policy, dict.fromkeys(had), ["r0", "r1", "r2", "r3"], had)
    assert found == dict.fromkeys(had, ("r1", "r2", "r0", "r3"))


def test_the_other_relay_moves_up_when_the_first_is_lost():
    had = {"a": ("r0", "r1"), "b": ("r1", "r0"), "c": ("r2", "r1")}
    found = assign(site("r0", "r1", "r2"), dict.fromkeys(had, "fra"), ["r1", "r2"], had)
    assert found == {"a": ("r1", "r2"), "b": ("r1", "r2"), "c": ("r2", "r1")}


def test_a_relay_that_returns_takes_its_share_and_nobody_else_moves():
    had = {f"n{i}": ("r1", "r4") for i in range(10)}
    found = assign(site("r0", "r1"), TEN, ["r0", "r1", "r4"], had)
    assert {n for n, h in found.items() if h == ("r0", "r1")} == set(sorted(TEN, key=by_score)[:5])
    assert Counter(found.values()) == {("r0", "r1"): 5, ("r1", "r0"): 5}


def by_score(leaf):
    """Leaves with the highest rendezvous score for r0 first: they are the ones that would choose it anyway."""
    return -int.from_bytes(blake2b(f"{leaf}\0r0".encode(), digest_size=8).digest(), "big")


def test_the_choice_is_part_of_the_contract():
    """A fleet that loses its register chooses the same relays again. By its hash alone c would have r0: full."""
    found = assign(mesh(), dict.fromkeys(["a", "b", "c", "d"]), ["r0", "r1"])
    assert found == {"a": ("r0", "r1"), "b": ("r0", "r1"), "c": ("r1", "r0"), "d": ("r1", "r0")}


fleets = st.sets(st.sampled_from([f"n{i}" for i in range(30)]), min_size=1)
relay_sets = st.lists(st.sampled_from(RELAYS), min_size=1, unique=True)


@st.composite
def histories(draw, *last):
    """A pool that joins and leaves of leaves and relays have shaped: leaves, relays, homes. *last*: its last shape."""
    had: dict = {}
    leaves, relays = {}, []
    for shape in [*[(fleets, relay_sets)] * draw(st.integers(0, 3)), last or (fleets, relay_sets)]:
        leaves, relays = dict.fromkeys(draw(shape[0])), draw(shape[1])
        had = {**had, **assign(mesh(), leaves, relays, had)}
    return leaves, relays, had


large = histories(
    st.sets(st.sampled_from([f"n{i}" for i in range(30)]), min_size=6),
    st.lists(st.sampled_from(RELAYS), min_size=2, max_size=5, unique=True),
)
"""At least as many leaves as relays, and at least two relays, but not all."""


@settings(max_examples=100, deadline=None)
@given(fleets, relay_sets)
def test_a_new_pool_is_balanced(leaves, relays):
    """No relay is first for more than ceil(n/k), and seconds are spread over each first's leaves alike."""
    found = assign(mesh(), dict.fromkeys(leaves), relays)
    firsts = Counter(h[0] for h in found.values())
    assert max(firsts.values()) <= -(-len(leaves) // len(relays))
    if len(leaves) >= len(relays):
        assert set(firsts) == set(relays)
    assert all(len(h) == min(2, len(relays)) == len(set(h)) for h in found.values())


@settings(max_examples=100, deadline=None)
@given(histories())
def test_nothing_moves_when_nothing_changes(history):
    leaves, relays, had = history
    assert assign(mesh(), leaves, relays, had) == {leaf: had[leaf] for leaf in sorted(leaves)}


@settings(max_examples=200, deadline=None)
@given(large, st.data())
def test_losing_a_relay_moves_only_its_leaves(history, data):
    """Whoever did not have it keeps both in order; whoever had it keeps the other one, as first."""
    leaves, relays, had = history
    lost = data.draw(st.sampled_from(relays))
    found = assign(mesh(), leaves, [r for r in relays if r != lost], had)
    for leaf in leaves:
        if lost not in had[leaf]:
            assert found[leaf] == had[leaf]
        else:
            assert found[leaf][0] == next(r for r in had[leaf] if r != lost)


@settings(max_examples=200, deadline=None)
@given(large, st.data())
def test_adding_a_relay_moves_its_share_and_only_to_it(history, data):
    """floor(n/k) leaves take it as their first, the old first as second; all others stay as they were."""
    leaves, relays, had = history
    new = data.draw(st.sampled_from([r for r in RELAYS if r not in relays]))
    found = assign(mesh(), leaves, [*relays, new], had)
    moved = [leaf for leaf in leaves if found[leaf] != had[leaf]]
    assert len(moved) == len(leaves) // (len(relays) + 1)
    assert all(found[leaf] == (new, had[leaf][0]) for leaf in moved)


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_the_order_of_the_input_does_not_matter(history, data):
    leaves, relays, had = history
    shuffled = dict.fromkeys(data.draw(st.permutations(sorted(leaves))))
    again = assign(mesh(), shuffled, data.draw(st.permutations(relays)), had)
    assert list(again.items()) == list(assign(mesh(), leaves, relays, had).items())
