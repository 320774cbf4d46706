"""Values of nodes: what is read of them, and how their text is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.model.untrusted import Bounds, Refused, bounded, printable
from tests.unit.harness.hostile import nested

BOUNDS = Bounds(depth=3, values=10, characters=20)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@pytest.mark.parametrize(
    ("value", "is_read"),
    [
        (nested(3), True),
        (nested(4), False),
        (nested(100_000), False),
        ({"a": {"b": {"c": 1}}}, True),
        ({"a": {"b": {"c": [1]}}}, False),
        ([1] * 10, True),
        ([1] * 11, False),
        ({i: i for i in range(6)}, False),
        ("x" * 21, False),
        (["x" * 10] * 3, False),
        (1 << 10_000, False),
    ],
)
def test_value_beyond_bounds_is_refused(value, is_read):
    """By its depth, by the number of values, or by the characters in it."""
    found = bounded(value, BOUNDS)
    assert found is value if is_read else isinstance(found, Refused)


@given(value=ANY)
def test_bounded_value_can_be_printed(value):
    """A value is itself, or it is refused."""
    found = bounded(value, BOUNDS)
    assert found is value or isinstance(found, Refused)


@given(text=st.text(), limit=st.integers(0, 30))
def test_shown_text_controls_no_terminal(text, limit):
    """It is one line of printable characters, as long as it may be."""
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


def test_shown_text_stays_readable():
    """Line breaks are spaces; a character that controls is its escape."""
    assert printable("no disk\nat /dev/sda\x1b[2J", 80) == "no disk at /dev/sda\\x1b[2J"
