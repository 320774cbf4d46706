"""Which of its two keys a neighbour runs, by what WireGuard counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core import wanted
from saltext_wgmesh.minion import apply, keys
from saltext_wgmesh.minion.following import Follower
from tests.nodeviews import key, leaf, peer
from tests.unit.fakehost import FakeHost, FakePeer, Kernel, with_ipv6

PEER = replace(peer(7, endpoint="192.0.2.7:51820", keepalive=25), next_key=key(77))
VIEW = leaf(direct=(PEER,))
HOST_PREFIX = {"10.100.0.7/32"}


@pytest.fixture
def host(tmp_path) -> FakeHost:
    """A node that takes both keys of n7."""
    found = FakeHost.below(tmp_path, Kernel(sysctls=with_ipv6()))
    keys.ensure(found)
    apply.apply(found, VIEW)
    return found


def entry(host: FakeHost, number: int) -> FakePeer:
    return host.kernel.devices["wg0"].peers[key(number)]


def hear(host: FakeHost, number: int, at: int = 0, received: int = 100) -> None:
    """A packet under that key came in; with *at*, a handshake."""
    entry(host, number).received += received
    entry(host, number).handshake_at = at or entry(host, number).handshake_at


def held(host: FakeHost) -> tuple[set[str], set[str]]:
    return entry(host, 7).allowed_ips, entry(host, 77).allowed_ips


def test_the_key_that_it_ran_last_has_the_prefixes_at_first(host) -> None:
    """The other is there with the endpoint, and neither prefixes nor keepalive."""
    assert held(host) == (HOST_PREFIX, set())
    assert (entry(host, 7).keepalive, entry(host, 77).keepalive) == (25, 0)
    assert entry(host, 77).endpoint == "192.0.2.7:51820"
    Follower(host).look([("wg0", PEER)])
    assert held(host) == (HOST_PREFIX, set())


def test_a_later_handshake_has_the_prefixes_move_and_come_back(host) -> None:
    """In one command; the drift check finds nothing to do either time."""
    follower = Follower(host)
    hear(host, 7, at=100)
    follower.look([("wg0", PEER)])
    assert held(host) == (HOST_PREFIX, set())
    hear(host, 77, at=101)
    host.kernel.ran.clear()
    follower.look([("wg0", PEER)])
    assert [argv[:2] for argv in host.kernel.ran] == [("wg", "show"), ("wg", "set")]
    assert held(host) == (set(), HOST_PREFIX)
    assert (entry(host, 7).keepalive, entry(host, 77).keepalive) == (0, 25)
    assert apply.apply(host, VIEW, dry_run=True).lines == []
    hear(host, 7, at=102)
    follower.look([("wg0", PEER)])
    assert held(host) == (HOST_PREFIX, set())
    assert apply.apply(host, VIEW, dry_run=True).lines == []


def test_of_two_handshakes_in_one_second_the_one_counts_by_which_packets_come(host) -> None:
    follower = Follower(host)
    hear(host, 7, at=100)
    hear(host, 77, at=100)
    follower.look([("wg0", PEER)])
    hear(host, 7)
    follower.look([("wg0", PEER)])
    assert held(host) == (HOST_PREFIX, set())
    hear(host, 77)
    follower.look([("wg0", PEER)])
    assert held(host) == (set(), HOST_PREFIX)


def test_what_was_moved_on_trial_comes_back_only_by_a_sign(host) -> None:
    """The handshake of before the trial is none."""
    follower = Follower(host)
    hear(host, 7, at=100)
    follower.look([("wg0", PEER)])
    assert follower.try_other("wg0", PEER) == key(77)
    follower.give("wg0", PEER, key(77))
    follower.look([("wg0", PEER)])
    assert held(host) == (set(), HOST_PREFIX)
    assert follower.try_other("wg0", PEER) == key(7)


def test_where_an_entry_is_missing_nothing_is_done(host) -> None:
    """An apply is under way, or the device is gone; a neighbour with one key is not looked at."""
    del host.kernel.devices["wg0"].peers[key(7)]
    follower = Follower(host)
    hear(host, 77, at=100)
    follower.look([("wg0", PEER), ("wg9", PEER)])
    assert entry(host, 77).allowed_ips == set()
    host.kernel.ran.clear()
    follower.look([("wg0", peer(7))])
    assert host.kernel.ran == []


def test_when_the_old_key_goes_the_new_one_is_not_touched(host) -> None:
    """If it has the prefixes already, the entry stays as it is, session and all; else it gets them first."""
    follower = Follower(host)
    hear(host, 77, at=100)
    follower.look([("wg0", PEER)])
    host.kernel.touched.clear()
    after = leaf(direct=(replace(PEER, public_key=key(77), next_key=None),))
    apply.apply(host, after)
    assert host.kernel.touched == [("wg0", key(7))]
    assert set(host.kernel.devices["wg0"].peers) == {key(77)}


def test_without_a_watcher_an_apply_gives_the_new_key_the_prefixes(host) -> None:
    apply.apply(host, leaf(direct=(replace(PEER, public_key=key(77), next_key=None),)))
    assert entry(host, 77).allowed_ips == HOST_PREFIX
    assert entry(host, 77).keepalive == 25
    assert set(host.kernel.devices["wg0"].peers) == {key(77)}


def test_both_keys_are_told_apart_for_a_person() -> None:
    assert wanted.labels(VIEW)[key(77)] == "n7 (next key)"


def test_at_boot_both_keys_are_there(host) -> None:
    """wg-quick takes a peer without AllowedIPs."""
    text = (host.conf_dir / "wg0.conf").read_text()
    _, one, other = text.split("[Peer]")
    assert {f"PublicKey = {key(7)}" in one, f"PublicKey = {key(7)}" in other} == {True, False}
    assert text.count("AllowedIPs") == 1
