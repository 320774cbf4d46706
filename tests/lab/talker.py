"""One end of a long TCP conversation. A program that the lab runs on a machine.

    talker.py listen ADDRESS PORT
    talker.py call ADDRESS PORT

The two ends make one connection and send each other numbered lines, *RATE* a second, until standard input ends. Then
each end closes its direction, reads on until the other end has done so too, and prints JSON: ``{"sent": N,
"heard": N, "wrong": N, "longest": seconds, "at": seconds, "broke": null or the reason}``.

- *wrong* counts lines that were not the next number.
- *longest* is the longest time between two lines that were heard, and *at* its start, in seconds since the first line.

No end connects a second time: if the connection breaks, the conversation is over. The first line is ``ready``, as soon
as the other end may connect, or is connected.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time

RATE = 20.0
"""Lines a second."""
FAREWELL = 10.0
"""Seconds in which an end must finish after the other one has."""
CALL = 20.0
"""Seconds in which the connection must be established."""


class Hearing:
    """The lines that were heard, and the longest silence between them."""

    def __init__(self) -> None:
        self.heard = self.wrong = 0
        self.longest = self.at = 0.0
        self._began = self._last = 0.0
        self._rest = b""

    def take(self, data: bytes, now: float) -> None:
        """Count the lines in *data*. The last one may be incomplete until more arrives."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self.heard:
                self._began = self._last = now
            if now - self._last > self.longest:
                self.longest, self.at = now - self._last, self._last - self._began
            self.wrong += line != str(self.heard).encode()
            self.heard += 1
            self._last = now


def talk(connection: socket.socket) -> dict[str, object]:
    """Send and receive until standard input ends, then receive the rest. Return the results."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    hearing, began = Hearing(), time.monotonic()
    sent, broke = 0, None
    ended = closed = 0.0
    try:
        while not (ended and closed):
            now = time.monotonic()
            if (ended or closed) and now > max(ended, closed) + FAREWELL:
                broke = "the other end did not come to an end" if ended else "the other end closed the connection"
                break
            due = began + sent / RATE - now
            if not ended and due <= 0:
                connection.sendall(b"%d\n" % sent)
                sent += 1
                continue
            wanted = [*([] if closed else [connection]), *([] if ended else [sys.stdin])]
            ready = select.select(wanted, [], [], 1.0 if ended else due)[0]
            if sys.stdin in ready:
                connection.shutdown(socket.SHUT_WR)
                ended = time.monotonic()
            if connection in ready:
                data = connection.recv(65536)
                hearing.take(data, time.monotonic())
                closed = 0.0 if data else time.monotonic()
    except OSError as error:
        broke = str(error)
        _hear_out(connection, hearing)
    counts = {"sent": sent, "heard": hearing.heard, "wrong": hearing.wrong, "broke": broke}
    return {**counts, "longest": round(hearing.longest, 3), "at": round(hearing.at, 3)}


def _hear_out(connection: socket.socket, hearing: Hearing) -> None:
    """Count the lines that arrived before the connection broke. A sender finds a reset before it has read them."""
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        while data := connection.recv(65536):
            hearing.take(data, time.monotonic())


def main(role: str, address: str, port: str) -> None:
    """Run one of the two ends."""
    where = (address, int(port))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if role == "listen":
        with socket.create_server(where, family=family) as server:
            server.settimeout(CALL)
            print("ready", flush=True)
            connection = server.accept()[0]
    else:
        connection = socket.create_connection(where, timeout=CALL)
        print("ready", flush=True)
    connection.settimeout(None)
    with connection:
        print(json.dumps(talk(connection)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
