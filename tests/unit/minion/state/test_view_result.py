"""The results of assignments, as the node records them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.device.descriptions import ChangeText
from saltext_wgmesh.minion.state.view_result import ViewResult

TEXTS = st.none() | st.text(max_size=8)
CHANGE = ChangeText(subject="wg0", item="mtu", old="1420", new="1400")
RESULTS = st.builds(
    ViewResult,
    mesh=st.just("wg0"),
    digest=TEXTS,
    generation=st.none() | st.integers(0),
    changes=st.sampled_from([(), (CHANGE,)]),
    reason=TEXTS,
    pending=st.booleans(),
    error=TEXTS,
    rolled_back=st.booleans(),
)


@given(RESULTS)
def test_recorded_result_is_read_back(result):
    """All of it but its changes, which only the master reads."""
    raw = json.loads(json.dumps(result.outcome_as_dict()))
    assert ViewResult.from_outcome("wg0", raw) == replace(result, changes=())


@given(RESULTS)
def test_returned_result_has_its_changes(result):
    """The master reads the recorded part too, and whether anything was changed."""
    lines = [str(change) for change in result.changes]
    assert result.as_dict() == {**result.outcome_as_dict(), "changed": bool(lines), "changes": lines}


@pytest.mark.parametrize("key", ["digest", "generation", "reason", "error"])
@pytest.mark.parametrize("value", [["x"], {}, 1.5])
def test_value_of_other_type_is_refused(key, value):
    """The store then takes the file for damaged."""
    with pytest.raises(TypeError):
        ViewResult.from_outcome("wg0", {key: value})


def test_unknown_key_is_no_damage():
    """A later version may add some, and be replaced by this one."""
    assert ViewResult.from_outcome("wg0", {"digest": "d", "later": 1}) == ViewResult(mesh="wg0", digest="d")
