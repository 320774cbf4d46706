"""UDP sockets that tell the interface on which a packet arrived, and send by a given interface."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from dataclasses import dataclass

from saltext_wgmesh.core import constants

_PKTINFO4 = struct.Struct("=I4s4s")
"""``struct in_pktinfo`` (ip(7)): interface index, local address, destination."""
_PKTINFO6 = struct.Struct("=16sI")
"""``struct in6_pktinfo`` (RFC 3542 section 6)."""
_INT = struct.Struct("=i")
_IP_PKTINFO = 8
"""<linux/in.h>; Python's socket module has no name for it before 3.12."""
_IP_RECVTTL = 12
"""<linux/in.h>."""
_ANCILLARY_SIZE = 128
"""Bytes, enough for packet information and TTL."""
_MAX_DATAGRAM = 512
"""Bytes; a control packet has 24, and the rest of a longer datagram is cut off."""
_PORTS = range(49152, 65536)
"""Source ports of control packets (RFC 5881 section 4)."""


@dataclass(frozen=True, slots=True)
class Received:
    """A datagram, and how it arrived."""

    data: bytes
    source: str
    port: int
    interface: int
    """Index of the interface on which it arrived."""
    ttl: int
    """Or hop limit."""
    destination: str
    """The address to which it was sent."""


class Udp:
    """A UDP socket of one family on one port, or on a free one above 49152."""

    def __init__(
        self, family: int, port: int | None = None, device: str | None = None, *, shared: bool = False
    ) -> None:
        """*family* is 4 or 6. With *device* only packets that arrive there are received.

        *shared*: other sockets of this user may have the same port and device.

        OSError if the port is taken.
        """
        self._v6 = family == 6
        self._socket = socket.socket(socket.AF_INET6 if self._v6 else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if self._v6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, constants.BFD_TTL)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, constants.BFD_TTL)
        if device is not None:
            # Another daemon of this node may have the same port on other devices. SO_REUSEADDR is never set: with it
            # any user could bind the port on this device too, and receive the packets (socket(7)).
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if shared:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._bind(port)

    def set_option(self, level: int, option: int, value: bytes) -> None:
        """Set a socket option (setsockopt(2)). OSError if the kernel refuses it."""
        self._socket.setsockopt(level, option, value)

    def _bind(self, port: int | None) -> None:
        if port is not None:
            self._socket.bind(("", port))
            return
        for candidate in secrets.SystemRandom().sample(_PORTS, 50):
            try:
                self._socket.bind(("", candidate))
                return
            except OSError:
                continue
        raise OSError(f"none of 50 UDP ports above {_PORTS[0]} is free")

    @property
    def port(self) -> int:
        """The UDP port."""
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """The file descriptor, as ``select`` needs it."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket and free its port."""
        self._socket.close()

    def send(self, data: bytes, to: tuple[str, int], source: str, interface: int = 0) -> None:
        """Send *data* from the address *source*, by *interface* (an index) unless it is 0. OSError if that fails."""
        if self._v6:
            info = _PKTINFO6.pack(socket.inet_pton(socket.AF_INET6, source), interface)
            control = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)
        else:
            info = _PKTINFO4.pack(interface, socket.inet_aton(source), bytes(4))
            control = (socket.IPPROTO_IP, _IP_PKTINFO, info)
        self._socket.sendmsg([data], [control], 0, to)

    def receive(self) -> Received | None:
        """The next datagram; None if none is there now."""
        try:
            data, ancillary, _flags, address = self._socket.recvmsg(_MAX_DATAGRAM, _ANCILLARY_SIZE)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            # The ICMP error that an earlier packet caused. The timeout of its session says all that is needed.
            return None
        interface = ttl = 0
        destination = ""
        for _level, kind, value in ancillary:
            if not self._v6 and kind == _IP_PKTINFO:
                interface, _local, target = _PKTINFO4.unpack_from(value)
                destination = socket.inet_ntoa(target)
            elif self._v6 and kind == socket.IPV6_PKTINFO:
                target, interface = _PKTINFO6.unpack_from(value)
                destination = socket.inet_ntop(socket.AF_INET6, target)
            else:
                (ttl,) = _INT.unpack_from(value)
        return Received(data, address[0], address[1], interface, ttl, destination)


def canonical(address: str) -> str:
    """*address* in the spelling of ``Received``."""
    return str(ipaddress.ip_address(address))
