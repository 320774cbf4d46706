"""Packets and links: which packet counts for which link, by its address, interface, TTL and discriminator."""

from __future__ import annotations

import errno
import selectors
import socket
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.minion.watcher import mesh as mesh_module
from saltext_wgmesh.minion.watcher import transport as transport_module
from saltext_wgmesh.minion.watcher.link_verdict import discriminator
from saltext_wgmesh.minion.watcher.listener import MAX_SOCKETS, MAX_WITH_PORTS, selection
from saltext_wgmesh.minion.watcher.slices import finish
from saltext_wgmesh.minion.watcher.sockets import Received
from saltext_wgmesh.minion.watcher.transport import Transport
from tests import nodeviews
from tests.unit.harness.watcher import mesh_monitor

OWN, N2, N3, N7, N8, GUEST = (f"10.100.0.{number}" for number in (1, 2, 3, 7, 8, 77))
"""n8 is a gateway, and GUEST is a host behind it."""
OLD = "10.100.0.17"
"""The address that n7 had before."""
INDICES = {"wg0": 1, "wg0-t2": 2, "wg0-t3": 3}
ADDRESSES = {"n7": {N7, OLD}, "n8": {N8}, "n2": {N2}, "n3": {N3}}
DEVICES = {"n7": "wg0", "n8": "wg0", "n2": "wg0-t2", "n3": "wg0-t3"}
PACKET = bfd.Packet(
    state=bfd.BfdState.DOWN,
    multiplier=3,
    my_discriminator=7,
    your_discriminator=0,
    desired_min_tx=100_000,
    required_min_rx=100_000,
)


class Relay:
    """The transport of a relay without sockets, and the neighbours for which a packet counted."""

    def __init__(self, folder):
        leaves = (nodeviews.peer(7, f"{N7}/32", f"{OLD}/32"), nodeviews.peer(8, f"{N8}/32", "10.100.0.64/26"))
        self.monitor = mesh_monitor(folder, nodeviews.relay(leaves=leaves, trunks=(2, 3)))
        self.counted = []
        self.transport = Transport(
            selectors.DefaultSelector(), lambda _mesh, link, _packet: self.counted.append(link.name)
        )
        finish(self.transport.lookup_steps([self.monitor]))

    def discriminator_of(self, name):
        return self.monitor.links[name].session.discriminator

    def control_packet(self, your_discriminator, source, device, ttl=255, state=bfd.BfdState.DOWN):
        """Receive a control packet."""
        data = replace(PACKET, state=state, your_discriminator=your_discriminator).encode()
        self.transport._on_datagram(Received(data, source, 50_000, INDICES[device], ttl, OWN))

    def probe_reply(self, name, source, reflector=None, port=constants.SBFD_PORT):
        """Receive a reply to a probe through *name*; return whether it counted."""
        packet = replace(PACKET, state=bfd.BfdState.UP, my_discriminator=discriminator(reflector or source))
        data = replace(packet, your_discriminator=self.discriminator_of(name)).encode()
        link = self.monitor.links[name]
        link.last_probe_reply = 0.0
        self.transport._on_probe_reply(Received(data, source, port, INDICES[DEVICES[name]], 64, OWN))
        return link.last_probe_reply > 0.0


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    """The relay n1 with the leaves n7 and n8 and the relays n2 and n3; no socket is opened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "if_nametoindex", lambda name: INDICES[name])
        patch.setattr(Transport, "_listen", lambda *_: None)
        return Relay(tmp_path_factory.mktemp("relay"))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["n7", "n8", "n2", "n3", None]),
    st.sampled_from([N7, OLD, N8, N2, N3, GUEST, "192.0.2.1"]),
    st.sampled_from(sorted(INDICES)),
    st.sampled_from([255, 254, 1]),
)
def test_packet_counts_from_address_of_view_alone(relay, meant, source, device, ttl):
    """A node that knows the discriminator of another's session, and sends from any address, changes its own at most."""
    relay.counted.clear()
    relay.control_packet(relay.discriminator_of(meant) if meant else 0, source, device, ttl)
    owner = next((name for name, addresses in ADDRESSES.items() if source in addresses), None)
    is_right = owner is not None and meant in (owner, None) and device == DEVICES[owner] and ttl == 255
    assert relay.counted == ([owner] if is_right else [])


