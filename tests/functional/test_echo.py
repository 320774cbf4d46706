"""Echoes through a real relay: n5, a leaf on the test's own machine, sends packets to itself through the relay n1."""

from __future__ import annotations

import selectors
import time
from pathlib import Path

import pytest

from saltext_wgmesh.minion.watcher.echo import Echo
from tests.functional import far
from tests.functional.test_turns import with_keys
from tests.functional.test_watcher_sockets import key_of, take
from tests.nodeviews import leaf, peer, relay

ADDRESSES = ["10.100.0.5", "fd00:64::5"]


@pytest.fixture
def relay_machine(machine):
    """Yield the machine of n1. Both nodes have applied their views, and no watcher runs."""
    with far.machines(n1="192.0.2.10") as machines:
        known = {"n1": machines["n1"].call(key_of), "n5": key_of()}
        near = peer(5, "10.100.0.5/32", "fd00:64::5/128")
        machines["n1"].call(take, with_keys(relay(leaves=(near,), trunks=()), known))
        take(with_keys(leaf(relays=(1,)), known))
        yield machines["n1"]


def returned(address, seconds=5.0):
    """Return the discriminators of echoes from *address* that came back, as soon as there is one."""
    found = []
    with selectors.DefaultSelector() as selector:
        echo = Echo(selector, found.append)
        end = time.monotonic() + seconds
        while not found and time.monotonic() < end:
            echo.send(address, "wg0-u1", 4711)
            for key, _ in selector.select(0.2):
                key.data()
        echo.close()
        assert not selector.get_map()
    return found[:1]


def forward(value):
    for path in ("ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding", "ipv4/ip_forward"):
        Path("/proc/sys/net", path).write_text(value)


@pytest.mark.parametrize("address", ADDRESSES)
def test_relay_that_forwards_returns_echo(relay_machine, address):
    """The kernel of the relay is enough: no program there takes part."""
    assert returned(address) == [4711]


@pytest.mark.parametrize("address", ADDRESSES)
def test_relay_that_forwards_nothing_returns_no_echo(relay_machine, address):
    """Neither does the leaf's own kernel deliver the packet in its place."""
    relay_machine.call(forward, "0")
    assert returned(address, 2.0) == []
