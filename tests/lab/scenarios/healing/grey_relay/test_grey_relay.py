"""A relay that answers and forwards nothing is left like a dead one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from .... import faults
from ....drill import HEALED, broken, first_relay, mended, planned_around, relays_used, says
from ....mesh import Mesh
from ....underlay import Underlay

PAIRS = {"web1": "app1"}
RELAYS = {"relay-fra1", "relay-fra2", "relay-nyc1"}
Fault = Callable[[Underlay, str], AbstractContextManager[None]]


def _without_trunks(underlay: Underlay, relay: str) -> AbstractContextManager[None]:
    return faults.cut_all(underlay, relay, *sorted(RELAYS - {relay}))


@pytest.mark.parametrize(
    "fault",
    [
        lambda underlay, relay: faults.not_forwarding(underlay[relay]),
        lambda underlay, relay: faults.forwarding_dropped(underlay[relay]),
        _without_trunks,
    ],
    ids=["forwarding is off", "a firewall drops", "all its trunks are dead"],
)
def test_it_is_left(mesh: Mesh, fault: Fault):
    relay = first_relay(mesh, "web1")

    # Nobody waits for the answer of a node that counts as down, though it may come.
    def found_out() -> bool:
        return says(mesh, "web1", relay, "mute") and planned_around(mesh, [relay], [relay])()

    felt, seen = broken(mesh, PAIRS, fault(mesh.lab.underlay, relay), found_out)
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)
    assert mended(mesh, PAIRS).losing == []
