"""A leaf is reachable again as soon as its NAT box is."""

from __future__ import annotations

import time

from .... import faults
from ....disruption import HEALED, link_is, mended, planned_around, steady
from ....mesh import Mesh
from ....wait import wait_until

PAIRS = {"laptop": "web1", "web1": "laptop"}


def test_leaf_returns_with_its_nat_box(mesh: Mesh):
    """The leaf is reached within a loose bound after the outage. The length of the outage does not matter."""
    relays = [n for n in ("relay-fra1", "relay-fra2", "relay-nyc1") if link_is(mesh, "laptop", n, "up")]
    with faults.rebooting(mesh.lab.underlay, "home-router"):
        wait_until(
            lambda: all(link_is(mesh, "laptop", relay, "down") for relay in relays),
            10,
            "the laptop to notice",
            every=0.2,
        )
    back_at = time.monotonic()
    steady(mesh, PAIRS)
    took = time.monotonic() - back_at
    print(f"the laptop is reached again {took:.1f} s after the NAT box is back")
    assert took < 5 * HEALED


def test_return_of_nat_box_loses_no_packet(mesh: Mesh):
    """After the return no packet is lost, and the laptop's minion answers."""
    assert mended(mesh, PAIRS, planned_around(mesh, ())).losing == []
    mesh.lab.salt.await_minions(["laptop"])
    assert mesh.faults() == []
