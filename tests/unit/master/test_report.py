"""Reports: what one round did to a mesh, and several rounds of one run together."""

from __future__ import annotations

from saltext_wgmesh.master.records.decisions import HeldLoss
from saltext_wgmesh.master.report import MeshReport, merge_rounds

HELD = HeldLoss(digest="abc", nodes=("a",), links=(), why="too much", remedy="confirm it")


def test_plain_report_leaves_out_what_is_empty():
    """Lists in place of tuples, for programs; the mesh, its generation and whether it is new are always there."""
    report = MeshReport(mesh="wg0", generation=2, applied=("b", "a"), held_loss=HELD, newly_held=True)
    assert report.as_dict() == {
        "mesh": "wg0",
        "generation": 2,
        "published": False,
        "applied": ["b", "a"],
        "held_loss": HELD.as_dict(),
    }


def test_rounds_of_one_run_are_one_report():
    """The last round counts; what the rounds before did stands besides, unless it is settled since."""
    first = MeshReport(
        mesh="wg0",
        generation=1,
        published=True,
        changed=("a", "b", "c"),
        applied=("a",),
        silent=("b",),
        failed={"c": "no disk"},
        newly_held=True,
    )
    last = MeshReport(mesh="wg0", generation=1, applied=("b",), not_acknowledged=("c",))
    merged = merge_rounds([[first], [], [last]])["wg0"]
    assert (merged.published, merged.changed, merged.applied) == (True, ("a", "b", "c"), ("a", "b"))
    assert (merged.silent, merged.failed, merged.newly_held) == ((), {"c": "no disk"}, True)


def test_run_with_unfinished_work_is_not_idle():
    """Rotation, transition and PSK rollover go on although nothing they are planned from changes."""
    idle = MeshReport(mesh="wg0", generation=1)
    assert idle.leaves_nothing_to_do
    for unfinished in (
        MeshReport(mesh="wg0", generation=1, transition_waits_for=("a--r1",)),
        MeshReport(mesh="wg0", generation=1, rotating={"a": "its turn comes next"}),
        MeshReport(mesh="wg0", generation=1, psk_laggards=("a",)),
        MeshReport(mesh="wg0", generation=1, not_acknowledged=("a",)),
        MeshReport(mesh="wg0", generation=1, held_loss=HELD),
    ):
        assert not unfinished.leaves_nothing_to_do
