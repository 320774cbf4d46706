"""The other ends of many BFD sessions, in one program: ``answerer.py <device> <relay>``.

Standard input is a JSON list of their addresses, which are addresses of this machine.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import random
import select
import socket
import sys
import time

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.minion.watcher.sockets import Udp

SHORTEST = 0.01
"""Shortest time between two ticks of one session, in seconds."""


def answer(device: str, relay: str, addresses: list[str]) -> None:
    """Run a BFD session with *relay* from each of *addresses*, as a leaf with the default interval does."""
    interval = constants.DEFAULT_BFD_INTERVAL * 1000
    sessions = {
        address: bfd.Session(discriminator=i + 1, interval=interval, multiplier=constants.DEFAULT_BFD_MULTIPLIER)
        for i, address in enumerate(addresses)
    }
    index = socket.if_nametoindex(device)
    listener, sender = Udp(4, constants.BFD_PORT, device), Udp(4)
    timers = [(random.random(), address) for address in addresses]
    heapq.heapify(timers)

    def send(address: str, packet: bfd.Packet | None) -> None:
        if packet is not None:
            with contextlib.suppress(OSError):
                sender.send(packet.encode(), (relay, constants.BFD_PORT), address, index)

    while True:
        select.select([listener], [], [], max(0.0, timers[0][0] - time.monotonic()))
        while (got := listener.receive()) is not None:
            send(got.destination, sessions[got.destination].receive(bfd.decode(got.data), time.monotonic()))
        now = time.monotonic()
        while timers[0][0] <= now:
            _, address = heapq.heappop(timers)
            send(address, sessions[address].tick(now, random.random()))
            heapq.heappush(timers, (max(sessions[address].next_at(), now + SHORTEST), address))


if __name__ == "__main__":
    answer(sys.argv[1], sys.argv[2], json.load(sys.stdin))
