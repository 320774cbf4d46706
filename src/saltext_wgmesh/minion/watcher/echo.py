"""Echoes: packets of this node to itself through a relay (the Echo function of RFC 5880 section 6.4).

A relay that returns one forwards packets, and no third node has a say in that. The kernel would deliver a packet for an
address of its own without sending it, and drop one that came back as forged. So packet sockets send and receive them.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.minion.watcher.socket_selection import EQUAL, LOAD, LOAD_HALF, RETURN, receive_only

_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_OTHERS = 3
"""``PACKET_OTHERHOST`` of <linux/if_packet.h>, and any greater type: no packet that was sent to this node."""
_HEADER = {4: 20, 6: 40}
"""Bytes of an IP header without options."""
_TOKEN = 8
"""Bytes of the random part of a payload."""
_MAX_ECHO = 128
"""Bytes that are read of one packet."""
_ENDS = {4: (12, 16), 6: (20, 36)}
"""Where the source and the destination are, or their last 32 bits."""
MAX_ECHOES_AT_ONCE = 64
"""Packets that are read from one socket before the loop does anything else."""


class Echo:
    """Sends echoes, and calls *on_reply* with the discriminator of each one that returns.

    The sockets see all packets of a device, and are open only while echoes are sent.
    """

    def __init__(self, selector: selectors.BaseSelector, on_reply: Callable[[int], None]) -> None:
        self._selector = selector
        self._on_reply = on_reply
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        """Keyed by own address and index of the device: a device that was made again has another one."""
        # A node that could guess it could answer in place of the relay.
        self._token = secrets.token_bytes(_TOKEN)

    def send(self, own_address: str, device: str, discriminator: int) -> None:
        """Send one echo from *own_address* by *device*, where it is to come back. OSError if that fails."""
        key = own_address, socket.if_nametoindex(device)
        if key not in self._sockets:
            self._sockets[key] = self._opened(own_address, device)
        packet = echo_packet(own_address, self._payload(discriminator))
        self._sockets[key].sendto(packet, (device, _ETHERTYPES[address_family(own_address)]))

    def close(self) -> None:
        """No echo is awaited any longer."""
        for each in self._sockets.values():
            self._selector.unregister(each)
            each.close()
        self._sockets.clear()

    def _payload(self, discriminator: int) -> bytes:
        return self._token + struct.pack("!I", discriminator)

    def _opened(self, own_address: str, device: str) -> socket.socket:
        family = address_family(own_address)
        # Without a protocol it receives nothing before the filter is attached.
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        try:
            _attach_filter(opened, family, ip_address(own_address).packed)
            opened.bind((device, _ETHERTYPES[family]))
        except OSError:
            opened.close()
            raise
        self._selector.register(opened, selectors.EVENT_READ, lambda: self._read(opened, family))
        return opened

    def _read(self, opened: socket.socket, family: int) -> None:
        for _ in range(MAX_ECHOES_AT_ONCE):
            try:
                data, address = opened.recvfrom(_MAX_ECHO)
            except OSError:
                return
            payload = data[_HEADER[family] + 8 :]
            is_ours = payload[:_TOKEN] == self._token and len(payload) >= _TOKEN + 4
            if is_ours and address[2] < _OTHERS:
                self._on_reply(struct.unpack_from("!I", payload, _TOKEN)[0])


def echo_packet(address: str, payload: bytes) -> bytes:
    """Return the IP packet from *address* to itself with *payload*, to the UDP port of echoes (RFC 5881 section 4)."""
    own = ip_address(address).packed
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", constants.BFD_ECHO_PORT, constants.BFD_ECHO_PORT, length, 0) + payload
    pseudo = own + own + struct.pack("!II", length, socket.IPPROTO_UDP)
    # A checksum of zero means none, which IPv6 forbids: it is sent as all ones (RFC 8200 section 8.1).
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xFFFF) + udp[8:]
    if len(own) == 16:
        return struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, constants.BFD_TTL) + own + own + udp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, constants.BFD_TTL, socket.IPPROTO_UDP, 0) + own + own
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def checksum(data: bytes) -> int:
    """Return the Internet checksum of *data* (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total = sum(int(word) for word in struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _attach_filter(opened: socket.socket, family: int, own: bytes) -> None:
    """Have *opened* receive packets from *own* to itself and to the port of echoes alone (socket(7))."""
    word, ends = int.from_bytes(own[-4:], "big"), _ENDS[family]
    program = [
        (LOAD, 0, 0, ends[0]),
        (EQUAL, 0, 5, word),
        (LOAD, 0, 0, ends[1]),
        (EQUAL, 0, 3, word),
        (LOAD_HALF, 0, 0, _HEADER[family] + 2),
        (EQUAL, 0, 1, constants.BFD_ECHO_PORT),
        (RETURN, 0, 0, _MAX_ECHO),
        (RETURN, 0, 0, 0),
    ]
    receive_only(opened, program)
