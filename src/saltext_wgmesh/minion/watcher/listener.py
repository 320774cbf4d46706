"""The sockets that receive the control packets of one interface: one for each neighbour there.

The kernel selects the socket by the packet's source address (``SO_ATTACH_REUSEPORT_CBPF``, socket(7)). A neighbour that
sends too much thus fills its own buffer. Packets of all other addresses are dropped in the kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_address

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.minion.watcher.socket_selection import (
    EQUAL,
    LOAD,
    MODULO,
    RETURN,
    RETURN_VALUE,
    SOURCE,
    Instruction,
    attach_selection,
    receive_nothing,
)
from saltext_wgmesh.minion.watcher.sockets import Udp

MAX_SOCKETS = 2000
"""Sockets of one interface. The kernel takes programs of 4,096 instructions, and each address needs two."""


class Listener:
    """The control packets that arrive at *device*; *family* is 4 or 6. OSError if another program has the port."""

    def __init__(self, family: int, device: str) -> None:
        self._family = family
        self._device = device
        self._neighbours: Collection[frozenset[str]] = ()
        self._sockets = [self._open()]
        # The first one gets the packets that belong to no neighbour.
        receive_nothing(self._sockets[0])

    def serve(self, neighbours: Collection[frozenset[str]]) -> list[Udp]:
        """Have a socket for each of *neighbours*, given by its addresses; return the sockets that are new.

        A socket is closed with all others only, since the kernel counts them. Where no further one can be opened
        neighbours share sockets.
        """
        if neighbours == self._neighbours:
            return []
        before = len(self._sockets)
        try:
            while len(self._sockets) <= min(len(neighbours), MAX_SOCKETS):
                self._sockets.append(self._open())
        except OSError:
            if len(self._sockets) == 1:
                raise
        attach_selection(self._sockets[0], selection(self._family, neighbours, len(self._sockets) - 1))
        self._neighbours = neighbours
        return self._sockets[before:]

    @property
    def sockets(self) -> Iterable[Udp]:
        """The sockets of all neighbours."""
        return self._sockets[1:]

    def close(self) -> None:
        """Close all sockets and free the port."""
        for each in self._sockets:
            each.close()

    def _open(self) -> Udp:
        return Udp(self._family, constants.BFD_PORT, self._device, shared=True)


def selection(family: int, neighbours: Collection[frozenset[str]], sockets: int) -> list[Instruction]:
    """Return the program that gives the number of the socket for a packet: 0 if it is of no neighbour.

    If there are more addresses than a program can have, addresses are spread over the *sockets*.
    """
    load = (LOAD, 0, 0, SOURCE[family])
    listed = ((i, each) for i, addresses in enumerate(neighbours) for each in addresses)
    numbers = {_last_word(each): 1 + i % sockets for i, each in listed if address_family(each) == family}
    if len(numbers) > MAX_SOCKETS:
        return [load, (MODULO, 0, 0, sockets), (RETURN_VALUE, 0, 0, 0)]
    found = ((one, (RETURN, 0, 0, number)) for word, number in numbers.items() for one in [(EQUAL, 0, 1, word)])
    return [load, *(instruction for pair in found for instruction in pair), (RETURN, 0, 0, 0)]


def _last_word(address: str) -> int:
    return int(ip_address(address)) & 0xFFFFFFFF
