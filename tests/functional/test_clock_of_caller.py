"""A leaf whose clock was ahead once: WireGuard refuses its next handshakes until its relay adds it anew."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import service
from tests.functional.initiator import Initiator
from tests.lab.wait import wait_until
from tests.nodeviews import peer, relay

DAY = 86400.0


@pytest.fixture
def caller(machine) -> Iterator[Initiator]:
    """A leaf without endpoint that the relay n1 has as a peer."""
    initiator = Initiator(keys.ensure(Host()), 51820)
    apply.apply(Host(), relay(leaves=(peer(7, public_key=initiator.public_key),), trunks=()))
    yield initiator
    initiator.close()


def test_caller_with_earlier_clock_is_heard_again(caller: Initiator, watchers):
    """The watcher removes and adds the peer, and WireGuard forgets the time of tomorrow with it."""
    now = time.time()
    assert wait_until(lambda: caller.is_answered(now + DAY), 10, "the first handshake")
    # WireGuard's protection against replays: the stamp must be greater than the greatest one so far.
    assert not any(caller.is_answered(now + seconds) for seconds in range(3))
    service.ensure_running(Host())
    wait_until(lambda: caller.is_answered(time.time()), 60, "a handshake by the right time")
