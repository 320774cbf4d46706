"""A leaf is back as soon as its NAT box is."""

from __future__ import annotations

import time

from .... import faults
from ....drill import HEALED, mended, planned_around, says, steady
from ....mesh import Mesh
from ....wait import wait_until

PAIRS = {"laptop": "web1", "web1": "laptop"}


def test_the_leaf_is_back_when_its_box_is(mesh: Mesh):
    """Within a loose bound after the end of the outage, whose length matters to nobody."""
    relays = [n for n in ("relay-fra1", "relay-fra2", "relay-nyc1") if says(mesh, "laptop", n, "up")]
    with faults.rebooting(mesh.lab.underlay, "home-router"):
        wait_until(
            lambda: all(says(mesh, "laptop", relay, "down") for relay in relays), 10, "the laptop to notice", every=0.2
        )
    back_at = time.monotonic()
    steady(mesh, PAIRS)
    took = time.monotonic() - back_at
    print(f"the laptop is reached again {took:.1f} s after the NAT box is back")
    assert took < 5 * HEALED


def test_afterwards_nothing_is_lost(mesh: Mesh):
    assert mended(mesh, PAIRS, planned_around(mesh, ())).losing == []
    mesh.lab.salt.await_minions(["laptop"])
    assert mesh.faults() == []
