"""Exit statuses of ``salt-run`` that a scenario passes over: links may be down while it runs."""

from __future__ import annotations

import pytest

from .fleet import OTHER_FAILURES, failed_for_links_alone

REPORT = {"mesh": "wg0", "generation": 3, "published": False}


def test_dead_links_alone_are_passed_over():
    """The value is returned without ``retcode``."""
    assert failed_for_links_alone({"wg0": {**REPORT, "down": ["a--r1"]}, "wg1": REPORT, "retcode": 1}) == {
        "wg0": {**REPORT, "down": ["a--r1"]},
        "wg1": REPORT,
    }


@pytest.mark.parametrize(
    "value",
    [
        {"wg0": REPORT, "retcode": 1},
        {"wg0": {**REPORT, "down": ["a"]}},
        {"node": "r1", "safe_to_stop": False, "remaining": ["wg0: a has it"], "retcode": 1},
        {"busy": "another run did not finish", "retcode": 1},
        "error",
        *({"wg0": {**REPORT, "down": ["a"], key: ["b"]}, "retcode": 1} for key in OTHER_FAILURES),
    ],
)
def test_any_other_failure_is_kept(value):
    """A failure of another kind ends the scenario as before."""
    assert failed_for_links_alone(value) is None
