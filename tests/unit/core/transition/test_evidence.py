"""Evidence about the published plan."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.transition.evidence import Evidence


def evidence(*, applied: str = "", up: bool = False, carries: bool = False) -> Evidence:
    """Evidence in which the nodes *applied* have applied their views."""
    return Evidence(has_applied=lambda n: n in applied, link_up=lambda _: up, link_carries=lambda _: carries)


@pytest.mark.parametrize(
    ("known", "was_in_transition", "expected"),
    [
        pytest.param(evidence(up=True), True, True, id="the link is up"),
        pytest.param(evidence(applied="ar"), False, True, id="both applied, the link is not new"),
        pytest.param(evidence(applied="ar"), True, False, id="both applied, the link may be new"),
        pytest.param(evidence(applied="a"), False, False, id="one applied"),
    ],
)
def test_can_deliver_needs_link_or_both_views(known: Evidence, was_in_transition: bool, expected: bool) -> None:
    """A link that may be new must be up; any other exists once both nodes have applied their views."""
    assert known.can_deliver("a", "r", was_in_transition) is expected
