"""The watcher's packets: sockets, which link a packet belongs to, and the answers to probes of other nodes."""

from __future__ import annotations

import contextlib
import functools
import logging
import selectors
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.policy import Network
from saltext_wgmesh.core.model.view import Kind
from saltext_wgmesh.minion.watcher.echo import Echo
from saltext_wgmesh.minion.watcher.error_log import ErrorLog
from saltext_wgmesh.minion.watcher.link import MonitoredLink
from saltext_wgmesh.minion.watcher.link_verdict import PROBE_EVERY, PROBES, discriminator
from saltext_wgmesh.minion.watcher.listener import Listener
from saltext_wgmesh.minion.watcher.mesh import MeshMonitor
from saltext_wgmesh.minion.watcher.probe_sockets import SPREAD, ProbeSockets
from saltext_wgmesh.minion.watcher.slices import Steps, groups_of
from saltext_wgmesh.minion.watcher.sockets import Received, Udp

log = logging.getLogger("wgmesh.watch")

QUOTA = 128
"""Packets of one socket that are read within QUOTA_TIME; then it must wait for ``resume``. The shortest interval of
a session, 10 ms, needs 20 of them."""
QUOTA_TIME = 0.2
"""Seconds."""
ECHO_LINGER = 5.0
"""Seconds."""

LinkInMesh = tuple[MeshMonitor, MonitoredLink]


@dataclass(slots=True)
class _Device:
    """One interface, and the links on it."""

    name: str
    links: list[MonitoredLink] = field(default_factory=list)


@dataclass(slots=True)
class _Family:
    """The sockets of one address family."""

    replies: ProbeSockets
    """Its sender sends all control packets and probes; replies to probes come back to its port."""
    reflectors: ProbeSockets | None = None
    """Answers the probes of other nodes; None while another program has the port."""
    listeners: dict[int, Listener] = field(default_factory=dict)
    """Index of an interface → the sockets that receive control packets there."""


@dataclass(slots=True, eq=False)
class _Inbox:
    """The socket of one neighbour, what is done with its packets, and how much was read from it lately."""

    socket: Udp
    handle: Callable[[Received], None]
    since: float = 0.0
    count: int = 0

    def is_exhausted(self, now: float) -> bool:
        """Count a packet at *now*; return whether it was the last one that is read for now."""
        if now - self.since > QUOTA_TIME:
            self.since, self.count = now, 0
        self.count += 1
        return self.count >= QUOTA


