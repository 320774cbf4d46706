"""The node's key: made once, closed, and told to nobody."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion import files, keys
from saltext_wgmesh.minion.host import Host

# RFC 7748, section 6.1: Alice's key pair.
ALICE_PRIVATE = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
ALICE_PUBLIC = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(key_file=tmp_path / "etc" / "k", state_dir=tmp_path / "lib")


def test_the_public_key_is_that_of_curve25519(host: Host) -> None:
    """The RFC's private key has the RFC's public key."""
    files.write(host.key_file, ALICE_PRIVATE + "\n")
    assert keys.public_key(host) == ALICE_PUBLIC
    assert keys.ensure(host) == ALICE_PUBLIC


def test_two_nodes_have_two_keys(host: Host, tmp_path: Path) -> None:
    """Keys are random, 32 bytes of base64, one line."""
    other = Host(key_file=tmp_path / "other", state_dir=tmp_path / "lib")
    assert keys.ensure(host) != keys.ensure(other)
    assert len(host.key_file.read_bytes()) == 45


def test_the_file_is_never_open_to_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_damaged_key_is_kept_and_not_quoted(host: Host, text: str) -> None:
    """The error names the file; what was in it stays there and is not shown."""
    files.write(host.key_file, text)
    with pytest.raises(HostError, match=str(host.key_file)) as caught:
        keys.ensure(host)
    assert host.key_file.read_text() == text
    assert not text or text not in str(caught.value)


def test_a_crash_leaves_no_key_and_no_litter(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fails before the file has its name, there is no file at all, and the next run makes one."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            keys.ensure(host)
    assert list(host.key_file.parent.iterdir()) == []
    assert keys.ensure(host) == keys.public_key(host)


def test_no_key_yet(host: Host) -> None:
    """None is not an error."""
    assert keys.public_key(host) is None
    assert keys.mode(host) is None
    keys.remove(host)


# --- another key ---------------------------------------------------------------------------------------


def test_a_next_key_lies_beside_the_present_one(host: Host) -> None:
    """As closed as that; a second call keeps it. Nothing is to be turned to before it is named."""
    present = keys.ensure(host)
    following = keys.prepare(host)
    assert keys.prepare(host) == keys.next_key(host) == following != present == keys.public_key(host)
    assert stat.S_IMODE(keys.next_file(host).stat().st_mode) == 0o600
    assert keys.chosen(host, None) == keys.chosen(host, ALICE_PUBLIC) == present
    assert keys.chosen(host, following) == following
    assert (keys.file_of(host, following), keys.file_of(host, present)) == (keys.next_file(host), host.key_file)


def test_without_a_key_there_is_no_next_one(host: Host) -> None:
    with pytest.raises(HostError, match="is not there"):
        keys.prepare(host)


def test_the_next_key_takes_the_place_and_the_old_one_is_destroyed(host: Host) -> None:
    """Even who holds the old file open finds no key in it."""
    keys.ensure(host)
    following = keys.prepare(host)
    with host.key_file.open("rb") as old:
        keys.finish(host)
        assert set(old.read()) == {0}
    assert keys.public_key(host) == following
    assert keys.next_key(host) is None
    assert keys.mode(host) == 0o600
    assert [p.name for p in host.key_file.parent.iterdir()] == ["k"]


def test_whatever_fails_while_it_takes_the_place_there_is_a_key(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    present = keys.ensure(host)
    following = keys.prepare(host)
    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(OSError, match="disk full"):
                keys.finish(host)
        assert keys.public_key(host) in (present, following)
    assert keys.public_key(host) == following


def test_a_next_key_replaces_one_that_is_lost(host: Host) -> None:
    keys.ensure(host)
    following = keys.prepare(host)
    host.key_file.unlink()
    assert keys.ensure(host) == following
    assert keys.next_key(host) is None


def test_no_key_is_left(host: Host) -> None:
    keys.ensure(host)
    keys.prepare(host)
    keys.remove(host)
    assert list(host.key_file.parent.iterdir()) == []
