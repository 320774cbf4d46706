"""Messages of the kernel about deletions, and what the loop does about them."""

from __future__ import annotations

import selectors
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core import constants
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.watcher import kernel_events
from saltext_wgmesh.minion.watcher.loop import Loop
from tests import nodeviews
from tests.unit.harness.fakehost import FakeHost, Kernel, with_ipv6


def message(kind: int, protocol: int) -> bytes:
    """A message of *kind* about a route of *protocol*."""
    body = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, protocol, 0, 1, 0) + b"\x05\x00\x01\x00\x00\x00\x00\x00"
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


class Messages:
    """A socket with some datagrams."""

    def __init__(self, *datagrams: bytes | OSError) -> None:
        self.left = list(datagrams)

    def recv(self, _size: int) -> bytes:
        if not self.left:
            raise BlockingIOError
        first = self.left.pop(0)
        if isinstance(first, OSError):
            raise first
        return first


@pytest.mark.parametrize(
    ("datagrams", "rules", "routes"),
    [
        ([message(24, 87), message(32, 0)], False, False),
        ([message(25, 87)], False, True),
        ([message(25, 4)], False, False),
        ([message(24, 4) + message(33, 0)], True, False),
        ([OSError("No buffer space available")], True, True),
    ],
    ids=["additions", "our route", "another route", "rule", "messages lost"],
)
def test_deletion_is_noted(datagrams, rules, routes):
    """Of any rule, and of the project's own routes; of everything if messages were lost."""
    deletions = kernel_events.Deletions(_socket=Messages(*datagrams))
    deletions.read()
    assert (deletions.rules, deletions.routes) == (rules, routes)


@given(st.binary(max_size=200))
def test_malformed_messages_raise_nothing(data):
    """Whatever the socket returns, its messages come to an end."""
    assert len(list(kernel_events.messages(data))) <= len(data)


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """The loop of a relay, after an apply and a first round of maintenance."""
    monkeypatch.setattr("socket.if_nametoindex", lambda name: 1 + sum(name.encode()))
    monkeypatch.setattr("saltext_wgmesh.minion.watcher.transport.Transport._listen", lambda *_: None)
    host = FakeHost.below(tmp_path, Kernel(sysctls=with_ipv6()))
    keys.ensure(host)
    apply.apply(host, nodeviews.relay(trunks=(2, 3)))
    made = Loop(host)
    made._maintain(time.monotonic())
    made._deletions = kernel_events.Deletions()
    return made


def test_deleted_rules_are_restored_in_next_round(loop):
    """Without a deletion nothing is read."""
    kernel = loop._host.kernel
    before = set(kernel.rules)
    assert before
    kernel.rules.clear()
    loop._maintain(time.monotonic())
    assert kernel.rules == set()
    loop._deletions.rules = True
    loop._maintain(time.monotonic())
    assert kernel.rules == before
    assert not loop._deletions.rules


def test_deleted_route_is_restored_in_next_round(loop):
    """It need not wait for the reconciliation that is due each ten seconds."""
    kernel = loop._host.kernel
    before = dict(kernel.routes)
    del kernel.routes[str(constants.trunk_table("wg0")), nodeviews.NETWORKS[0]]
    loop._deletions.routes = True
    loop._maintain(time.monotonic())
    assert kernel.routes == before


def test_deletions_of_an_apply_stand(loop):
    """While an apply holds the lock nothing is restored. The round after it looks again."""
    kernel = loop._host.kernel
    before = set(kernel.rules)
    kernel.rules.clear()
    loop._deletions.rules = True
    with Store(host=loop._host, mesh="wg0").locked():
        loop._maintain(time.monotonic())
        assert kernel.rules == set()
    loop._maintain(time.monotonic())
    assert kernel.rules == before


def test_kernel_without_events_is_no_failure(monkeypatch, caplog):
    """The watcher then restores routes and rules by its reconciliation alone."""

    def refused(*_arguments: object) -> None:
        raise OSError("Protocol not supported")

    monkeypatch.setattr("socket.socket", refused)
    with selectors.DefaultSelector() as selector:
        deletions = kernel_events.listen(selector)
        assert (deletions.rules, deletions.routes, len(selector.get_map())) == (False, False, 0)
    assert "restored late" in caplog.text
