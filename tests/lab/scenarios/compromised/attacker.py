"""Attack the relays of the mesh from a compromised node. A program of the lab's machines.

    attacker.py CONFIGURATION-FOLDER SECONDS OWN-ADDRESS RELAY-ADDRESS…

It fires forged events at the master, brings its BFD sessions up and down in bursts, and sends garbage to their port. It
prints ``firing`` after the first events, and ends by itself.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from saltext_wgmesh.core import constants
from tests.functional import intruder
from tests.lab.scenarios.healing.forged_events import forger

GARBAGE_RATE = 2000
"""Packets a second to each relay. All machines share two cores, so a higher rate would take their time and not only
that of the relays."""
BATCH = 20


def garbage(relays: list[str], seconds: float) -> None:
    """Send garbage to the BFD port of each of *relays*."""
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, constants.BFD_TTL)
        while time.monotonic() < end:
            for relay in relays * BATCH:
                with suppress(OSError):
                    opened.sendto(os.urandom(24), (relay, constants.BFD_PORT))
            time.sleep(BATCH / GARBAGE_RATE)


def main(folder: str, seconds: str, own: str, *relays: str) -> None:
    """Run all attacks, each in a process of its own, until the time is over."""
    lasts = float(seconds)

    def flap() -> None:
        end = time.monotonic() + lasts
        while time.monotonic() < end:
            for relay in relays:
                intruder.flap(own, relay, 2.0)

    attacks: tuple[Callable[[], None], ...] = (
        lambda: forger.main(folder, seconds),
        flap,
        lambda: garbage(list(relays), lasts),
    )
    children = []
    for attack in attacks:
        children.append(os.fork())
        if children[-1] == 0:
            try:
                attack()
            finally:
                os._exit(0)
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
