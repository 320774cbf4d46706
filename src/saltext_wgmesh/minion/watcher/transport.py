"""The watcher's packets: sockets, which link a packet belongs to, and the answers to probes of other nodes."""

from __future__ import annotations

import contextlib
import logging
import selectors
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.minion.watcher.error_log import ErrorLog
from saltext_wgmesh.minion.watcher.link import MonitoredLink
from saltext_wgmesh.minion.watcher.link_verdict import PROBE_EVERY, PROBES, discriminator
from saltext_wgmesh.minion.watcher.mesh import MeshMonitor
from saltext_wgmesh.minion.watcher.slices import Steps, groups_of
from saltext_wgmesh.minion.watcher.sockets import Received, Udp, canonical

log = logging.getLogger("wgmesh.watch")

MAX_PACKETS_AT_ONCE = 1024
"""Packets that are read from one socket before the loop does anything else."""

LinkInMesh = tuple[MeshMonitor, MonitoredLink]


@dataclass(slots=True)
class _Family:
    """The sockets of one address family."""

    sender: Udp
    """Sends all control packets and probes; replies to probes come back to it."""
    reflector: Udp | None = None
    """Answers the probes of other nodes; None while another program has the port."""
    listeners: dict[int, Udp] = field(default_factory=dict)
    """Index of an interface → the socket that receives control packets there."""


