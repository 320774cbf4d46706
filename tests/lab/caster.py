"""Send numbered UDP datagrams to many addresses and record those that arrive. A program that the lab runs on a machine.

    caster.py PORT HZ STREAM=ADDRESS…

Each stream has a number that is unique in the lab. The program prints ``ready`` once it listens. At the first line of
standard input it starts to send *HZ* datagrams a second to each address. When standard input ends it stops, listens a
little longer, and prints JSON: ``{"began": seconds since the epoch, "turns": [seconds since then…], "heard": {stream:
[[first, last]…]}}``. *turns* has the time of each number, *heard* the ranges of numbers that arrived of each stream.
Datagrams that are late because the machine was busy are not sent later in a burst: they are left out, without a number.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
import time

WAIT = 1.5
"""Seconds in which a datagram must arrive."""
LATE = 3
"""The most late turns that are sent at once. Later ones are left out."""
DATAGRAM = struct.Struct("!4sII")
"""A mark, the stream, and the number in it."""
MARK = b"lab1"


def opened(port: int) -> dict[int, socket.socket]:
    """Return IP version → a socket that receives all datagrams to the port."""
    sockets = {}
    for version, family, anywhere in ((4, socket.AF_INET, "0.0.0.0"), (6, socket.AF_INET6, "::")):
        one = socket.socket(family, socket.SOCK_DGRAM)
        if version == 6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        one.bind((anywhere, port))
        one.setblocking(False)
        sockets[version] = one
    return sockets


class Cast:
    """The outgoing streams, and the received numbers of incoming ones."""

    def __init__(self, port: int, targets: dict[int, str]) -> None:
        self.sockets = opened(port)
        self.targets = [(stream, self.sockets[6 if ":" in a else 4], (a, port)) for stream, a in targets.items()]
        self.turns: list[float] = []
        self.numbers: dict[int, list[int]] = {}

    def send(self, now: float) -> None:
        """Send the next datagram of each stream. Without a route nothing is sent."""
        for stream, one, where in self.targets:
            with contextlib.suppress(OSError):
                one.sendto(DATAGRAM.pack(MARK, stream, len(self.turns)), where)
        self.turns.append(now)

    def listen(self, end: float, also: object = None) -> bool:
        """Record arrivals until *end*, or until *also* is readable. Return whether it is."""
        sockets = list(self.sockets.values())
        while (left := end - time.monotonic()) > 0:
            ready = select.select([*sockets, *([also] if also else [])], [], [], left)[0]
            for one in ready:
                if one is not also:
                    self._drain(one)
            if also in ready:
                return True
        return False

    def _drain(self, one: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = one.recv(2048)
                if len(data) == DATAGRAM.size and data.startswith(MARK):
                    _, stream, number = DATAGRAM.unpack(data)
                    self.numbers.setdefault(stream, []).append(number)


def ranges(numbers: list[int]) -> list[list[int]]:
    """Return first and last of each run of consecutive numbers."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def cast(casting: Cast, rate: float) -> dict[str, object]:
    """Send and listen from the first line of standard input to its end."""
    sys.stdin.readline()
    began, start = time.time(), time.monotonic()
    due, ended = start, False
    while not ended:
        now = time.monotonic()
        due = max(due, now - LATE / rate)
        casting.send(now - start)
        due += 1 / rate
        ended = casting.listen(due, sys.stdin)
    casting.listen(time.monotonic() + WAIT)
    heard = {stream: ranges(numbers) for stream, numbers in casting.numbers.items()}
    return {"began": began, "turns": [round(turn, 3) for turn in casting.turns], "heard": heard}


def main(port: str, rate: str, *streams: str) -> None:
    """Send and receive the streams of the command line, and print the results."""
    targets = {int(stream): address for stream, _, address in (word.partition("=") for word in streams)}
    casting = Cast(int(port), targets)
    print("ready", flush=True)
    print(json.dumps(cast(casting, float(rate))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
