"""One leaf sends its relay BFD packets without end. Packets to and from all others arrive in time.

n1 is a relay on the test's own machine, n5 an honest leaf, and n6 a leaf that does as it likes.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network

import pytest

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.minion.watcher import service
from saltext_wgmesh.minion.watcher.link_verdict import PROBE_EVERY, PROBES, discriminator
from saltext_wgmesh.minion.watcher.listener import Listener
from saltext_wgmesh.minion.watcher.probe_sockets import ProbeSockets
from saltext_wgmesh.minion.watcher.sockets import Udp
from tests.functional import far, intruder
from tests.functional.test_turns import with_keys
from tests.functional.test_watcher_sockets import downs, key_of, state_of, take
from tests.lab.wait import wait_until
from tests.nodeviews import leaf, peer, relay

N1, N5, N6 = "10.100.0.1", "10.100.0.5", "10.100.0.6"
PROBE = bfd.Packet(
    state=bfd.BfdState.UP,
    demand=True,
    multiplier=4,
    my_discriminator=7,
    your_discriminator=discriminator(N1),
    desired_min_tx=200_000,
    required_min_rx=0,
)
SECONDS = 4.0


@pytest.fixture
def leaves(watchers):
    """Yield the machines of n5 and n6. The link of n1 and n5 is up, and n6 runs no watcher."""
    with far.machines(n5="192.0.2.50", n6="192.0.2.60") as machines:
        far.run("ip", "address", "add", "192.0.2.10/24", "dev", "eth0")
        known = {name: machine.call(key_of) for name, machine in machines.items()} | {"n1": key_of()}
        take(with_keys(relay(leaves=(peer(5), peer(6)), trunks=()), known))
        machines["n5"].call(take, with_keys(leaf(relays=(1,)), known))
        machines["n6"].call(take, with_keys(renamed(leaf(relays=(1,))), known))
        service.start_supervisor()
        machines["n5"].call(service.start_supervisor)
        wait_until(lambda: state_of("n5") == machines["n5"].call(state_of, "n1") == "up", 60, "n5 to be up")
        yield machines
        machines["n6"].call(intruder.end_speakers)


def renamed(view):
    """Return *view*, of n5, as that of n6."""
    return view.__class__.from_dict({**view.as_dict(), "node": "n6", "addresses": [N6, "fd00:64::6"]})


def of_honest_leaf(lines):
    return [line for line in lines if line.startswith("n5 ")]


@pytest.mark.parametrize("data", [b"?" * 24, intruder.DOWN.encode()], ids=["garbage", "Down"])
def test_flood_ends_no_other_session(leaves, data):
    """Ten times as many packets as the watcher reads of one neighbour."""
    sent = leaves["n6"].call(intruder.flood, N1, SECONDS, data)
    assert sent > 1000 * SECONDS
    assert (of_honest_leaf(downs()), leaves["n5"].call(downs)) == ([], [])


def test_flood_of_changes_ends_no_other_session(leaves):
    """Down, Init, Up and AdminDown in turn, 360 packets a second in two bursts. Routes follow a bounded number."""
    before = len(downs())
    leaves["n6"].call(intruder.flap, N6, N1, SECONDS)
    assert (of_honest_leaf(downs()), leaves["n5"].call(downs)) == ([], [])
    assert len(downs()) - before < 12


def test_flood_fills_buffer_of_its_sender_alone(leaves):
    """n6 sends more than a buffer holds before anything is read. The packets of n5 are all there."""
    own = Listener(4, "net0")
    try:
        first, second = own.serve([frozenset({"192.0.2.60"}), frozenset({"192.0.2.50"})])
        leaves["n6"].call(intruder.flood, "192.0.2.1", 0.5)
        leaves["n5"].call(send_three)
        time.sleep(0.2)
        assert sources(first) == {"192.0.2.60"}
        assert [second.receive().source for _ in range(3)] == ["192.0.2.50"] * 3
        assert second.receive() is None
        own.serve([frozenset({"192.0.2.70"}), frozenset({"192.0.2.50"})])
        leaves["n6"].call(intruder.flood, "192.0.2.1", 0.1)
        time.sleep(0.2)
        assert [sources(each) for each in own.sockets] == [set(), set()]
    finally:
        own.close()


@pytest.mark.parametrize("data", [b"?" * 24, PROBE.encode()], ids=["garbage", "probes"])
def test_flood_keeps_no_probes_unanswered(leaves, data):
    """n6 floods the reflector. No run of n5's probes is lost that makes a blackhole."""
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(leaves["n6"].call, intruder.flood, N1, SECONDS, data, constants.SBFD_PORT)
        time.sleep(0.5)
        answered = leaves["n5"].call(probe, N5, N1, SECONDS - 1.0)
        assert not flood.done()
        assert flood.result() > 1000 * SECONDS
    assert len(answered) > 2 * PROBES
    assert max(len(lost) for lost in "".join(answered).split("!")) < PROBES, "".join(answered)


