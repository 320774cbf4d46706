"""The sockets that receive the control packets of one interface: two for each neighbour there.

The kernel selects the socket by the packet's source address (``SO_ATTACH_REUSEPORT_CBPF``, socket(7)). A neighbour that
sends too much thus fills its own buffers. Packets of all other addresses are dropped in the kernel. A neighbour's first
socket is for the UDP port of its watcher, and the second one for all other ports: another user of that node has no
access to the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.minion.watcher.socket_selection import (
    EQUAL,
    LOAD,
    LOAD_BYTE,
    LOAD_HALF,
    MODULO,
    NETWORK_HEADER,
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
MAX_WITH_PORTS = 800
"""Addresses of neighbours whose UDP ports the program can tell apart: then each address needs five instructions."""
_USUAL_HEADER = {4: (NETWORK_HEADER, 0x45), 6: (NETWORK_HEADER + 6, 17)}
"""A byte of the IP header that shows its usual length: no options (RFC 791), or UDP as next header (RFC 8200)."""
_SOURCE_PORT = {4: NETWORK_HEADER + 20, 6: NETWORK_HEADER + 40}
"""Where the source port is, after such a header."""


class Listener:
    """The control packets that arrive at *device*; *family* is 4 or 6. OSError if another program has the port."""

    def __init__(self, family: int, device: str) -> None:
        self._family = family
        self._device = device
        self._served: tuple[Sequence[frozenset[str]], Sequence[int]] = ((), ())
        self._sockets = [self._open()]
        # The first one gets the packets that belong to no neighbour.
        receive_nothing(self._sockets[0])

    def serve(self, neighbours: Sequence[frozenset[str]], ports: Sequence[int] = ()) -> list[Udp]:
        """Have sockets for each of *neighbours*, given by its addresses; return the sockets that are new.

        *ports* are the UDP ports of their watchers in the same order, 0 where the port is not known yet. Without them,
        or with more than MAX_WITH_PORTS addresses, each neighbour has one socket. A socket is closed with all others
        only, since the kernel counts them. Where no further one can be opened neighbours share sockets.
        """
        owners = _owners(self._family, neighbours)
        ports = ports if len(owners) <= MAX_WITH_PORTS else ()
        if (neighbours, ports) == self._served:
            return []
        before = len(self._sockets)
        try:
            while len(self._sockets) <= min(len(neighbours) * (2 if ports else 1), MAX_SOCKETS):
                self._sockets.append(self._open())
        except OSError:
            # The first socket receives nothing, so one alone is an error. With more, neighbours share buffers.
            if len(self._sockets) == 1:
                raise
        attach_selection(self._sockets[0], selection(self._family, owners, len(self._sockets) - 1, ports))
        self._served = neighbours, ports
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


def selection(family: int, owners: Mapping[int, int], sockets: int, ports: Sequence[int] = ()) -> list[Instruction]:
    """Return the program that gives the number of the socket for a packet: 0 if it is of no neighbour.

    *owners* are last word of an address → number of its neighbour. If there are more addresses than a program can have,
    addresses are spread over the *sockets*. With *ports*, the packets of a neighbour's port have a socket of their own.
    """
    load = (LOAD, 0, 0, SOURCE[family])
    if len(owners) > MAX_SOCKETS:
        return [load, (MODULO, 0, 0, sockets), (RETURN_VALUE, 0, 0, 0)]
    if not ports:
        found = (((EQUAL, 0, 1, word), _socket(i, sockets)) for word, i in owners.items())
        return [load, *(instruction for each in found for instruction in each), (RETURN, 0, 0, 0)]
    offset, usual = _USUAL_HEADER[family]
    program = [(LOAD_BYTE, 0, 0, offset), (EQUAL, 1, 0, usual), (RETURN, 0, 0, 0), load]
    for word, i in owners.items():
        program += [(EQUAL, 0, 4, word), (LOAD_HALF, 0, 0, _SOURCE_PORT[family]), (EQUAL, 0, 1, ports[i])]
        program += [_socket(2 * i, sockets), _socket(2 * i + 1, sockets)]
    return [*program, (RETURN, 0, 0, 0)]


def _socket(number: int, sockets: int) -> Instruction:
    """Return the instruction that selects the socket of this *number*, of so many *sockets* beside the first one."""
    return (RETURN, 0, 0, 1 + number % sockets)


def _owners(family: int, neighbours: Sequence[frozenset[str]]) -> dict[int, int]:
    """Last word of each address of this *family* → the number of its neighbour."""
    listed = ((i, each) for i, addresses in enumerate(neighbours) for each in addresses)
    return {_last_word(each): i for i, each in listed if address_family(each) == family}


def _last_word(address: str) -> int:
    return int(ip_address(address)) & 0xFFFFFFFF
