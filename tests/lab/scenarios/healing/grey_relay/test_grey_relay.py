"""A relay that answers and forwards nothing is left like a dead one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from .... import faults
from ....drill import HEALED, PLANNED, broken, first_relay, mended, planned_around, relays_used, says, streaming, ways
from ....mesh import Mesh
from ....underlay import Underlay
from ....wait import wait_until

PAIRS = {"web1": "app1"}
RELAYS = {"relay-fra1", "relay-fra2", "relay-nyc1"}
FORWARDS = "/proc/sys/net/ipv4/ip_forward"
Fault = Callable[[Underlay, str], AbstractContextManager[None]]


def _without_trunks(underlay: Underlay, relay: str) -> AbstractContextManager[None]:
    return faults.cut_all(underlay, relay, *sorted(RELAYS - {relay}))


@pytest.mark.parametrize(
    "fault",
    [lambda underlay, relay: faults.forwarding_dropped(underlay[relay]), _without_trunks],
    ids=["a firewall drops", "all its trunks are dead"],
)
def test_it_is_left(mesh: Mesh, fault: Fault):
    relay = first_relay(mesh, "web1")
    # Nobody waits for the answer of a node that counts as down, though it may come.
    felt, seen = broken(mesh, PAIRS, fault(mesh.lab.underlay, relay), planned_around(mesh, [relay], [relay]))
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)
    assert mended(mesh, PAIRS).losing == []


def test_one_whose_forwarding_was_switched_off_is_left_until_its_beacon_had_it_switched_on(mesh: Mesh):
    relay = first_relay(mesh, "web1")
    machine = mesh.lab.underlay[relay]
    with streaming(mesh, PAIRS) as felt, faults.not_forwarding(machine):
        wait_until(lambda: says(mesh, "web1", relay, "mute"), 10, "web1 to notice", every=0.1)
        seen = ways(mesh, PAIRS)
        wait_until(lambda: machine.run("cat", FORWARDS).strip() == "1", PLANNED, "the relay to forward", every=0.2)
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)
    assert mended(mesh, PAIRS).losing == []
