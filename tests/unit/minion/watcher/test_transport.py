"""Packets and links: which packet counts for which link, by its address, interface, TTL and discriminator."""

from __future__ import annotations

import errno
import selectors
import socket
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.minion.watcher import mesh as mesh_module
from saltext_wgmesh.minion.watcher import transport as transport_module
from saltext_wgmesh.minion.watcher.link_verdict import discriminator
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

    def control_packet(self, your_discriminator, source, device, ttl=255):
        """Receive a control packet."""
        data = replace(PACKET, your_discriminator=your_discriminator).encode()
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


def _refuse(*_):
    raise OSError(errno.EADDRINUSE, "Address already in use")
