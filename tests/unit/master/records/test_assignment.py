"""Assignments: what a node's pillar says of its place in a mesh."""

from __future__ import annotations

import pytest

from saltext_wgmesh.master.records.assignment import Assignment, AssignmentKind, StoredAssignment, view_from_dict
from tests.unit.harness.generations import view

KINDS = [kind for kind in AssignmentKind if kind is not AssignmentKind.VIEW]


def test_view_stands_by_its_own_keys():
    """With the digest that the node computes itself, and reads back as the same view."""
    one = Assignment.of_view(view("a", 1400))
    assert one.as_dict() == {**view("a", 1400).as_dict(), "digest": view("a", 1400).digest()}
    assert view_from_dict(one.as_dict()) == view("a", 1400)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (AssignmentKind.UNPLACED, {"pending": True}),
        (AssignmentKind.EXCLUDED, {}),
        (AssignmentKind.LEAVE, {"removed": True}),
    ],
)
def test_reason_tells_what_to_do(kind, flags):
    """A node that is only unplaced keeps what it runs; one that is to leave removes it."""
    one = Assignment.without_view(kind, "no relay")
    assert one.as_dict() == {"reason": "no relay", **flags, "digest": one.digest}
    assert view_from_dict(one.as_dict()) is None


def test_digests_differ_by_kind_and_reason():
    """So a node hears of each change; and they are no sentences."""
    digests = {Assignment.without_view(kind, reason).digest for kind in KINDS for reason in ("one", "other")}
    assert len(digests) == 2 * len(KINDS)
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in digests)


@pytest.mark.parametrize("raw", [{}, {"reason": "x"}, {"interfaces": [], "schema": 99}])
def test_unreadable_view_is_none(raw):
    """Of a view that another version wrote nothing is known."""
    assert view_from_dict(raw) is None


def test_stored_assignment_keeps_its_content():
    """The pillar gets it unchanged, and the view is the same."""
    stored = StoredAssignment.of(Assignment.of_view(view("a", 1400)), 7)
    assert StoredAssignment.from_dict(stored.as_dict()) == stored
    assert stored.as_dict() == {**Assignment.of_view(view("a", 1400)).as_dict(), "generation": 7}
    assert (stored.view(), stored.is_damaged) == (view("a", 1400), False)


def test_changed_view_in_record_is_damage():
    """Its digest tells. An assignment without a view has nothing to compare."""
    raw = StoredAssignment.of(Assignment.of_view(view("a", 1400)), 7).as_dict()
    assert StoredAssignment.from_dict({**raw, "mtu": 7}).is_damaged
    assert not StoredAssignment.of(Assignment.without_view(AssignmentKind.LEAVE, "x"), 7).is_damaged


@pytest.mark.parametrize("changed", [{"generation": "7"}, {"digest": None}])
def test_assignment_of_other_types_is_refused(changed):
    """The node's record then counts as damaged."""
    raw = StoredAssignment.of(Assignment.of_view(view("a", 1400)), 7).as_dict()
    with pytest.raises(TypeError):
        StoredAssignment.from_dict({**raw, **changed})
