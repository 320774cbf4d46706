"""A neighbour that turns to another key, on real devices: its prefixes follow, and the session with them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from saltext_wgmesh.minion import apply, keys
from saltext_wgmesh.minion.following import Follower
from saltext_wgmesh.minion.host import Host
from tests.lab.wait import wait_until
from tests.nodeviews import leaf, peer

PORT = 52007


def pair(path: Path) -> str:
    """A private key is in the file; this is the public one."""
    private = subprocess.run(["wg", "genkey"], check=True, capture_output=True, text=True).stdout
    path.write_text(private)
    path.chmod(0o600)
    done = subprocess.run(["wg", "pubkey"], input=private, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Neighbour:
    """n7: a device beside ours, which opens the session and speaks each second."""

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
    except subprocess.CalledProcessError:
        Host().start("wireguard-go", "far")


@pytest.fixture
def neighbour(machine, tmp_path, outside):
    """Both its keys are taken."""
    ours = keys.ensure(Host())
    return Neighbour(tmp_path, outside, ours)


def test_the_prefixes_follow_the_key_that_the_neighbour_runs(neighbour, outside):
    """There and back; at no time does an apply find anything to do, and the other peer's session is not touched."""
    present, following = neighbour.keys["old"], neighbour.keys["new"]
    both = replace(peer(7, endpoint=f"127.0.0.1:{PORT}", public_key=present), next_key=following)
    view = leaf(direct=(both,), relays=())
    apply.apply(Host(), view)
    follower = Follower(Host())

    def holder() -> str:
        follower.look([("wg0", both)])
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
