"""A relay without devices is left like a dead one, and gets them back without anybody's command."""

from __future__ import annotations

import pytest

from .... import faults
from ....drill import HEALED, first_relay, mended, relays_used, says, streaming, ways
from ....mesh import Mesh
from ....wait import wait_until

PAIRS = {"web1": "app1"}


@pytest.fixture(scope="module")
def relay(mesh: Mesh) -> str:
    return first_relay(mesh, "web1")


def test_traffic_goes_by_another_relay(mesh: Mesh, relay: str):
    with streaming(mesh, PAIRS) as felt:
        faults.kill_wireguard(mesh.lab.underlay[relay])
        wait_until(lambda: says(mesh, "web1", relay, "down"), 10, "web1 to notice", every=0.2)
        seen = ways(mesh, PAIRS)
    assert felt.longest < HEALED
    assert relay not in relays_used(seen)


def test_it_has_its_devices_again_and_nothing_is_lost(mesh: Mesh, relay: str):
    """By the beacon's word of drift."""
    assert mended(mesh, PAIRS, lambda: mesh.name in mesh.lab.underlay[relay].links()).losing == []
    assert mesh.faults() == []