class Transport:
    """Sends and receives for all links. Each readable socket of *selector* carries a callback that reads it.

    *on_packet* is called with each control packet that belongs to a link, after the checks of RFC 5880 section 6.8.6
    and those of ``MonitoredLink.accepts``.
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
        self._relays: dict[tuple[str, str], MonitoredLink] = {}
        """Keyed by mesh and address of the relay."""
        self._interfaces: dict[int, Kind] = {}
        """The indices of all interfaces of all meshes."""
        self._networks: tuple[Network, ...] = ()
        """Those of all meshes."""
        self._devices: dict[int, dict[int, _Device]] = {}
        """Family → index → interface, of those with neighbours."""
        self._has_new_ports = False
        """Whether a neighbour sends from another UDP port than the kernel knows of."""
        self._errors = ErrorLog(log)
        self._echo = Echo(selector, self._on_echo)
        self._echoed_at = 0.0
        self._waiting: list[_Inbox] = []
        """The neighbours that have sent too much, and are not read now."""
        self.port_faults: tuple[str, ...] = ()
        """The ports that another program has, in words; ``lookup_steps`` tries again to open them."""

    # -- links and their sockets ------------------------------------------------------------------------

    def lookup_steps(self, meshes: Iterable[MeshMonitor]) -> Steps[None]:
        """Find each link of *meshes* by its discriminator and by its interface and address, and listen for it.

        Until the lookup is complete, the former one is in use.
        """
        meshes = tuple(meshes)
        by_discriminator: dict[int, LinkInMesh] = {}
        by_address: dict[tuple[int, str], LinkInMesh] = {}
        devices: dict[int, dict[int, _Device]] = {}
        for mesh in meshes:
            for group in groups_of(mesh.links.values()):
                for link in group:
                    by_discriminator[link.session.discriminator] = mesh, link
                    index = mesh.indices.get(link.interface.name)
                    if index is not None:
                        by_address |= dict.fromkeys(((index, each) for each in link.addresses), (mesh, link))
                        for family in {*map(address_family, (link.peer.address, *link.peer.other_addresses))}:
                            listed = devices.setdefault(family, {})
                            listed.setdefault(index, _Device(link.interface.name)).links.append(link)
                yield None
        self._interfaces = {
            mesh.indices[i.name]: i.kind for mesh in meshes for i in mesh.view.interfaces if i.name in mesh.indices
        }
        self._networks = tuple(ip_network(each) for mesh in meshes for each in mesh.view.networks)
        # Exchanged at once, between two slices: no packet meets a lookup that is half made.
        self._by_discriminator, self._by_address = by_discriminator, by_address
        self._relays = {
            (m.view.mesh, each): relay for m in meshes for relay in m.verdict.relays for each in relay.addresses
        }
        self.port_faults, self._devices = (), devices
        for number, listed in devices.items():
            self._listen(number, listed)

    def link_of(self, discriminator: int) -> LinkInMesh | None:
        """The link whose session has *discriminator*; None if no view has it any longer."""
        return self._by_discriminator.get(discriminator)

    def resume(self) -> None:
        """Read the neighbours again that had sent too much, and give the kernel the ports of all neighbours."""
        waiting, self._waiting = self._waiting, []
        for inbox in waiting:
            if inbox.socket.fileno() >= 0:
                self._read(inbox)
        if self._has_new_ports:
            self._has_new_ports = False
            for number, family in self._families.items():
                for index in family.listeners.keys() & self._devices.get(number, {}).keys():
                    self._serve(number, family, index, self._devices[number][index])

    def _listen(self, number: int, devices: dict[int, _Device]) -> None:
        """Have one listener on each of *devices* (by index), and no other of this family."""
        family = self._families.get(number)
        if family is None:
            replies = self._opened(number)
            if replies is None:
                return
            family = self._families[number] = _Family(replies=replies)
        if family.reflectors is None:
            family.reflectors = self._opened(number, constants.SBFD_PORT)
        self._serve_probes(number, family)
        # A device that was made again has another index, and its old socket receives nothing.
        for index in family.listeners.keys() - devices.keys():
            self._close(family.listeners.pop(index))
        for index, device in devices.items():
            self._serve(number, family, index, device)

    def _serve_probes(self, number: int, family: _Family) -> None:
        """Receive probes of all nodes, and replies of the relays that this node probes with."""
        relays = tuple(ip_network(address) for _, address in self._relays)
        # Replies come by way of relays alone. An uplink or trunk has one neighbour, and many nodes behind it.
        uplinks = {index: 1 for index, kind in self._interfaces.items() if kind is not Kind.ACCESS}
        all_nodes = {index: 1 if kind is Kind.UPLINK else SPREAD for index, kind in self._interfaces.items()}
        try:
            for opened in family.replies.serve(relays, uplinks):
                self._read(_Inbox(opened, self._on_probe_reply))
            if family.reflectors is not None:
                sender = family.reflectors.sender
                for opened in family.reflectors.serve(self._networks, all_nodes):
                    self._read(_Inbox(opened, functools.partial(self._reflect, sender)))
        except OSError as error:
            self._errors.failed("probes of IPv%s cannot be received", number, error)

    def _serve(self, number: int, family: _Family, index: int, device: _Device) -> None:
        """Receive the packets of the neighbours on *device*, if no other program has the port."""
        try:
            if index not in family.listeners:
                family.listeners[index] = Listener(number, device.name)
            neighbours, ports = [each.addresses for each in device.links], [each.source_port for each in device.links]
            for opened in family.listeners[index].serve(neighbours, ports):
                self._read(_Inbox(opened, self._on_datagram))
        except OSError as error:
            self._note_fault(number, constants.BFD_PORT, device.name, error)

    def _read(self, inbox: _Inbox) -> None:
        """Read *inbox* whenever there is a packet, one at a time: each neighbour has its turn."""

        def read() -> None:
            received = inbox.socket.receive()
            if received is None:
                return
            inbox.handle(received)
            if inbox.is_exhausted(time.monotonic()):
                # The kernel drops what its buffer can't hold, at no cost for the links of other neighbours.
                self._selector.unregister(inbox.socket)
                self._waiting.append(inbox)

        self._selector.register(inbox.socket, selectors.EVENT_READ, read)

    def _close(self, listener: Listener) -> None:
        waiting = {inbox.socket for inbox in self._waiting}
        for each in listener.sockets:
            if each not in waiting:
                self._selector.unregister(each)
        listener.close()

    def _opened(self, number: int, port: int | None = None) -> ProbeSockets | None:
        """Sockets with *port*; None, and ``port_faults`` has the reason, while another program has it."""
        try:
            return ProbeSockets(number, Udp(number, port, shared=True))
        except OSError as error:
            self._note_fault(number, port, "all devices", error)
            return None

    def _note_fault(self, number: int, port: int | None, device: str, error: OSError) -> None:
        where = f"IPv{number} {port or 'above 49151'} on {device}"
        self._errors.failed("UDP port %s cannot be opened", where, error)
        remedy = f"end the program that 'ss -lunp sport = {port}' shows" if port else "see 'ss -lunp'"
        fault = f"BFD cannot use UDP port {where} ({error.strerror or error}), so links go unchecked: {remedy}"
        self.port_faults = (*self.port_faults, fault)

    # -- control packets --------------------------------------------------------------------------------

    def send(self, mesh: MeshMonitor, link: MonitoredLink, packet: bfd.Packet) -> None:
        """Send a control packet to the neighbour of *link*. One that cannot be sent is lost, as on the way."""
        index = mesh.indices.get(link.interface.name)
        family = self._families.get(address_family(link.peer.address))
        if index is None or family is None:
            return
        data = link.authentication.sign(packet.encode(), time.monotonic())
        with contextlib.suppress(OSError):
            to = link.peer.address
            family.replies.sender.send(data, (to, constants.BFD_PORT), mesh.source_for(to), index)

    def _on_datagram(self, received: Received) -> None:
        """A control packet, if it is valid (RFC 5880 section 6.8.6) and comes from the neighbour itself (RFC 5881
        section 5: a router on the way would have lowered its TTL)."""
        # Before anything is parsed: this check costs least, and a packet from afar fails it (RFC 5082).
        if received.ttl != constants.BFD_TTL:
            return
        try:
            packet = bfd.decode(received.data)
        except bfd.BfdError:
            return
        found = self._session_of(packet, received)
        if found is None:
            return
        known = found[1].source_port
        if found[1].accepts(received, time.monotonic()):
            self._has_new_ports |= known != found[1].source_port
            self._on_packet(*found, packet)

    def _session_of(self, packet: bfd.Packet, received: Received) -> LinkInMesh | None:
        """The link of *packet*; None if there is none.

        It is found by our discriminator once the neighbour knows it (section 6.8.6), since its address may change.
        Until then the address decides, also if a watcher before had that discriminator.
        """
        by_address = self._by_address.get((received.interface, received.source))
        if not packet.your_discriminator:
            return by_address
        found = self._by_discriminator.get(packet.your_discriminator)
        if found is None and packet.state is bfd.BfdState.UP:
            # The neighbour may have the session still that it had with the watcher before.
            return by_address if by_address and by_address[1].may_resume(time.monotonic()) else None
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
        to = target.peer.address
        family = self._families.get(address_family(to))
        if family is None:
            return
        index = mesh.indices.get(link.interface.name, 0)
        with contextlib.suppress(OSError):
            family.replies.sender.send(packet.encode(), (to, constants.SBFD_PORT), mesh.source_for(to), index)

    def send_echo(self, mesh: MeshMonitor, link: MonitoredLink, now: float) -> None:
        """Send an echo through the relay of *link*. One that cannot be sent is lost, as on the way."""
        self._echoed_at = now
        with contextlib.suppress(OSError):
            self._echo.send(mesh.source, link.interface.name, link.session.discriminator)

    def end_echoes(self, now: float) -> None:
        """Close the sockets of echoes, if none was sent for ECHO_LINGER seconds."""
        if now - self._echoed_at > ECHO_LINGER:
            self._echo.close()

    def _on_echo(self, number: int) -> None:
        if found := self.link_of(number):
            found[1].last_echo = time.monotonic()

    def _reflect(self, reflector: Udp, received: Received) -> None:
        """Answer a probe for this node (RFC 7880 section 7.2), by the interface that it came by.

        The relay between then has to forward in both directions. By a route the answer could pass it by.
        """
        # Only what came through a mesh: a host outside could use the reflector against a third party.
        if received.interface not in self._interfaces:
            return
        with contextlib.suppress(bfd.BfdError, OSError):
            packet = bfd.decode(received.data)
            if packet.demand and packet.your_discriminator == discriminator(received.destination):
                answer = bfd.reflect(packet).encode()
                back = (received.source, received.port)
                reflector.send(answer, back, received.destination, received.interface)

    def _on_probe_reply(self, received: Received) -> None:
        """Note that a probe of ours came back from the relay that reflected it, and not from the one between."""
        with contextlib.suppress(bfd.BfdError):
            packet = bfd.decode(received.data)
            found = self.link_of(packet.your_discriminator)
            if found is None or received.port != constants.SBFD_PORT:
                return
            mesh, link = found
            reflector = self._relays.get((mesh.view.mesh, received.source))
            if reflector not in (None, link) and packet.my_discriminator == discriminator(received.source):
                link.last_probe_reply = time.monotonic()
