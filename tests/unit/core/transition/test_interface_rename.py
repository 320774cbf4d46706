"""Interfaces that get other names, one at a time, in views between two views."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.transition.interface_rename import half_renamed, interface_renames, views_of_rename
from tests.nodeviews import leaf, named, peer, relay

LEAF = leaf(direct=(peer(7), peer(8)))
RELAY = relay(leaves=(peer(7),), trunks=(2, 3))


def called(view: View) -> list[str]:
    return [i.name for i in view.interfaces]


def test_rename_steps_leaf_renames_access_interface_last() -> None:
    """One uplink after the other, then the access interface; on the way the view counts as half renamed."""
    found = views_of_rename(LEAF, named(LEAF, "office0"))
    assert [called(step.view) for step in found] == [
        ["wg0", "office0-u1", "wg0-u2"],
        ["wg0", "office0-u1", "office0-u2"],
        ["office0", "office0-u1", "office0-u2"],
    ]
    assert [sorted(step.neighbours) for step in found] == [["n1"], ["n2"], ["n7", "n8"]]
    assert found[-1].view == named(LEAF, "office0")
    assert [half_renamed(step.view) for step in found] == [("office0-u1",), ("office0-u1", "office0-u2"), ()]
    assert (half_renamed(LEAF), half_renamed(named(RELAY, "wg0-u1")), half_renamed(leaf(relays=()))) == ((), (), ())


def test_rename_steps_change_names_only() -> None:
    """Another MTU, fewer neighbours and another relay come with the view itself."""
    wanted = replace(named(leaf(relays=(2, 3), direct=(peer(8),)), "x"), mtu=1380)
    found = views_of_rename(LEAF, wanted)
    assert [called(step.view) for step in found] == [["wg0", "wg0-u1", "x-u2"], ["x", "wg0-u1", "x-u2"]]
    back = {"x": "wg0", "x-u2": "wg0-u2"}
    listed = (replace(i, name=back.get(i.name, i.name)) for i in found[-1].view.interfaces)
    assert replace(found[-1].view, interfaces=tuple(listed)) == LEAF


@pytest.mark.parametrize("view", [LEAF, leaf(relays=(2, 3)), replace(LEAF, mtu=1380), leaf(direct=())])
def test_rename_steps_same_names_are_none(view: View) -> None:
    """Other relays, neighbours or another MTU are no rename."""
    assert (views_of_rename(LEAF, view), interface_renames(LEAF, view)) == ((), {})


def test_rename_steps_without_held_view_are_none() -> None:
    """A node without a view has no interface to rename."""
    assert (views_of_rename(None, LEAF), interface_renames(None, LEAF)) == ((), {})


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [
        # What the access interface is called now, an uplink is to be called.
        ("wg0-u1", "wg0", ["wg0-u1", "wg0-u1-u1", "wg0-u2"]),
        # What an uplink is called now, the access interface is to be called.
        ("wg0", "wg0-u2", ["wg0", "wg0-u2-u1", "wg0-u2"]),
    ],
)
def test_rename_steps_free_name_before_its_use(old: str, new: str, first: list[str]) -> None:
    """No two interfaces have the same name at any time."""
    found = views_of_rename(named(LEAF, old), named(LEAF, new))
    assert called(found[0].view) == first
    assert all(len(set(called(step.view))) == 3 for step in found)
    assert found[-1].view == named(LEAF, new)


def test_rename_steps_exchanged_names_are_none() -> None:
    """The view itself solves an exchange of names."""
    access, one, two = LEAF.interfaces
    crossed = replace(LEAF, interfaces=(access, replace(one, name=two.name), replace(two, name=one.name)))
    assert views_of_rename(LEAF, crossed) == ()


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
def test_rename_steps_rename_one_interface_at_a_time(held: View, view: View) -> None:
    """Each name exists once at any time, and a node that stops after a step continues with the same steps."""
    found = views_of_rename(held, view)
    for before, after in pairwise([held, *(step.view for step in found)]):
        assert len(set(called(before)) ^ set(called(after))) == 2
        assert len(set(called(after))) == len(after.interfaces)
    for number, step in enumerate(found):
        assert views_of_rename(step.view, view) == found[number + 1 :]
    last = found[-1].view if found else held
    # Renames that are left wait for the name of an interface that is removed.
    assert set(interface_renames(last, view).values()) <= set(called(last))
