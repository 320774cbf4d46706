"""Interfaces that get other names, one at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.renaming import renamed, steps, unfinished
from saltext_wgmesh.core.types import View
from tests.nodeviews import leaf, named, peer, relay

LEAF = leaf(direct=(peer(7), peer(8)))
RELAY = relay(leaves=(peer(7),), trunks=(2, 3))


def called(view: View) -> list[str]:
    return [i.name for i in view.interfaces]


def test_a_leaf_goes_through_its_uplinks_and_then_its_access_interface() -> None:
    found = steps(LEAF, named(LEAF, "office0"))
    assert [called(step.view) for step in found] == [
        ["wg0", "office0-u1", "wg0-u2"],
        ["wg0", "office0-u1", "office0-u2"],
        ["office0", "office0-u1", "office0-u2"],
    ]
    assert [sorted(step.neighbours) for step in found] == [["n1"], ["n2"], ["n7", "n8"]]
    assert found[-1].view == named(LEAF, "office0")
    assert [unfinished(step.view) for step in found] == [("office0-u1",), ("office0-u1", "office0-u2"), ()]
    assert (unfinished(LEAF), unfinished(named(RELAY, "wg0-u1")), unfinished(leaf(relays=()))) == ((), (), ())


def test_nothing_else_changes_on_the_way() -> None:
    """Another MTU, fewer neighbours and another relay come with the view itself."""
    wanted = replace(named(leaf(relays=(2, 3), direct=(peer(8),)), "x"), mtu=1380)
    found = steps(LEAF, wanted)
    assert [called(step.view) for step in found] == [["wg0", "wg0-u1", "x-u2"], ["x", "wg0-u1", "x-u2"]]
    back = {"x": "wg0", "x-u2": "wg0-u2"}
    listed = (replace(i, name=back.get(i.name, i.name)) for i in found[-1].view.interfaces)
    assert replace(found[-1].view, interfaces=tuple(listed)) == LEAF


@pytest.mark.parametrize("view", [LEAF, leaf(relays=(2, 3)), replace(LEAF, mtu=1380), leaf(direct=())])
def test_without_another_name_there_is_nothing_to_go_through(view: View) -> None:
    assert (steps(LEAF, view), renamed(LEAF, view)) == ((), {})


def test_whoever_holds_nothing_has_nothing_to_rename() -> None:
    assert (steps(None, LEAF), renamed(None, LEAF)) == ((), {})


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [
        # What the access interface is called now, an uplink is to be called.
        ("wg0-u1", "wg0", ["wg0-u1", "wg0-u1-u1", "wg0-u2"]),
        # What an uplink is called now, the access interface is to be called.
        ("wg0", "wg0-u2", ["wg0", "wg0-u2-u1", "wg0-u2"]),
    ],
)
def test_a_name_is_given_up_before_it_is_taken(old: str, new: str, first: list[str]) -> None:
    found = steps(named(LEAF, old), named(LEAF, new))
    assert called(found[0].view) == first
    assert all(len(set(called(step.view))) == 3 for step in found)
    assert found[-1].view == named(LEAF, new)


def test_names_that_change_places_are_left_to_the_view_itself() -> None:
    access, one, two = LEAF.interfaces
    crossed = replace(LEAF, interfaces=(access, replace(one, name=two.name), replace(two, name=one.name)))
    assert steps(LEAF, crossed) == ()


STEMS = st.sampled_from(["wg0", "wg1", "wg0-u1", "wg0-u2", "wg0-t2", "wg0-u1-u1"])
VIEWS = st.builds(
    lambda relays, direct, access: named(leaf(relays=relays, direct=tuple(map(peer, direct))), access),
    st.lists(st.integers(1, 3), min_size=1, unique=True).map(tuple),
    st.lists(st.integers(7, 9), unique=True),
    STEMS,
) | st.builds(
    lambda trunks, access: named(relay(leaves=(peer(7),), trunks=trunks), access),
    st.lists(st.integers(2, 4), unique=True).map(tuple),
    STEMS,
)


@given(held=VIEWS, view=VIEWS)
def test_one_interface_at_a_time_from_whatever_is_held(held: View, view: View) -> None:
    """Each name is there once at any time, and whoever dies after a step goes on as if nothing had been."""
    found = steps(held, view)
    for before, after in pairwise([held, *(step.view for step in found)]):
        assert len(set(called(before)) ^ set(called(after))) == 2
        assert len(set(called(after))) == len(after.interfaces)
    for number, step in enumerate(found):
        assert steps(step.view, view) == found[number + 1 :]
    last = found[-1].view if found else held
    # What is left waits for a name of one that goes.
    assert set(renamed(last, view).values()) <= set(called(last))
