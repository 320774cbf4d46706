"""Which of its two keys a neighbour runs, by WireGuard's counters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.device import desired
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system.peer_keys import PeerKeyTracker
from tests.nodeviews import key, leaf, peer
from tests.unit.harness.fakehost import FakeHost, FakePeer, Kernel, with_ipv6

PEER = replace(peer(7, endpoint="192.0.2.7:51820", keepalive=25), next_key=key(77))
VIEW = leaf(direct=(PEER,))
HOST_PREFIX = {"10.100.0.7/32"}


@pytest.fixture
def host(tmp_path) -> FakeHost:
    """A node that accepts both keys of n7."""
    found = FakeHost.below(tmp_path, Kernel(sysctls=with_ipv6()))
    keys.ensure(found)
    apply.apply(found, VIEW)
    return found


def entry(host: FakeHost, number: int) -> FakePeer:
    return host.kernel.devices["wg0"].peers[key(number)]


def hear(host: FakeHost, number: int, at: int = 0, received: int = 100) -> None:
    """Let a packet with that key arrive; with *at*, a handshake too."""
    entry(host, number).received += received
    entry(host, number).handshake_at = at or entry(host, number).handshake_at


def held(host: FakeHost) -> tuple[set[str], set[str]]:
    return entry(host, 7).allowed_ips, entry(host, 77).allowed_ips


def test_present_key_has_allowed_ips_at_first(host) -> None:
    """The next key has the endpoint, but neither allowed-ips nor keepalive."""
    assert held(host) == (HOST_PREFIX, set())
    assert (entry(host, 7).keepalive, entry(host, 77).keepalive) == (25, 0)
    assert entry(host, 77).endpoint == "192.0.2.7:51820"
    PeerKeyTracker(host).update([("wg0", PEER)])
    assert held(host) == (HOST_PREFIX, set())


def test_later_handshake_moves_allowed_ips(host) -> None:
    """They move in one command, and back again. Neither is drift."""
    tracker = PeerKeyTracker(host)
    hear(host, 7, at=100)
    tracker.update([("wg0", PEER)])
    assert held(host) == (HOST_PREFIX, set())
    hear(host, 77, at=101)
    host.kernel.ran.clear()
    tracker.update([("wg0", PEER)])
    assert [argv[:2] for argv in host.kernel.ran] == [("wg", "show"), ("wg", "set")]
    assert held(host) == (set(), HOST_PREFIX)
    assert (entry(host, 7).keepalive, entry(host, 77).keepalive) == (0, 25)
    assert apply.apply(host, VIEW, dry_run=True).lines == []
    hear(host, 7, at=102)
    tracker.update([("wg0", PEER)])
    assert held(host) == (HOST_PREFIX, set())
    assert apply.apply(host, VIEW, dry_run=True).lines == []


def test_simultaneous_handshakes_are_decided_by_traffic(host) -> None:
    """Handshake times are in whole seconds: the key counts by which packets arrive."""
    tracker = PeerKeyTracker(host)
    hear(host, 7, at=100)
    hear(host, 77, at=100)
    tracker.update([("wg0", PEER)])
    hear(host, 7)
    tracker.update([("wg0", PEER)])
    assert held(host) == (HOST_PREFIX, set())
    hear(host, 77)
    tracker.update([("wg0", PEER)])
    assert held(host) == (set(), HOST_PREFIX)


def test_tried_key_is_left_only_on_evidence(host) -> None:
    """A handshake from before the attempt is no evidence."""
    tracker = PeerKeyTracker(host)
    hear(host, 7, at=100)
    tracker.update([("wg0", PEER)])
    assert tracker.try_other_key("wg0", PEER) == key(77)
    host.run(*tracker.move("wg0", PEER, key(77)))
    tracker.update([("wg0", PEER)])
    assert held(host) == (set(), HOST_PREFIX)
    assert tracker.try_other_key("wg0", PEER) == key(7)


def test_missing_peer_or_device_is_passed_over(host) -> None:
    """An apply is in progress, or the device is gone. A neighbour with one key is not looked up."""
    del host.kernel.devices["wg0"].peers[key(7)]
    tracker = PeerKeyTracker(host)
    hear(host, 77, at=100)
    tracker.update([("wg0", PEER), ("wg9", PEER)])
    assert entry(host, 77).allowed_ips == set()
    host.kernel.ran.clear()
    tracker.update([("wg0", peer(7))])
    assert host.kernel.ran == []


def test_removal_of_old_key_leaves_new_untouched(host) -> None:
    """If the new key has the allowed-ips already, its peer and session stay as they are."""
    tracker = PeerKeyTracker(host)
    hear(host, 77, at=100)
    tracker.update([("wg0", PEER)])
    host.kernel.touched.clear()
    after = leaf(direct=(replace(PEER, public_key=key(77), next_key=None),))
    apply.apply(host, after)
    assert host.kernel.touched == [("wg0", key(7))]
    assert set(host.kernel.devices["wg0"].peers) == {key(77)}


def test_apply_without_watcher_moves_allowed_ips(host) -> None:
    """The new key gets allowed-ips and keepalive when the old one is removed."""
    apply.apply(host, leaf(direct=(replace(PEER, public_key=key(77), next_key=None),)))
    assert entry(host, 77).allowed_ips == HOST_PREFIX
    assert entry(host, 77).keepalive == 25
    assert set(host.kernel.devices["wg0"].peers) == {key(77)}


def test_next_key_is_labelled() -> None:
    """In output the next key has a label of its own."""
    assert desired.node_by_key(VIEW)[key(77)] == "n7 (next key)"


def test_boot_file_has_both_keys(host) -> None:
    """wg-quick accepts a peer without AllowedIPs."""
    text = (host.conf_dir / "wg0.conf").read_text()
    _, one, other = text.split("[Peer]")
    assert {f"PublicKey = {key(7)}" in one, f"PublicKey = {key(7)}" in other} == {True, False}
    assert text.count("AllowedIPs") == 1
