"""Both ends avoid a link that forwards one direction only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from .... import faults
from ....disruption import HEALED, broken, first_relay, hops, link_is, mended
from ....mesh import Mesh
from ....underlay import Underlay

PAIRS = {"web1": "app1"}
Fault = Callable[[Underlay, str, str], AbstractContextManager[None]]


@pytest.mark.parametrize(
    "fault",
    [lambda u, leaf, relay: faults.deaf(u, leaf, relay), lambda u, leaf, relay: faults.unheard(u, leaf, relay)],
    ids=["the leaf hears nothing", "the relay hears nothing"],
)
def test_both_ends_avoid_one_way_link(mesh: Mesh, fault: Fault):
    """Both ends report the link down, traffic avoids it, and no packet is lost when it recovers."""
    relay = first_relay(mesh, "web1")

    def both_report_down() -> bool:
        return link_is(mesh, "web1", relay, "down") and link_is(mesh, relay, "web1", "down")

    felt, seen = broken(mesh, PAIRS, fault(mesh.lab.underlay, "web1", relay), both_report_down)
    assert felt.longest < HEALED
    assert frozenset(("web1", relay)) not in hops(seen)
    assert mended(mesh, PAIRS).losing == []