class Transport:
    """Sends and receives for all links. Each readable socket of *selector* carries a callback that reads it.

    *on_packet* is called with each control packet that belongs to a link, after the checks of RFC 5880 section 6.8.6.
    """

    def __init__(
        self, selector: selectors.BaseSelector, on_packet: Callable[[MeshMonitor, MonitoredLink, bfd.Packet], None]
    ) -> None:
        self._selector = selector
        self._on_packet = on_packet
        self._families: dict[int, _Family] = {}
        """Keyed by 4 and 6."""
        self._by_discriminator: dict[int, LinkInMesh] = {}
        self._by_address: dict[tuple[int, str], LinkInMesh] = {}
        """Keyed by index of the interface and address of the neighbour."""
        self._own_indices: frozenset[int] = frozenset()
        """The indices of all interfaces of all meshes."""
        self._errors = ErrorLog(log)
        self.ports_missing = False
        """Whether another program has a port that the watcher needs; ``lookup_steps`` tries again."""

    # -- links and their sockets ------------------------------------------------------------------------

    def lookup_steps(self, meshes: Iterable[MeshMonitor]) -> Steps[None]:
        """Find each link of *meshes* by its discriminator and by its interface and address, and listen for it.

        Until the lookup is complete, the former one is in use.
        """
        meshes = tuple(meshes)
        by_discriminator: dict[int, LinkInMesh] = {}
        by_address: dict[tuple[int, str], LinkInMesh] = {}
        devices: dict[int, dict[int, str]] = {}
        for mesh in meshes:
            for group in groups_of(mesh.links.values()):
                for link in group:
                    by_discriminator[link.session.discriminator] = mesh, link
                    index = mesh.indices.get(link.interface.name)
                    if index is not None:
                        by_address[index, canonical(link.peer.address)] = mesh, link
                        devices.setdefault(address_family(link.peer.address), {})[index] = link.interface.name
                yield None
        self._own_indices = frozenset(index for mesh in meshes for index in mesh.indices.values())
        self._by_discriminator, self._by_address = by_discriminator, by_address
        self.ports_missing = False
        for number, listed in devices.items():
            self._listen(number, listed)

    def link_of(self, discriminator: int) -> LinkInMesh | None:
        """The link whose session has *discriminator*; None if no view has it any longer."""
        return self._by_discriminator.get(discriminator)

    def _listen(self, number: int, devices: dict[int, str]) -> None:
        """Have one listener on each of *devices* (index → name), and no other of this family."""
        if number not in self._families:
            self._families[number] = _Family(sender=Udp(number))
            self._register(self._families[number].sender, self._on_probe_reply)
        family = self._families[number]
        if family.reflector is None and (reflector := self._opened(number, constants.SBFD_PORT)):
            family.reflector = reflector
            self._register(reflector, lambda received: self._reflect(reflector, received))
        # A device that was made again has another index, and its old socket receives nothing.
        for index in family.listeners.keys() - devices.keys():
            listener = family.listeners.pop(index)
            self._selector.unregister(listener)
            listener.close()
        for index, device in devices.items():
            if index not in family.listeners and (opened := self._opened(number, constants.BFD_PORT, device)):
                family.listeners[index] = opened
                self._register(opened, self._on_datagram)

    def _opened(self, number: int, port: int, device: str | None = None) -> Udp | None:
        """A socket; None, and ``ports_missing`` is set, while another program has the port."""
        try:
            return Udp(number, port, device)
        except OSError as error:
            self._errors.failed("UDP port %s cannot be opened", f"{port} on {device or 'all devices'}", error)
            self.ports_missing = True
            return None

    def _register(self, udp: Udp, handle: Callable[[Received], None]) -> None:
        def drain() -> None:
            # Bounded, so that a flood on one socket keeps neither timers nor other sockets waiting.
            for _ in range(MAX_PACKETS_AT_ONCE):
                received = udp.receive()
                if received is None:
                    return
                handle(received)

        self._selector.register(udp, selectors.EVENT_READ, drain)

    # -- control packets --------------------------------------------------------------------------------

    def send(self, mesh: MeshMonitor, link: MonitoredLink, packet: bfd.Packet) -> None:
        """Send a control packet to the neighbour of *link*. One that cannot be sent is lost, as on the way."""
        index = mesh.indices.get(link.interface.name)
        if index is None:
            return
        family = self._families[address_family(link.peer.address)]
        with contextlib.suppress(OSError):
            family.sender.send(packet.encode(), (link.peer.address, constants.BFD_PORT), mesh.source, index)

    def _on_datagram(self, received: Received) -> None:
        """A control packet, if it is valid (RFC 5880 section 6.8.6) and comes from the neighbour itself (RFC 5881
        section 5: a router on the way would have lowered its TTL)."""
        if received.ttl != constants.BFD_TTL:
            return
        try:
            packet = bfd.decode(received.data)
        except bfd.BfdError:
            return
        found = self._session_of(packet, received)
        if found is not None:
            self._on_packet(*found, packet)

    def _session_of(self, packet: bfd.Packet, received: Received) -> LinkInMesh | None:
        """The link of *packet*; None if there is none.

        It is found by our discriminator once the neighbour knows it (section 6.8.6), since its address may change.
        Until then the address decides.
        """
        if not packet.your_discriminator:
            return self._by_address.get((received.interface, received.source))
        found = self._by_discriminator.get(packet.your_discriminator)
        return found if found and found[0].indices.get(found[1].interface.name) == received.interface else None

    # -- probes through relays --------------------------------------------------------------------------

    def send_probe(self, mesh: MeshMonitor, link: MonitoredLink, target: MonitoredLink) -> None:
        """Send a probe through the relay of *link* to the relay of *target*, which reflects it (RFC 7880)."""
        packet = bfd.Packet(
            state=bfd.BfdState.UP,
            demand=True,
            multiplier=PROBES,
            my_discriminator=link.session.discriminator,
            your_discriminator=discriminator(target.peer.address),
            desired_min_tx=int(PROBE_EVERY * 1e6),
            required_min_rx=0,
        )
        family = self._families[address_family(target.peer.address)]
        index = mesh.indices.get(link.interface.name, 0)
        with contextlib.suppress(OSError):
            family.sender.send(packet.encode(), (target.peer.address, constants.SBFD_PORT), mesh.source, index)

    def _reflect(self, reflector: Udp, received: Received) -> None:
        """Answer a probe for this node, by whatever route leads back (RFC 7880 section 7.2)."""
        # Only what came through a mesh: a host outside could use the reflector against a third party.
        if received.interface not in self._own_indices:
            return
        with contextlib.suppress(bfd.BfdError, OSError):
            packet = bfd.decode(received.data)
            if packet.demand and packet.your_discriminator == discriminator(received.destination):
                answer = bfd.reflect(packet).encode()
                reflector.send(answer, (received.source, received.port), received.destination)

    def _on_probe_reply(self, received: Received) -> None:
        """Note that a probe of ours came back."""
        with contextlib.suppress(bfd.BfdError):
            found = self.link_of(bfd.decode(received.data).your_discriminator)
            if found is not None and received.port == constants.SBFD_PORT:
                found[1].last_probe_reply = time.monotonic()
