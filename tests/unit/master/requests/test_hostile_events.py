"""Events that any minion can forge: a reaction has short names and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saltext_wgmesh.master.requests import reactions
from saltext_wgmesh.master.requests.reactions import MAX_SUSPECTS
from saltext_wgmesh.master.requests.request import MAX_VALUE_LENGTH
from tests.unit.harness.hostile import nested

HOSTILE = ["x" * 1_000_000, nested(960), "a\n\x1b[2J", {"a": 1}, ["a"], 10**5000, None, b"a"]


def arguments(tmp_path: Path, **names: object) -> dict[str, Any]:
    """The arguments of the runner in the reaction to an event with *names*."""
    found = reactions.converge_reaction({"cachedir": str(tmp_path)}, **names)["wgmesh_converge"][
        "runner.wgmesh.converge"
    ]
    return {key: value for each in found for pair in each["args"] for key, value in pair.items()}


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["hint", "started", "drifted"])
def test_forged_name_is_not_passed_on(tmp_path, name, value):
    """A value that is no minion id asks for a run, and leaves no trace in Salt's job cache."""
    assert arguments(tmp_path, **{name: value}) == {name: ""}


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
def test_forged_suspect_is_left_out(tmp_path, value):
    """The other names of the event are passed on."""
    assert arguments(tmp_path, hint="a", suspects=[value, "r1"]) == {"hint": "a", "suspects": "r1"}


def test_reaction_has_limited_length(tmp_path):
    """So many names at most, each as long as a minion id."""
    found = arguments(tmp_path, suspects=["n" * MAX_VALUE_LENGTH] * 100_000)
    assert len(found["suspects"]) == MAX_SUSPECTS * (MAX_VALUE_LENGTH + 1) - 1
    assert arguments(tmp_path, hint=1001) == {"hint": "1001"}
