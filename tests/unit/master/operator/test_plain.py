"""What salt-run prints has no key without content."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.master.operator.plain import without_empty

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner))


def inside(value: Any) -> list[Any]:
    """All values below *value*, at any depth."""
    below = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [*below, *(each for one in below for each in inside(one))]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_no_empty_value_is_left(value):
    """At no depth; and all other values stay."""
    left = inside(without_empty(value))
    assert [each for each in left if each is None or each in ("", [], {})] == []
    kept = sorted(repr(each) for each in inside(value) if isinstance(each, (int, str)) and each != "")
    assert sorted(repr(each) for each in left if isinstance(each, (int, str))) == kept


def test_numbers_and_booleans_are_content():
    """A mesh at generation 0 says so."""
    assert without_empty({"generation": 0, "published": False, "site": None, "relays": []}) == {
        "generation": 0,
        "published": False,
    }
