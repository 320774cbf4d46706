"""A local user without rights neither takes the watcher's sockets nor speaks for it. n5 is a leaf of the relay n1."""

from __future__ import annotations

import errno
import re
import socket

import pytest

from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys, link_report_file
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import service
from saltext_wgmesh.minion.watcher.process import LOG_FILE
from tests.functional import far, intruder
from tests.functional.test_turns import with_keys
from tests.lab.wait import wait_until
from tests.nodeviews import leaf, peer, relay

N1, N5 = "10.100.0.1", "10.100.0.5"


def key_of():
    return keys.ensure(Host())


def take(view):
    """Apply *view* on this machine."""
    apply.apply(Host(), view)


def state_of(neighbour):
    """Return the state of the link to *neighbour* in the watcher's report, or None."""
    report = link_report_file.read_report(Host(), "wg0")
    link = report.links.get(neighbour) if report and report.from_watcher else None
    return link.state.value if link else None


def downs():
    """Return the lines of this machine's watcher that say that a link is down."""
    return re.findall(r"\S+ by \S+ is (?:down|admin-down) .*", (Host().run_dir / LOG_FILE).read_text())


@pytest.fixture
def pair(watchers):
    """Yield the machine of n1. Both nodes have applied their views, and n5 runs a watcher."""
    with far.machines(n1="192.0.2.10") as machines:
        known = {"n1": machines["n1"].call(key_of), "n5": key_of()}
        near = peer(5, f"{N5}/32", "fd00:64::5/128")
        machines["n1"].call(take, with_keys(relay(leaves=(near,), trunks=()), known))
        take(with_keys(leaf(relays=(1,)), known))
        service.start_supervisor()
        yield machines["n1"]
        machines["n1"].call(intruder.end_speakers)


@pytest.fixture
def up(pair):
    """Yield the machine of n1, which runs a watcher too. The link is up at both ends."""
    pair.call(service.start_supervisor)
    wait_until(lambda: state_of("n1") == pair.call(state_of, "n5") == "up", 60, "the link to be up")
    return pair


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT], ids=["REUSEADDR", "REUSEPORT"])
@pytest.mark.parametrize("address", ["", N5], ids=["any address", "own address"])
def test_port_of_watcher_cannot_be_shared(up, option, address):
    """Another user would get all packets of the device, and with them the discriminators."""
    assert intruder.take_port("wg0-u1", address, option) == errno.EADDRINUSE


def test_packets_of_local_user_end_no_session(up):
    """They come from the neighbour's own address with the right TTL, and lack the code. Neither end goes down."""
    assert up.call(intruder.send_down, N1, N5, 3.0) == 0
    assert intruder.send_down(N5, N1, 3.0) == 0
    assert (downs(), up.call(downs)) == ([], [])


def test_packets_of_local_user_keep_no_link_down(pair):
    """A session that is not up yet comes up as fast as without them."""
    pair.call(service.start_supervisor)
    wait_until(lambda: state_of("n1") == pair.call(state_of, "n5") == "up", 60, "the link to be up")
    service.stop(Host())
    wait_until(lambda: pair.call(state_of, "n5") == "down", 10, "the link to be down")
    service.start_supervisor()
    assert intruder.send_down(N5, N1, 4.0) == 0
    assert (state_of("n1"), pair.call(state_of, "n5")) == ("up", "up")


def test_neighbour_without_codes_is_up_at_its_port(pair):
    """A former version's session comes up and stays, although packets come from another port of its node."""
    pair.call(intruder.speak, N1, N5, "wg0")
    wait_until(lambda: state_of("n1") == "up", 60, "the link to be up")
    assert pair.call(intruder.send_down, N1, N5, 3.0) == 0
    assert (state_of("n1"), downs()) == ("up", [])


def test_neighbour_gets_and_loses_codes_without_outage(pair):
    """Its upgrade is a restart like any other, and so is the way back."""
    pair.call(intruder.speak, N1, N5, "wg0")
    wait_until(lambda: state_of("n1") == "up", 60, "the link to be up")
    pair.call(intruder.end_speakers)
    pair.call(service.start_supervisor)
    wait_until(lambda: state_of("n1") == pair.call(state_of, "n5") == "up", 15, "the link to be up after the upgrade")
    pair.call(service.stop, Host())
    pair.call(intruder.speak, N1, N5, "wg0")
    wait_until(lambda: len(downs()) >= 2, 15, "the outage of the restart")
    wait_until(lambda: state_of("n1") == "up", 20, "the link to be up after the way back")


@pytest.mark.parametrize("data", [b"?" * 24, intruder.DOWN.encode()], ids=["garbage", "Down"])
def test_flood_of_local_user_ends_no_session(up, data):
    """Packets from the node's own address fill no buffer that the packets of its watcher need."""
    assert up.call(intruder.flood_without_rights, N5, 4.0, data) > 4000
    assert (downs(), up.call(downs)) == ([], [])
