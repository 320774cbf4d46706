"""Programs by which the kernel selects the socket of a packet, or drops the packet (socket(7))."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable, Collection, Mapping

from saltext_wgmesh.core.model.policy import Network
from saltext_wgmesh.minion.watcher.sockets import Udp

Instruction = tuple[int, int, int, int]
"""Code, distances of both jumps, and operand, of a program for the kernel's packet filter (<linux/filter.h>)."""
_FORMAT = struct.Struct("=HBBI")
LOAD, EQUAL, AND, MODULO, ADD, JUMP, RETURN, RETURN_VALUE = 0x20, 0x15, 0x54, 0x94, 0x04, 0x05, 0x06, 0x16
LOAD_HALF, LOAD_BYTE = 0x28, 0x30
NETWORK_HEADER = 0xFFF00000
"""SKF_NET_OFF: offsets from here on are of the IP header."""
_INTERFACE = 0xFFFFF000 + 8
"""SKF_AD_OFF + SKF_AD_IFINDEX: the index of the interface on which the packet arrived."""
_FIRST_WORD = {4: NETWORK_HEADER + 12, 6: NETWORK_HEADER + 8}
"""Where the source address begins."""
SOURCE = {4: NETWORK_HEADER + 12, 6: NETWORK_HEADER + 20}
"""Where the source address is, or its last 32 bits."""
_ATTACH_FILTER, _ATTACH_SELECTION = 26, 51
"""SO_ATTACH_FILTER and SO_ATTACH_REUSEPORT_CBPF of <asm-generic/socket.h>."""
MAX_TESTS = 3000
"""Instructions that compare the source. The kernel takes 4,096 in all; with more sources, all are accepted."""


def attach_selection(to: Udp, program: list[Instruction]) -> None:
    """Have *program* return the number of the socket for a packet, in the group of sockets that *to* is in."""
    _attach(to.set_option, _ATTACH_SELECTION, program)


def receive_only(opened: socket.socket, program: list[Instruction]) -> None:
    """Have the kernel drop all packets for *opened* but those for which *program* returns a length."""
    _attach(opened.setsockopt, _ATTACH_FILTER, program)


def receive_nothing(udp: Udp) -> None:
    """Have the kernel drop all packets for *udp*."""
    _attach(udp.set_option, _ATTACH_FILTER, [(RETURN, 0, 0, 0)])


def _attach(set_option: Callable[[int, int, bytes], None], option: int, program: list[Instruction]) -> None:
    """Attach *program* to a socket, or to its group, by its *set_option* (``struct sock_fprog``)."""
    code = ctypes.create_string_buffer(b"".join(_FORMAT.pack(*instruction) for instruction in program))
    set_option(socket.SOL_SOCKET, option, struct.pack("@HP", len(program), ctypes.addressof(code)))


def by_interface_and_source(
    family: int, sources: Collection[Network], interfaces: Mapping[int, int], sockets: int
) -> list[Instruction]:
    """Return the program for packets from *sources*: each of *interfaces* has sockets of its own.

    *interfaces* are index → the number of its sockets, over which source addresses are spread. If there are fewer
    *sockets* than that, interfaces share some. Packets of other sources and interfaces are for socket 0.
    """
    tests = [_is_in(network) for network in sources if network.version == family]
    if sum(map(len, tests)) > MAX_TESTS:
        tests = [[]]
    program: list[Instruction] = []
    for number, test in enumerate(tests):
        # A packet of this network skips the tests of all others, and the return after them.
        program += [*test, (JUMP, 0, 0, sum(len(each) + 1 for each in tests[number + 1 :]) + 1)]
    program += [(RETURN, 0, 0, 0), (LOAD, 0, 0, _INTERFACE)]
    first = 0
    for index, count in interfaces.items():
        spread = [(LOAD, 0, 0, SOURCE[family]), (MODULO, 0, 0, count), (ADD, 0, 0, first), (MODULO, 0, 0, sockets)]
        program += [(EQUAL, 0, 6, index), *spread, (ADD, 0, 0, 1), (RETURN_VALUE, 0, 0, 0)]
        first += count
    return [*program, (RETURN, 0, 0, 0)]


def _is_in(network: Network) -> list[Instruction]:
    """Return instructions that go on to the instruction after the next one if the source is not in *network*."""
    words = [
        (
            _FIRST_WORD[network.version] + 4 * i,
            _word(network.netmask.packed, i),
            _word(network.network_address.packed, i),
        )
        for i in range(len(network.netmask.packed) // 4)
    ]
    compared = [(offset, mask, value) for offset, mask, value in words if mask]
    instructions: list[Instruction] = []
    for number, (offset, mask, value) in enumerate(compared, start=1):
        rest = 3 * (len(compared) - number)
        instructions += [(LOAD, 0, 0, offset), (AND, 0, 0, mask), (EQUAL, 0, rest + 1, value)]
    return instructions


def _word(packed: bytes, number: int) -> int:
    return int.from_bytes(packed[4 * number : 4 * number + 4], "big")
