"""Traffic avoids a relay that answers but forwards nothing, like a dead one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from .... import faults
from ....disruption import (
    HEALED,
    PLANNED,
    broken,
    first_relay,
    link_is,
    mended,
    planned_around,
    relays_used,
    streaming,
    ways,
)
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
def test_non_forwarding_relay_is_avoided(mesh: Mesh, fault: Fault):
    """Leaves use another relay while a relay forwards nothing, and no packet is lost when it recovers."""
    relay = first_relay(mesh, "web1")
    # The master does not wait for a node that counts as down, though its answer may arrive.
    felt, seen = broken(mesh, PAIRS, fault(mesh.lab.underlay, relay), planned_around(mesh, [relay], [relay]))
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)
    assert mended(mesh, PAIRS).losing == []


def test_disabled_forwarding_is_restored(mesh: Mesh):
    """A relay with forwarding switched off is reported as a blackhole and avoided, until its beacon has it restored."""
    relay = first_relay(mesh, "web1")
    machine = mesh.lab.underlay[relay]
    with streaming(mesh, PAIRS) as felt, faults.not_forwarding(machine):
        wait_until(lambda: link_is(mesh, "web1", relay, "blackhole"), 10, "web1 to notice", every=0.1)
        seen = ways(mesh, PAIRS)
        wait_until(lambda: machine.run("cat", FORWARDS).strip() == "1", PLANNED, "the relay to forward", every=0.2)
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)
    assert mended(mesh, PAIRS).losing == []