@pytest.mark.parametrize("state", bfd.BfdState)
@pytest.mark.parametrize("until", [0.0, float("inf")], ids=["first watcher", "successor"])
def test_unknown_discriminator_counts_for_successor_alone(relay, monkeypatch, state, until):
    """If the neighbour is up: it has its session with the watcher before. It counts from its own address and device."""
    monkeypatch.setattr(relay.monitor.links["n2"], "resumable_until", until)
    relay.counted.clear()
    relay.control_packet(99, N2, DEVICES["n2"], state=state)
    assert relay.counted == (["n2"] if until and state is bfd.BfdState.UP else [])
    relay.counted.clear()
    relay.control_packet(99, N3, DEVICES["n2"], state=state)
    relay.control_packet(99, N2, DEVICES["n3"], state=state)
    relay.control_packet(99, N2, DEVICES["n2"], ttl=254, state=state)
    assert relay.counted == []


def test_renumbered_neighbour_is_heard_at_each_address(tmp_path, monkeypatch):
    """Also by a trunk, whose allowed-ips name no address, and in a family in which it is not probed.

    Each packet is sent from an address of the receiver's family.
    """
    monkeypatch.setattr(socket, "if_nametoindex", lambda name: INDICES[name])
    served = {}
    monkeypatch.setattr(Transport, "_listen", lambda _self, family, devices: served.update({family: devices}))
    view = nodeviews.relay(trunks=(2, 3))
    others = {"n2": ("10.200.0.2", "fd00:65::2")}
    interfaces = tuple(
        replace(i, peers=tuple(replace(p, other_addresses=others.get(p.node, ())) for p in i.peers))
        for i in view.interfaces
    )
    monitor = mesh_monitor(tmp_path, replace(view, interfaces=interfaces, addresses=(OWN, "10.200.0.1", "fd00:65::1")))
    finish(Transport(selectors.DefaultSelector(), lambda *_: None).lookup_steps([monitor]))
    heard = {f: {link.name for d in devices.values() for link in d.links} for f, devices in served.items() if devices}
    assert heard == {4: {"n2", "n3"}, 6: {"n2"}}
    assert monitor.links["n2"].addresses == {N2, *others["n2"]}
    assert [monitor.source_for(to) for to in (N2, "fd00:65::2")] == [OWN, "fd00:65::1"]


def test_probe_reply_counts_from_probed_relay_alone(relay):
    """Not from the relay that is probed, a leaf, another port, or another address than the reflector's."""
    assert relay.probe_reply("n2", N3)
    assert not relay.probe_reply("n2", N2)
    assert not relay.probe_reply("n2", N7)
    assert not relay.probe_reply("n2", N3, reflector=N7)
    assert not relay.probe_reply("n2", N3, port=50_000)


def test_discriminators_follow_from_no_random_state(relay, monkeypatch):
    """A neighbour that knows many discriminators of this node would guess the others from a generator's state."""
    monkeypatch.setattr("random.getrandbits", lambda _: pytest.fail("the generator can be guessed"))
    drawn = iter((0, 5))
    monkeypatch.setattr("secrets.randbits", lambda bits: next(drawn) if bits == 32 else pytest.fail("of 32 bits"))
    assert mesh_module.new_discriminator() == 1
    assert mesh_module.new_discriminator() == 5


def test_taken_ports_are_named_and_end_nothing(tmp_path, monkeypatch):
    """Also if another user has all ports from which packets could be sent: nothing is sent until one is free."""
    monkeypatch.setattr(socket, "if_nametoindex", lambda name: INDICES[name])
    monkeypatch.setattr(transport_module, "Udp", _refuse)
    monitor = mesh_monitor(tmp_path, nodeviews.relay(trunks=(2, 3)))
    transport = Transport(selectors.DefaultSelector(), lambda *_: None)
    finish(transport.lookup_steps([monitor]))
    assert ["UDP port IPv4 above 49151 on all devices" in fault for fault in transport.port_faults] == [True]
    transport.send(monitor, monitor.links["n2"], PACKET)
    transport.send_probe(monitor, monitor.links["n2"], monitor.links["n3"])


