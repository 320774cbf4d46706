"""A program with one BFD session only: a line on standard input holds it down, the next one lets it come up again.

Run with the own address, the neighbour's and the interface.
"""

from __future__ import annotations

import random
import select
import socket
import sys
import time

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.minion.watcher.sockets import Udp


def main(own: str, neighbour: str, device: str) -> None:
    """Run the session until standard input ends."""
    index = socket.if_nametoindex(device)
    receiver, sender = Udp(4, constants.BFD_PORT, device), Udp(4)
    session = bfd.Session(discriminator=1, interval=100_000, multiplier=5)
    while True:
        pause = max(0.0, session.next_at() - time.monotonic())
        ready, _, _ = select.select([receiver, sys.stdin], [], [], pause)
        now = time.monotonic()
        if sys.stdin in ready:
            if not sys.stdin.readline():
                return
            held = session.state is bfd.BfdState.ADMIN_DOWN
            session.enable(now) if held else session.admin_down(now)
        got = receiver.receive()
        answer = session.receive(bfd.decode(got.data), now) if got else None
        for packet in (answer, session.tick(now, random.random())):
            if packet:
                sender.send(packet.encode(), (neighbour, constants.BFD_PORT), own, index)


if __name__ == "__main__":
    main(*sys.argv[1:])
