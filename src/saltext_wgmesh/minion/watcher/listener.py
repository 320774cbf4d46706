"""The sockets that receive the control packets of one interface: one for each neighbour there.

The kernel selects the socket by the packet's source address (``SO_ATTACH_REUSEPORT_CBPF``, socket(7)). A neighbour that
sends too much thus fills its own buffer. Packets of all other addresses are dropped in the kernel.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection, Iterable
from ipaddress import ip_address

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.minion.watcher.sockets import Udp

Instruction = tuple[int, int, int, int]
"""Code, distances of both jumps, and operand, of a program for the kernel's packet filter (<linux/filter.h>)."""
_FORMAT = struct.Struct("=HBBI")
_LOAD, _EQUAL, _MODULO, _RETURN, _RETURN_VALUE = 0x20, 0x15, 0x94, 0x06, 0x16
_NETWORK_HEADER = 0xFFF00000
"""SKF_NET_OFF: offsets from here on are of the IP header."""
_SOURCE = {4: _NETWORK_HEADER + 12, 6: _NETWORK_HEADER + 20}
"""Where the source address is, or its last 32 bits."""
_ATTACH_FILTER, _ATTACH_SELECTION = 26, 51
"""SO_ATTACH_FILTER and SO_ATTACH_REUSEPORT_CBPF of <asm-generic/socket.h>."""
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
        _attach(self._sockets[0], _ATTACH_FILTER, [(_RETURN, 0, 0, 0)])

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
        _attach(self._sockets[0], _ATTACH_SELECTION, selection(self._family, neighbours, len(self._sockets) - 1))
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
    load = (_LOAD, 0, 0, _SOURCE[family])
    listed = ((i, each) for i, addresses in enumerate(neighbours) for each in addresses)
    numbers = {_last_word(each): 1 + i % sockets for i, each in listed if address_family(each) == family}
    if len(numbers) > MAX_SOCKETS:
        return [load, (_MODULO, 0, 0, sockets), (_RETURN_VALUE, 0, 0, 0)]
    found = ((one, (_RETURN, 0, 0, number)) for word, number in numbers.items() for one in [(_EQUAL, 0, 1, word)])
    return [load, *(instruction for pair in found for instruction in pair), (_RETURN, 0, 0, 0)]


def _last_word(address: str) -> int:
    return int(ip_address(address)) & 0xFFFFFFFF


def _attach(to: Udp, option: int, program: list[Instruction]) -> None:
    """Attach *program* to a socket, or to the group of sockets that it is in (``struct sock_fprog``)."""
    code = ctypes.create_string_buffer(b"".join(_FORMAT.pack(*instruction) for instruction in program))
    to.set_option(socket.SOL_SOCKET, option, struct.pack("@HP", len(program), ctypes.addressof(code)))
