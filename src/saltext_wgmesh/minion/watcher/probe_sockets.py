"""The sockets of one port for probes, or for the replies to them.

They come from any node of a mesh, by way of relays. A node that sends too many fills the buffer of its own socket, or
of one that few others share. The kernel drops packets of addresses that no probe comes from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from saltext_wgmesh.core.model.policy import Network
from saltext_wgmesh.minion.watcher.socket_selection import attach_selection, by_interface_and_source, receive_nothing
from saltext_wgmesh.minion.watcher.sockets import Udp

SPREAD = 64
"""Sockets of an interface by which packets of many nodes arrive. WireGuard bounds the source addresses of each node."""


class ProbeSockets:
    """*sender* and further sockets with its port. OSError if the kernel takes no programs for sockets."""

    def __init__(self, family: int, sender: Udp) -> None:
        """*sender* sends alone. It must be shared (``Udp``), and the only socket with its port."""
        self._family = family
        self.sender = sender
        self._sockets: list[Udp] = []
        self._served: tuple[Collection[Network], Mapping[int, int]] = ((), {})
        receive_nothing(sender)

    def serve(self, sources: Collection[Network], interfaces: Mapping[int, int]) -> list[Udp]:
        """Receive packets of *sources* on *interfaces*, as of ``by_interface_and_source``; return new sockets.

        A socket is never closed. Where no further one can be opened, interfaces share sockets.
        """
        if (sources, interfaces) == self._served:
            return []
        before = len(self._sockets)
        try:
            while len(self._sockets) < sum(interfaces.values()):
                self._sockets.append(Udp(self._family, self.sender.port, shared=True))
        except OSError:
            if not self._sockets:
                raise
        program = by_interface_and_source(self._family, sources, interfaces, max(1, len(self._sockets)))
        attach_selection(self.sender, program)
        self._served = sources, dict(interfaces)
        return self._sockets[before:]
