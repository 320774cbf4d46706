"""Two ways to interrupt a process: at its n-th effect on the world, and by a real SIGKILL at its n-th call into C."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from saltext_wgmesh.minion.state import keys
from tests.unit.harness import fakehost
from tests.unit.harness.fakehost import FakeHost, Kernel, with_ipv6

ENOUGH = 2_000
"""More steps than anything here has."""
STEPS = [
    (os, "open"),
    (os, "ftruncate"),
    (os, "fchmod"),
    (os, "fsync"),
    (os, "replace"),
    (os, "unlink"),
    (os, "rmdir"),
    (os, "mkdir"),
    (fakehost, "_wg_set"),
    (fakehost, "_ip_line"),
    (fakehost, "_add_device"),
    (FakeHost, "set_sysctl"),
    (FakeHost, "run"),
]
"""Everything by which an apply affects the world."""


class Killed(BaseException):
    """The power failed."""


class Mortal:
    """Within the block, the *last* + 1st of STEPS and all after it fail; half of an unsynced file is lost."""

    def __init__(self, last: int) -> None:
        self.left = last
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> Mortal:
        for owner, name in STEPS:
            self.patch.setattr(owner, name, self._counted(name, getattr(owner, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def _counted(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                if name == "fsync" and self.left == -1 and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    os.truncate(args[0], os.fstat(args[0]).st_size // 2)
                raise Killed
            return step(*args, **kwargs)

        return counted


def deaths(work: Callable[[], object]) -> Iterator[int]:
    """Do *work*, each time one step further, until it ends; yield the number of each death."""
    for last in range(ENOUGH):
        try:
            with Mortal(last):
                work()
        except Killed:
            yield last
            continue
        return
    raise AssertionError("it never came to an end")


def node_with_key(folder: Path, *, systemd: bool = False) -> FakeHost:
    """Return a node with a key and nothing else. Its kernel survives the process."""
    folder.mkdir(exist_ok=True)
    host = FakeHost.below(folder, Kernel(sysctls=with_ipv6()))
    if systemd:
        host.systemd_dir.mkdir()
    host.kernel.public_key = keys.ensure(host)
    return host


def texts(host: FakeHost) -> dict[str, bytes]:
    """Return file → content, without locks and partial files."""
    found = (path for path in host.conf_dir.parent.rglob("*") if path.is_file())
    return {str(p): p.read_bytes() for p in found if not p.name.endswith((".lock", ".partial"))}


def leftovers(host: FakeHost) -> list[Path]:
    """Return the partial files of interrupted writes."""
    return [path for path in host.conf_dir.parent.rglob(".*") if path.name.endswith(".partial")]


def assert_closed(host: FakeHost) -> None:
    """Assert that no file is readable by others, and that the key exists if there is a boot file."""
    for path in host.conf_dir.parent.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert keys.public_key(host) == host.kernel.public_key or not list(host.conf_dir.glob("*.conf"))


def kill_at(number: int, work: Callable[[], object]) -> bool:
    """Do *work* in a process that is killed at the *number*-th call into C of our files; return whether it died.

    Returns from C count too.
    """
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    left = number

    def count(frame: Any, event: str, _what: Any) -> None:
        nonlocal left
        if event in ("c_call", "c_return") and "saltext_wgmesh/minion" in frame.f_code.co_filename:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.setprofile(count)
        work()
        sys.setprofile(None)
    except BaseException:
        os._exit(1)
    os._exit(0)


def every_kill(work: Callable[[], object]) -> Iterator[int]:
    """Yield the number of each kill; the last time, *work* ends."""
    for number in range(ENOUGH):
        if not kill_at(number, work):
            assert number > 10
            return
        yield number


def modes(folder: Path) -> set[int]:
    """Return the permissions of all files in *folder*."""
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
