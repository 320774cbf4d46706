"""Measure round trip, path and loss to some addresses, all at once. A program that the lab runs on a machine.

    prober.py [--rounds N] [--hops N] ADDRESS…
    prober.py --stream HZ ADDRESS…

The program sends echo requests with a time to live of 1, 2, … to each address. Routers answer "time exceeded" from an
address of their own, which gives the path without asking the planner. Then *rounds* plain requests measure the round
trip. The output is JSON: ``{address: {"rtt_ms": [lowest first], "path": [address…]}}``. The path ends with the target
if it answered, and has null for each machine that did not answer.

With ``--stream`` each address gets *HZ* requests a second until standard input ends. The output is then
``{address: {"sent": N, "lost": N, "gaps": [[start, seconds]…]}}``, with the start in seconds since the first packet.
The program needs a raw socket.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import sys
import time

WAIT = 1.0
"""Seconds that an answer may take."""
PACE = 0.002
"""Seconds between two packets, so that probing causes little load."""
PLAIN = 64
"""Time to live of a request that is to arrive."""
ECHO = struct.Struct("!BBHHHI")
"""Type, code, checksum, identifier, sequence number, and as payload the number of the packet."""
# Types of request, reply and "time exceeded" (RFC 792, RFC 4443).
V4 = (8, 0, 11)
V6 = (128, 129, 3)


class Family:
    """One raw ICMP socket, and the types of its packets."""

    def __init__(self, version: int, identifier: int) -> None:
        self.version = version
        self.identifier = identifier
        self.request, self.reply, self.exceeded = V4 if version == 4 else V6
        if version == 4:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        else:
            self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def send(self, address: str, number: int, hops: int) -> None:
        """Send an echo request. Without a route nothing is sent."""
        if self.version == 4:
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        else:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        packet = ECHO.pack(self.request, 0, 0, self.identifier, number & 0xFFFF, number)
        if self.version == 4:
            packet = ECHO.pack(self.request, 0, checksum(packet), self.identifier, number & 0xFFFF, number)
        try:
            self.socket.sendto(packet, (address, 0))
        except OSError:
            return

    def receive(self) -> tuple[str, int, bool] | None:
        """Return sender, number, and whether it is the target's answer; None for a packet of another program."""
        packet, sender = self.socket.recvfrom(2048)
        icmp = packet[(packet[0] & 15) * 4 :] if self.version == 4 else packet
        arrived = bool(icmp) and icmp[0] == self.reply
        if icmp and icmp[0] == self.exceeded:
            quoted = icmp[8:]
            icmp = quoted[(quoted[0] & 15) * 4 :] if self.version == 4 else quoted[40:]
        elif not arrived:
            return None
        if len(icmp) < ECHO.size:
            return None
        _, _, _, identifier, _, number = ECHO.unpack(icmp[: ECHO.size])
        return (sender[0], number, arrived) if identifier == self.identifier else None


def checksum(packet: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of a packet of even length."""
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Probing:
    """Requests by number, and their answers."""

    def __init__(self, addresses: list[str]) -> None:
        identifier = os.getpid() & 0xFFFF
        versions = {6 if ":" in a else 4 for a in addresses}
        self.families = {version: Family(version, identifier) for version in versions}
        self.sent: list[tuple[str, int, float]] = []
        self.answers: dict[int, tuple[str, bool, float]] = {}

    def send(self, address: str, hops: int) -> None:
        """Send one more request."""
        self.sent.append((address, hops, time.monotonic()))
        self.families[6 if ":" in address else 4].send(address, len(self.sent) - 1, hops)

    def listen(self, seconds: float, *, until_all: bool = True) -> None:
        """Record the answers of so many seconds. With *until_all*, stop as soon as none is missing."""
        by_socket = {family.socket: family for family in self.families.values()}
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not (until_all and len(self.answers) == len(self.sent)):
            for ready in select.select(list(by_socket), [], [], left)[0]:
                now = time.monotonic()
                answer = by_socket[ready].receive()
                if answer and answer[1] < len(self.sent):
                    sender, number, arrived = answer
                    self.answers.setdefault(number, (sender, arrived, now))


def measure(addresses: list[str], rounds: int, hops: int) -> dict[str, dict[str, object]]:
    """Return path and round trips of each address."""
    probing = Probing(addresses)
    for ttl in [*range(1, hops + 1), *[PLAIN] * rounds]:
        for address in addresses:
            probing.send(address, ttl)
            probing.listen(PACE)
    probing.listen(WAIT)
    return {address: _result(probing, address, hops) for address in addresses}


def _result(probing: Probing, address: str, hops: int) -> dict[str, object]:
    seen: dict[int, tuple[str, bool]] = {}
    round_trips = []
    for number, (target, ttl, at) in enumerate(probing.sent):
        if target == address and number in probing.answers:
            sender, arrived, then = probing.answers[number]
            if ttl == PLAIN and arrived:
                round_trips.append(round((then - at) * 1000, 3))
            elif ttl != PLAIN:
                seen[ttl] = (sender, arrived)
    path: list[str | None] = []
    for ttl in range(1, hops + 1):
        sender, arrived = seen.get(ttl, (None, False))
        path.append(sender)
        if arrived:
            break
    return {"rtt_ms": sorted(round_trips), "path": path}


def stream(addresses: list[str], rate: float) -> dict[str, dict[str, object]]:
    """Return the loss of each address, from now until standard input ends."""
    probing = Probing(addresses)
    began = time.monotonic()
    turn = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for address in addresses:
            probing.send(address, PLAIN)
        turn += 1
        probing.listen(began + turn / rate - time.monotonic(), until_all=False)
    probing.listen(WAIT)
    return {address: _loss(probing, address, began) for address in addresses}


def _loss(probing: Probing, address: str, began: float) -> dict[str, object]:
    sent = lost = 0
    gaps: list[list[float]] = []
    in_gap = False
    for number, (target, _, at) in enumerate(probing.sent):
        if target != address:
            continue
        sent += 1
        answered = number in probing.answers and probing.answers[number][1]
        if in_gap:
            gaps[-1][1] = round(at - began - gaps[-1][0], 3)
        if not answered:
            lost += 1
            if not in_gap:
                gaps.append([round(at - began, 3), 0.0])
        in_gap = not answered
    return {"sent": sent, "lost": lost, "gaps": gaps}


def main() -> None:
    """Measure the addresses of the command line, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hops", type=int, default=6)
    parser.add_argument("--stream", type=float, metavar="HZ")
    parser.add_argument("addresses", nargs="+")
    args = parser.parse_args()
    if args.stream:
        print(json.dumps(stream(args.addresses, args.stream)))
    else:
        print(json.dumps(measure(args.addresses, args.rounds, args.hops)))


if __name__ == "__main__":
    main()
