"""A link that carries one direction only is left by both ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from .... import faults
from ....drill import HEALED, broken, first_relay, hops, mended, says
from ....mesh import Mesh
from ....underlay import Underlay

PAIRS = {"web1": "app1"}
Fault = Callable[[Underlay, str, str], AbstractContextManager[None]]


@pytest.mark.parametrize(
    "fault",
    [lambda u, leaf, relay: faults.deaf(u, leaf, relay), lambda u, leaf, relay: faults.unheard(u, leaf, relay)],
    ids=["the leaf hears nothing", "the relay hears nothing"],
)
def test_both_ends_leave_it(mesh: Mesh, fault: Fault):
    relay = first_relay(mesh, "web1")

    def both_say_so() -> bool:
        return says(mesh, "web1", relay, "down") and says(mesh, relay, "web1", "down")

    felt, seen = broken(mesh, PAIRS, fault(mesh.lab.underlay, "web1", relay), both_say_so)
    assert felt.longest < HEALED
    assert frozenset(("web1", relay)) not in hops(seen)
    assert mended(mesh, PAIRS).losing == []
