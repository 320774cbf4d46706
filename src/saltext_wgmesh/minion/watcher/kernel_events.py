"""Hears from the kernel when a program deletes a rule or a route of ours (rtnetlink(7))."""

from __future__ import annotations

import logging
import selectors
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from saltext_wgmesh.core import constants

log = logging.getLogger("wgmesh.watch")

_HEADER = struct.Struct("=IHHII")
"""``struct nlmsghdr`` (netlink(7)): length, type, flags, sequence number, port."""
_MESSAGE = struct.Struct("=BBBBBBBBI")
"""``struct rtmsg``: family, lengths, TOS, table, protocol, scope, type, flags. ``struct fib_rule_hdr`` is as long."""
_DELETED_ROUTE, _DELETED_RULE = 25, 33
"""RTM_DELROUTE and RTM_DELRULE of <linux/rtnetlink.h>."""
_GROUPS = 1 << 6 | 1 << 10 | 1 << 7 | 1 << 18
"""RTNLGRP_IPV4_ROUTE, _IPV6_ROUTE, _IPV4_RULE and _IPV6_RULE, each as a bit."""
_BUFFER = 65536
"""Bytes."""
_READS_AT_ONCE = 16


@dataclass(slots=True)
class Deletions:
    """Whether anything was deleted since it was last restored.

    Our own deletions count too: restoring then finds nothing to do.
    """

    rules: bool = False
    routes: bool = False
    _socket: socket.socket | None = field(default=None, repr=False)

    def read(self) -> None:
        """Note the deletions that the kernel has told by now."""
        assert self._socket is not None
        for _ in range(_READS_AT_ONCE):
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError:
                # Messages were lost (ENOBUFS): anything may have been deleted.
                self.rules = self.routes = True
                return
            for kind, protocol in messages(data):
                self.rules |= kind == _DELETED_RULE
                self.routes |= kind == _DELETED_ROUTE and protocol == constants.ROUTE_PROTOCOL


def messages(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the type of each message in *data*, and its route protocol; 0 if it has none."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        body = at + _HEADER.size
        has_body = body + _MESSAGE.size <= min(len(data), at + length)
        yield kind, _MESSAGE.unpack_from(data, body)[5] if has_body else 0
        # Each message begins at a multiple of four bytes (NLMSG_ALIGN).
        at += (length + 3) & ~3


def listen(selector: selectors.BaseSelector) -> Deletions:
    """Return the deletions from now on, read by a callback of *selector*.

    Without such a socket nothing is heard: the reconciliation that comes every few seconds restores what is deleted.
    """
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        opened.bind((0, _GROUPS))
    except OSError as error:
        log.warning("deletions of routes and rules are not heard, and are restored late: %s", error)
        return Deletions()
    deletions = Deletions(_socket=opened)
    selector.register(opened, selectors.EVENT_READ, deletions.read)
    return deletions
