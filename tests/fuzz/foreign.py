"""Values as a hostile node, a damaged file or a forged packet may hold them, and how many of them are tried."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.unit.harness.hostile import nested

EXAMPLES = int(os.environ.get("WGMESH_FUZZ_EXAMPLES", "60"))
"""Values that each fuzzer tries; some millions find what a short run does not."""

NUMBERS = st.sampled_from([0, -1, 1e999, float("nan"), 10**400, 2**63, 1e308, True]) | st.integers() | st.floats()
ODD_TEXTS = ["", "\x00", "\x1b[2J", "../x", "a\nb", "\ud800", "1" * 300, "x" * 100_000]
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(max_size=8)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | st.binary(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.integers(), inner, max_size=4),
    max_leaves=12,
) | st.sampled_from([5, 960]).map(nested)


def fuzz(test: Callable[..., None]) -> Callable[..., None]:
    """Have *test* tried with EXAMPLES values, however long one takes."""
    health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=health)(test)


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> Any:
    """*whole*, plain values, with up to three of the values in it replaced or removed, or another value instead."""
    found = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        found = _with_one_change(draw, found)
    return found


def _with_one_change(draw: st.DrawFn, raw: Any) -> Any:
    places = list(raw) if isinstance(raw, dict) else list(range(len(raw))) if isinstance(raw, list) else []
    if not places or draw(st.integers(0, 7)) == 0:
        return draw(JSON)
    place = draw(st.sampled_from(places))
    if draw(st.integers(0, 7)) == 0:
        del raw[place]
    else:
        raw[place] = _with_one_change(draw, raw[place])
    return raw
