"""Files are replaced whole and durably, also by a process that is killed, and a lock ends with its holder."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import re
import stat
from pathlib import Path

import pytest

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.system import files
from tests.unit.harness.interruption import (
    every_kill,
    modes,
)


def test_written_file_is_replaced_whole(tmp_path: Path) -> None:
    """The old text gives way to the new, and nothing is left beside it."""
    path = tmp_path / "a" / "b"
    files.write_file(path, "one")
    files.write_file(path, "two", mode=0o644)
    assert files.read_file(path) == "two"
    assert [p.name for p in path.parent.iterdir()] == ["b"]
    files.remove_file(path)
    files.remove_file(path)
    assert files.read_file(path) is None


def _hold(path: Path, inside, leave) -> None:
    with files.locked(path):
        inside.set()
        leave.wait(10)


def test_lock_excludes_others_and_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits too long gets an error with the path of the lock. The lock ends with its holder."""
    monkeypatch.setattr(files, "FILE_LOCK_TIMEOUT", 0.2)
    path = tmp_path / "wg0.lock"
    context = multiprocessing.get_context("fork")
    inside, leave = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(path, inside, leave))
    holder.start()
    inside.wait(10)
    with pytest.raises(HostError, match=str(path)), files.locked(path):
        pass
    leave.set()
    holder.join()
    with files.locked(path):
        pass


def test_holder_is_found_on_every_file_system(tmp_path, monkeypatch):
    """Device numbers as of btrfs, where stat(2) and the kernel's list of locks give different ones, do not matter."""
    monkeypatch.setattr(os, "minor", lambda _device: 4095)
    path = tmp_path / "wg0.lock"
    assert not files.is_locked(path)
    assert files.holder(path, Path("/proc")) is None
    with files.locked(path):
        assert files.is_locked(path)
        assert files.holder(path, Path("/proc")) == os.getpid()
    assert not files.is_locked(path)
    assert files.holder(path, Path("/proc")) is None


def test_question_for_a_lock_leaves_it_free(tmp_path):
    """A process that asks neither takes another such process for the holder nor keeps the lock."""
    path = tmp_path / "wg0.lock"
    path.touch()
    with path.open() as asked:
        fcntl.flock(asked, fcntl.LOCK_SH)
        assert not files.is_locked(path)
    with files.locked(path):
        pass


def test_killed_write_leaves_old_or_new(tmp_path):
    """The file has the requested mode. There is at most one partial file, and none after the next write."""
    path = tmp_path / "f"
    files.write_file(path, "old")
    for _ in every_kill(lambda: files.write_file(path, "new" * 10_000)):
        assert path.read_text() in ("old", "new" * 10_000)
        assert modes(tmp_path) == {0o600}
        assert len(list(tmp_path.iterdir())) <= 2
        files.write_file(path, "old")
        assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert path.read_text() == "new" * 10_000


def test_partial_files_replace_each_other(tmp_path):
    """Even if every write is killed, there is only one."""
    path = tmp_path / "f"
    for _ in every_kill(lambda: files.write_file(path, "new")):
        assert {p.name for p in tmp_path.iterdir()} <= {"f", ".f.partial"}
    files.remove_file(path)
    assert list(tmp_path.iterdir()) == []


def test_readable_partial_file_is_closed_first(tmp_path, monkeypatch):
    """Its permissions are restricted before anything is written to it."""
    partial = tmp_path / ".f.partial"
    partial.write_text("x" * 100)
    partial.chmod(0o644)
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda fd: (seen.append(stat.S_IMODE(os.fstat(fd).st_mode)), fsync(fd)))
    files.write_file(tmp_path / "f", "secret")
    assert seen[0] == 0o600
    assert ((tmp_path / "f").read_text(), modes(tmp_path)) == ("secret", {0o600})


def test_failed_write_leaves_old_file(tmp_path, monkeypatch):
    """A full disk is an error, and no partial file is left."""
    files.write_file(tmp_path / "f", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            files.write_file(tmp_path / "f", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "old")]


def test_full_disk_is_named(tmp_path, monkeypatch):
    """The system's error of a full disk has no name. The error that is raised has the path of the file."""

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "view.json"))) as caught:
        files.write_file(tmp_path / "view.json", "text")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