def _refuse(*_, **__):
    raise OSError(errno.EADDRINUSE, "Address already in use")


class Mailbox:
    """A socket on which a neighbour sends without end; nothing is ever read from it."""

    def __init__(self):
        self.near, self.far = socket.socketpair()
        self.far.send(b"?")
        self.reads = 0

    def fileno(self):
        return self.near.fileno()

    def receive(self):
        self.reads += 1
        return Received(b"?", N7, 50_000, 1, 255, OWN)


def test_neighbour_without_end_gets_its_quota_alone(monkeypatch):
    """It is read one packet a turn, then not at all until the loop resumes it."""
    selector, clock = selectors.SelectSelector(), iter(range(10_000))
    monkeypatch.setattr(transport_module, "time", SimpleNamespace(monotonic=lambda: next(clock) / 10_000))
    transport, mailbox = Transport(selector, lambda *_: None), Mailbox()
    transport._read(transport_module._Inbox(mailbox, transport._on_datagram))
    for turn in range(3 * transport_module.QUOTA):
        for key, _ in selector.select(0):
            key.data()
        assert mailbox.reads == min(turn + 1, transport_module.QUOTA)
    transport.resume()
    assert [key.fileobj for key, _ in selector.select(0)] == [mailbox]


@given(st.integers(1, 3000), st.sampled_from([4, 6]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_each_neighbour_has_its_own_socket(count, family, with_ports):
    """As long as a program of the kernel can tell them apart; then they share. Other addresses have the first one."""
    with_ports = with_ports and count <= MAX_WITH_PORTS
    base = int(ip_address("10.64.0.1" if family == 4 else "fd00:64::1"))
    owners = {base + i & 0xFFFFFFFF: i for i in range(count)}
    sockets = min(count * (2 if with_ports else 1), MAX_SOCKETS)
    program = selection(family, owners, sockets, [50_000 + i for i in range(count)] if with_ports else ())
    assert len(program) <= 4096
    chosen = [run(program, ip_address(base + i), 50_000 + i) for i in (0, count // 2, count - 1)]
    if with_ports:
        assert chosen == [1, 1 + 2 * (count // 2), 2 * count - 1]
    elif count <= MAX_SOCKETS:
        assert chosen == [1, 1 + count // 2, count]
    else:
        assert all(0 <= number <= sockets for number in chosen)
    assert count > MAX_SOCKETS or run(program, ip_address(base + count), 50_000) == 0


@given(st.sampled_from([4, 6]), st.integers(0, 1), st.integers(0, 65_535), st.booleans())
def test_port_of_watcher_has_its_own_socket(family, number, port, is_usual):
    """Another user of the neighbour has no access to it, also not by options in the IP header."""
    base = int(ip_address("10.64.0.1" if family == 4 else "fd00:64::1"))
    program = selection(family, {base & 0xFFFFFFFF: 0, base + 1 & 0xFFFFFFFF: 1}, 4, [50_000, 0])
    chosen = run(program, ip_address(base + number), port, is_usual=is_usual)
    assert chosen == (1 + 2 * number + (port != (50_000, 0)[number]) if is_usual else 0)


def run(program, source, port, *, is_usual=True):
    """Run a *program* for a packet from *source* and *port*, as the kernel does."""
    network = 0xFFF00000
    first = {network: 0x45 if is_usual else 0x46, network + 6: 17 if is_usual else 60}
    at = value = 0
    while True:
        code, jump_true, jump_false, operand = program[at]
        at += 1
        if code == 0x20:
            value = int(source) & 0xFFFFFFFF
        elif code == 0x30:
            value = first[operand]
        elif code == 0x28:
            assert operand == network + (20 if source.version == 4 else 40)
            value = port
        elif code == 0x15:
            at += jump_true if value == operand else jump_false
        elif code == 0x94:
            value %= operand
        else:
            return operand if code == 0x06 else value
