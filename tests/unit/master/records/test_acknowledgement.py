"""Acknowledgements: what an answer to a push changes, and what follows for the next push."""

from __future__ import annotations

import dataclasses

import pytest

from saltext_wgmesh.master.records.acknowledgement import MAX_ERROR_LENGTH, NO_ACK, Ack, PendingPush

WANTED = {"wg0": "d2"}
APPLIED = {"wg0": {"digest": "d2"}}


def after(answer: object, before: Ack = NO_ACK, now: float = 100.0, job: str = "") -> Ack:
    return before.after(answer, WANTED, now, job)


def test_acknowledgement_leaves_nothing_pending():
    """The digest that the node returned counts, and when."""
    assert after(APPLIED) == Ack(digests=WANTED, at=100.0)
    assert after(APPLIED).covers(WANTED)


def test_unanswered_push_can_be_answered_later():
    """It is pending with its job; the node is told again after a pause that doubles, up to a limit."""
    ack = after(None, job="7")
    assert ack.pending == PendingPush(digests=WANTED, tries=1, retry_at=160.0, job="7")
    assert (ack.awaits_answer, ack.has_given_up) == (True, False)
    pauses = []
    for _ in range(4):
        ack = after(None, ack, job="8")
        pauses.append(ack.pending.retry_at - 100.0)
    assert pauses == [120.0, 240.0, 300.0, 300.0]
    assert ack.has_given_up


def test_push_of_another_plan_starts_counting_again():
    """The pause is for the plan that the node left unanswered."""
    ack = after(None, after(None, job="7"), job="8").after(None, {"wg0": "d3"}, 100.0, "9")
    assert ack.pending.tries == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"wg0": {"error": "no disk"}}, "no disk"),
        ("Minion did not return", "Minion did not return"),
        ({}, "it applied another view than the published one"),
        ({"wg0": {"digest": "d9"}}, "it applied another view than the published one"),
        ({"wg0": "text"}, "it applied another view than the published one"),
        ("x" * 2 * MAX_ERROR_LENGTH, "x" * MAX_ERROR_LENGTH),
        ("", ""),
    ],
)
def test_answer_without_the_digest_is_an_error(answer, error):
    """In the node's own words, as long as they are short; a transition need not wait for the node."""
    ack = after(answer)
    assert (ack.pending.error, ack.awaits_answer, ack.has_given_up) == (error, False, True)
    assert ack.refused(WANTED) == error


def test_rollback_counts_for_its_own_view_only():
    """By the mesh and digest that were pushed; other meshes of the node acknowledge as usual."""
    wanted = {"wg0": "d2", "wg1": "e2"}
    answer = {"wg0": {"digest": "d1", "error": "r1 is lost", "rolled_back": True}, "wg1": {"digest": "e2"}}
    ack = NO_ACK.after(answer, wanted, 100.0)
    assert ack.digests == {"wg0": "d1", "wg1": "e2"}
    assert ack.rolled_back(wanted) == {"wg0": "r1 is lost"}
    assert ack.rolled_back({"wg0": "d3"}) == {}
    assert ack.missing(wanted) == {"wg0"}


def test_plan_that_returns_settles_a_pending_push():
    """What the node ran counts again, unless it may have applied the plan in between since."""
    ran = Ack(digests={"wg0": "d1"}, at=1.0)
    refused, unanswered = after({"wg0": {"error": "e"}}, ran), after(None, ran, job="7")
    assert refused.settled({"wg0": "d1"}) == dataclasses.replace(refused, pending=None)
    assert unanswered.settled({"wg0": "d1"}) == dataclasses.replace(unanswered, digests={}, pending=None)
    assert unanswered.settled(WANTED) is unanswered


@pytest.mark.parametrize(
    "ack", [NO_ACK, after(APPLIED), after(None, job="7"), after({"wg0": {"error": "e", "rolled_back": True}})]
)
def test_acknowledgement_reads_as_it_was_written(ack):
    """All of its fields."""
    assert Ack.from_dict(ack.as_dict()) == ack


@pytest.mark.parametrize("kind", ["tests only", "fails"])
def test_node_that_only_tests_delays_no_other(kind):
    """It has not acknowledged, a transition does not wait for it, and it blocks no push, as an error would."""
    answer = {"wg0": {"error": "nothing was changed", **({"test": True} if kind == "tests only" else {})}}
    ack = Ack().after(answer, {"wg0": "d1"}, 5.0)
    assert not ack.covers({"wg0": "d1"})
    assert ack.has_given_up
    assert ack.refused({"wg0": "d1"}) == ("" if kind == "tests only" else "nothing was changed")
    assert ack.pending.only_tests == (kind == "tests only")
    assert Ack.from_dict(ack.as_dict()) == ack
