"""What the runner returns of a converge, and when its exit status is 1."""

from __future__ import annotations

import pytest

from saltext_wgmesh.master.operator import plain
from saltext_wgmesh.master.operator.converge_result import PIN_ENDED, ConvergeResult
from saltext_wgmesh.master.records.decisions import Pin, PolicyPin
from saltext_wgmesh.master.report import MeshReport

CLEAN = MeshReport(mesh="wg0", generation=3)
FAILED = MeshReport(mesh="wg1", generation=1, failed={"a": "no disk"})


@pytest.mark.parametrize(
    ("result", "returned"),
    [
        (ConvergeResult(), {}),
        (ConvergeResult(reports={"wg0": CLEAN}), {"wg0": CLEAN.as_dict()}),
        (
            ConvergeResult(reports={"wg0": CLEAN, "wg1": FAILED}),
            {"wg0": CLEAN.as_dict(), "wg1": FAILED.as_dict(), "retcode": 1},
        ),
        (ConvergeResult(busy="another run"), {"busy": "another run", "retcode": 1}),
        (ConvergeResult(error="no plan"), {"error": "no plan", "retcode": 1}),
        (ConvergeResult(queued="another run", pins={"wg0": None}), "another run"),
    ],
    ids=["no mesh", "clean", "one failed", "busy", "error", "queued"],
)
def test_result_is_returned_with_exit_status(result, returned):
    """Only a caller that does not wait gets a sentence in place of the values."""
    assert plain.converged(result) == returned


@pytest.mark.parametrize("reports", [{}, {"wg0": CLEAN}], ids=["busy", "converged"])
def test_pin_stands_beside_the_report(reports):
    """It is returned also without a report: the pin is in the ledger, whatever the run does."""
    pin = PolicyPin.of("wg0", Pin(replaces="x", generation=2, why="r1 went down"))
    found = ConvergeResult(reports=reports, pins={"wg0": pin, "wg1": PolicyPin.of("wg1", Pin(replaces="x"))}).as_dict()
    assert found["wg0"]["policy_pin"] == {
        "generation": 2,
        "why": "r1 went down",
        "remedy": "ends when the mesh's policy in the pillar changes, or by: "
        "salt-run wgmesh.rollback generation=0 mesh=wg0",
    }
    assert found["wg1"] == {"policy_pin": PIN_ENDED}
    assert {key: value for key, value in found["wg0"].items() if key != "policy_pin"} == (
        reports["wg0"].as_dict() if reports else {}
    )
