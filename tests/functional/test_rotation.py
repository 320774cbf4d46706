"""A neighbour that changes its key, on real devices: its prefixes and its session follow."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.system.peer_keys import PeerKeyTracker
from tests.lab.wait import wait_until
from tests.nodeviews import leaf, peer

PORT = 52007


def pair(path: Path) -> str:
    """Write a new private key to the file and return its public key."""
    private = subprocess.run(["wg", "genkey"], check=True, capture_output=True, text=True).stdout
    path.write_text(private)
    path.chmod(0o600)
    done = subprocess.run(["wg", "pubkey"], input=private, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Neighbour:
    """n7: a second device on this machine, which opens the session and sends each second."""

    def __init__(self, folder: Path, outside, ours: str) -> None:
        self.outside = outside
        self.files = {name: folder / name for name in ("old", "new")}
        self.keys = {name: pair(path) for name, path in self.files.items()}
        _make_device(outside)
        outside("wg", "set", "far", "listen-port", str(PORT), "private-key", str(self.files["old"]))
        outside("ip", "link", "set", "far", "up")
        words = ("endpoint", "127.0.0.1:51820", "persistent-keepalive", "1", "allowed-ips", "10.100.0.0/16")
        outside("wg", "set", "far", "peer", ours, *words)

    def turn(self, name: str) -> None:
        self.outside("wg", "set", "far", "private-key", str(self.files[name]))


def _make_device(outside) -> None:
    try:
        outside("ip", "link", "add", "dev", "far", "type", "wireguard")
    except AssertionError:
        Host().start("wireguard-go", "far")


@pytest.fixture
def neighbour(machine, tmp_path, outside):
    """Return the neighbour, with a present and a next key."""
    ours = keys.ensure(Host())
    return Neighbour(tmp_path, outside, ours)


def test_prefixes_follow_key_of_neighbour(neighbour, outside):
    """The prefixes move to the next key and back, as the neighbour changes its key.

    An apply finds nothing to do at any of these times, and the session of the last key survives the final view.
    """
    present, following = neighbour.keys["old"], neighbour.keys["new"]
    both = replace(peer(7, endpoint=f"127.0.0.1:{PORT}", public_key=present), next_key=following)
    view = leaf(direct=(both,), relays=())
    apply.apply(Host(), view)
    tracker = PeerKeyTracker(Host())

    def holder() -> str:
        tracker.update([("wg0", both)])
        lines = [line.split("\t") for line in outside("wg", "show", "wg0", "allowed-ips").splitlines()]
        (found,) = [key for key, allowed in lines if allowed != "(none)"]
        return found

    def heard(key: str) -> bool:
        lines = dict(line.split("\t") for line in outside("wg", "show", "wg0", "latest-handshakes").splitlines())
        return int(lines[key]) > 0

    wait_until(lambda: heard(present), 10, "a handshake with the present key")
    assert holder() == present
    for name in ("new", "old", "new"):
        neighbour.turn(name)
        wait_until(lambda name=name: holder() == neighbour.keys[name], 15, f"the prefixes to be at the {name} key")
        assert apply.apply(Host(), view, dry_run=True).lines == []
    after = replace(both, public_key=following, next_key=None)
    done = apply.apply(Host(), leaf(direct=(after,), relays=()))
    assert len(done.lines) == 2, done.lines
    assert holder() == following
    assert heard(following)
