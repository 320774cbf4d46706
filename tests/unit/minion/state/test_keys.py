"""The node's key pair: created once, readable by its owner only, and shown nowhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host
from tests.unit.harness.fakehost import FakeHost, Kernel
from tests.unit.harness.interruption import (
    every_kill,
    leftovers,
    modes,
)

# RFC 7748, section 6.1: Alice's key pair.
ALICE_PRIVATE = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
ALICE_PUBLIC = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A node whose files lie in a folder of the test."""
    return Host(key_file=tmp_path / "etc" / "k", state_dir=tmp_path / "lib")


def test_public_key_is_that_of_curve25519(host: Host) -> None:
    """The RFC's private key has the RFC's public key."""
    files.write_file(host.key_file, ALICE_PRIVATE + "\n")
    assert keys.public_key(host) == ALICE_PUBLIC
    assert keys.ensure(host) == ALICE_PUBLIC


def test_two_nodes_have_two_keys(host: Host, tmp_path: Path) -> None:
    """Keys are random, 32 bytes of base64, in one line."""
    other = Host(key_file=tmp_path / "other", state_dir=tmp_path / "lib")
    assert keys.ensure(host) != keys.ensure(other)
    assert len(host.key_file.read_bytes()) == 45


def test_key_file_is_never_readable_by_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even before it has its name the file is 0600, whatever the umask."""
    seen = []
    replaced = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(stat.S_IMODE(os.stat(a).st_mode)), replaced(a, b)))
    before = os.umask(0)
    try:
        keys.ensure(host)
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert keys.mode(host) == 0o600


@pytest.mark.parametrize("text", ["", "short", ALICE_PRIVATE[:-5], "!" * 44, "é" * 22, ALICE_PRIVATE + ALICE_PRIVATE])
def test_damaged_key_is_kept_and_not_shown(host: Host, text: str) -> None:
    """The error names the file; its content stays there."""
    files.write_file(host.key_file, text)
    with pytest.raises(HostError, match=str(host.key_file)) as caught:
        keys.ensure(host)
    assert host.key_file.read_text() == text
    assert not text or text not in str(caught.value)


def test_failed_creation_leaves_no_file(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fails before the file has its name, the next run creates a key."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            keys.ensure(host)
    assert list(host.key_file.parent.iterdir()) == []
    assert keys.ensure(host) == keys.public_key(host)


def test_missing_key_is_none(host: Host) -> None:
    """A node without a key is no error."""
    assert keys.public_key(host) is None
    assert keys.mode(host) is None
    keys.remove_keys(host)


def test_next_key_lies_beside_present_one(host: Host) -> None:
    """It has the same permissions, and a second call keeps it. It runs only once the view activates it."""
    present = keys.ensure(host)
    following = keys.create_next_key(host)
    assert keys.create_next_key(host) == keys.next_key(host) == following != present == keys.public_key(host)
    assert stat.S_IMODE(keys.next_file(host).stat().st_mode) == 0o600
    assert keys.key_to_run(host, None) == keys.key_to_run(host, ALICE_PUBLIC) == present
    assert keys.key_to_run(host, following) == following
    assert (keys.path_of(host, following), keys.path_of(host, present)) == (keys.next_file(host), host.key_file)


def test_next_key_needs_a_present_one(host: Host) -> None:
    """The error says what creates the first key."""
    with pytest.raises(HostError, match="does not exist"):
        keys.create_next_key(host)


def test_promoted_key_destroys_the_old_one(host: Host) -> None:
    """Even a process that holds the old file open finds no key in it."""
    keys.ensure(host)
    following = keys.create_next_key(host)
    with host.key_file.open("rb") as old:
        keys.promote_next_key(host)
        assert set(old.read()) == {0}
    assert keys.public_key(host) == following
    assert keys.next_key(host) is None
    assert keys.mode(host) == 0o600
    assert [p.name for p in host.key_file.parent.iterdir()] == ["k"]


def test_failed_promotion_leaves_a_key(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try then succeeds or has succeeded."""
    present = keys.ensure(host)
    following = keys.create_next_key(host)
    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(OSError, match="disk full"):
                keys.promote_next_key(host)
        assert keys.public_key(host) in (present, following)
    assert keys.public_key(host) == following


def test_next_key_replaces_lost_one(host: Host) -> None:
    """Neighbours may accept it already."""
    keys.ensure(host)
    following = keys.create_next_key(host)
    host.key_file.unlink()
    assert keys.ensure(host) == following
    assert keys.next_key(host) is None


def test_removal_leaves_no_key(host: Host) -> None:
    """The next key is deleted too."""
    keys.ensure(host)
    keys.create_next_key(host)
    keys.remove_keys(host)
    assert list(host.key_file.parent.iterdir()) == []


def test_killed_creation_leaves_whole_key_or_none(tmp_path):
    """The file is readable by its owner only, and the next run completes the work."""
    host = FakeHost.below(tmp_path, Kernel())
    for _ in every_kill(lambda: keys.ensure(host)):
        assert modes(tmp_path) <= {0o600}
        found = keys.public_key(host)
        assert keys.ensure(host) == (found or keys.public_key(host))
        assert leftovers(host) == []
        keys.remove_keys(host)
        assert leftovers(host) == []


def test_killed_permission_change_leaves_the_key(tmp_path):
    """The key is the same, and the next run corrects the permissions."""
    host = FakeHost.below(tmp_path, Kernel())
    made = keys.ensure(host)
    host.key_file.chmod(0o644)
    for _ in every_kill(lambda: keys.ensure(host)):
        assert keys.public_key(host) == made
        host.key_file.chmod(0o644)
    assert keys.mode(host) == 0o600