def test_flood_fills_reflector_of_sender_alone(leaves, watchers):
    """n6 sends more than a buffer holds while the watcher is stopped. A probe of n5 that comes last is answered."""
    (pid,) = [pid for pid, words in watchers().items() if "--supervise" not in words]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert leaves["n6"].call(intruder.flood, N1, 1.0, PROBE.encode(), constants.SBFD_PORT) > 1000
        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(leaves["n5"].call, probe, N5, N1, 0.01, 10.0)
            time.sleep(0.5)
            os.kill(pid, signal.SIGCONT)
            assert answered.result() == ["!"]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_flood_keeps_no_reply_from_being_received(machine):
    """Replies to probes come from relays alone: n6 is none, and its packets are dropped in the kernel."""
    with far.machines(n5="192.0.2.50", n6="192.0.2.60") as machines:
        far.run("ip", "address", "add", "192.0.2.10/24", "dev", "net0")
        sockets = ProbeSockets(4, Udp(4, None, shared=True))
        index = socket.if_nametoindex("net0")
        (own,) = sockets.serve([ip_network("192.0.2.50")], {index: 1})
        machines["n6"].call(intruder.flood, "192.0.2.1", 0.5, b"?", sockets.sender.port)
        machines["n5"].call(send_three, sockets.sender.port)
        time.sleep(0.2)
        assert [own.receive().source for _ in range(3)] == ["192.0.2.50"] * 3
        assert own.receive() is None
        # All addresses of a network, each with a socket of its own.
        sockets.serve([ip_network("192.0.2.0/24")], {index: 64})
        machines["n6"].call(intruder.flood, "192.0.2.1", 0.5, b"?", sockets.sender.port)
        machines["n5"].call(send_three, sockets.sender.port)
        time.sleep(0.2)
        found = [sources(each) for each in sockets.serve([ip_network("192.0.2.0/24")], {index: 65})] + [sources(own)]
        assert found == [set(), set()]


def probe(own, to, seconds, timeout=PROBE_EVERY):
    """Probe the reflector of *to* for *seconds*.

    Return ``!`` for each probe that was answered within *timeout* seconds, else ``.``.
    """
    packet = replace(PROBE, your_discriminator=discriminator(to)).encode()
    answered = []
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((own, 0))
        opened.settimeout(timeout)
        while time.monotonic() < end:
            opened.sendto(packet, (to, constants.SBFD_PORT))
            try:
                answered.append("!" if bfd.decode(opened.recv(100)).my_discriminator == discriminator(to) else ".")
                time.sleep(0.05)
            except TimeoutError:
                answered.append(".")
    return answered


def send_three(port=constants.BFD_PORT):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        for _ in range(3):
            opened.sendto(b"?", ("192.0.2.1", port))


def sources(udp):
    """Return the source addresses of all packets that wait in *udp*."""
    return {received.source for received in iter(udp.receive, None)}
