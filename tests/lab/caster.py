"""Send numbered UDP datagrams to many, and note those that come from many. A program: the lab runs it on a machine.

    caster.py PORT HZ STREAM=ADDRESS…

Each stream is a number that is one in the whole lab. The program prints ``ready`` once it listens, begins to send *HZ*
datagrams a second to each address at the first line of standard input, stops sending when that ends, listens a little
longer, and prints JSON: ``{"began": seconds since the epoch, "turns": [seconds since then…], "heard": {stream: [[first,
last]…]}}``: when it sent the datagrams of each number, and the ranges of numbers that it heard of each stream. A moment
in which the machine let it do nothing leaves no burst behind: those datagrams are not sent, and not numbered.
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
"""Seconds that a datagram may take."""
LATE = 3
"""Turns that are made up for at once; what is later is left out."""
DATAGRAM = struct.Struct("!4sII")
"""A mark, the stream, and the number in it."""
MARK = b"lab1"


def opened(port: int) -> dict[int, socket.socket]:
    """IP version → a socket that hears whatever comes to the port."""
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
    """The streams that go out, and the numbers of those that came in."""

    def __init__(self, port: int, targets: dict[int, str]) -> None:
        self.sockets = opened(port)
        self.targets = [(stream, self.sockets[6 if ":" in a else 4], (a, port)) for stream, a in targets.items()]
        self.turns: list[float] = []
        self.numbers: dict[int, list[int]] = {}

    def send(self, now: float) -> None:
        """The next datagram of each stream left, or there was no way for it."""
        for stream, one, where in self.targets:
            with contextlib.suppress(OSError):
                one.sendto(DATAGRAM.pack(MARK, stream, len(self.turns)), where)
        self.turns.append(now)

    def listen(self, end: float, also: object = None) -> bool:
        """Note what comes until *end*, or until *also* is readable; whether it is."""
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
    """First and last of each run of numbers that follow each other."""
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
    """Cast what the command line names."""
    targets = {int(stream): address for stream, _, address in (word.partition("=") for word in streams)}
    casting = Cast(int(port), targets)
    print("ready", flush=True)
    print(json.dumps(cast(casting, float(rate))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
