"""Traffic avoids a relay without WireGuard devices, which gets them back without a command."""

from __future__ import annotations

import pytest

from .... import faults
from ....disruption import HEALED, first_relay, link_is, mended, relays_used, streaming, ways
from ....mesh import Mesh
from ....wait import wait_until

PAIRS = {"web1": "app1"}


@pytest.fixture(scope="module")
def relay(mesh: Mesh) -> str:
    return first_relay(mesh, "web1")


def test_traffic_avoids_relay_without_devices(mesh: Mesh, relay: str):
    """The leaf uses another relay as soon as it notices."""
    with streaming(mesh, PAIRS) as felt:
        faults.kill_wireguard(mesh.lab.underlay[relay])
        wait_until(lambda: link_is(mesh, "web1", relay, "down"), 10, "web1 to notice", every=0.2)
        seen = ways(mesh, PAIRS)
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)


def test_devices_are_restored_without_command(mesh: Mesh, relay: str):
    """The beacon's drift event has the relay apply its view again, and no packet is lost."""
    assert mended(mesh, PAIRS, lambda: mesh.name in mesh.lab.underlay[relay].links()).losing == []
    assert mesh.faults() == []
