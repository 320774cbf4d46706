"""Power that goes at any moment leaves each file old or new, and nothing that one more run does not set right.

Two ways to die. ``Mortal`` lets an apply end at its n-th step, and from then on nothing that the process would still do
takes effect; the kernel of the node is one of values, and lives on. ``kill_at`` is a real SIGKILL, at the n-th call
into C, in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from saltext_wgmesh.core import routes, wanted
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.core.types import View
from saltext_wgmesh.minion import apply, boot, files, keys, linkfile
from saltext_wgmesh.minion.store import Owned, Store
from tests.nodeviews import leaf, named, peer, relay
from tests.unit import fakehost
from tests.unit.fakehost import FakeHost, Kernel, with_ipv6

OLD = relay(leaves=(peer(7), peer(8)), trunks=(2, 3))
NEW = relay(leaves=(peer(7, endpoint="192.0.2.7:51820"), peer(9)), trunks=(3, 4))
LEAF = leaf(direct=(peer(7, endpoint="192.0.2.7:51820", keepalive=25),))
ENOUGH = 2_000
"""Steps that nothing here has."""
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
"""All that an apply does to the world."""


class Killed(BaseException):
    """The power went."""


class Mortal:
    """Within, the *last* + 1st of ``STEPS`` is not done, nor any after it; of what was not synced, half is lost."""

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
    """*work* is done, each time one step further, until it is not cut short any more; after each death, its number."""
    for last in range(ENOUGH):
        try:
            with Mortal(last):
                work()
        except Killed:
            yield last
            continue
        return
    raise AssertionError("it never came to an end")


def node(folder: Path, *, systemd: bool = False) -> FakeHost:
    """A node with a key and nothing else."""
    folder.mkdir(exist_ok=True)
    host = FakeHost.below(folder, Kernel(sysctls=with_ipv6()))
    if systemd:
        host.systemd_dir.mkdir()
    host.kernel.public_key = keys.ensure(host)
    return host


def texts(host: FakeHost) -> dict[str, bytes]:
    """File → what stands in it; locks and what broken writes leave aside."""
    found = (path for path in host.conf_dir.parent.rglob("*") if path.is_file())
    return {str(p): p.read_bytes() for p in found if not p.name.endswith((".lock", ".partial"))}


def leftovers(host: FakeHost) -> list[Path]:
    """What broken writes left."""
    return [path for path in host.conf_dir.parent.rglob(".*") if path.name.endswith(".partial")]


def assert_closed(host: FakeHost) -> None:
    """Nothing is open to others, and there is a key wherever there is a file that brings up an interface."""
    for path in host.conf_dir.parent.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert keys.public_key(host) == host.kernel.public_key or not list(host.conf_dir.glob("*.conf"))


def assert_each_old_or_new(host: FakeHost, old: dict[str, bytes], new: dict[str, bytes]) -> None:
    """Each file is there as before or as it is to be; what is called ours may be both."""
    for name, text in texts(host).items():
        if name.endswith("owned.json"):
            assert json.loads(text).keys() == {"interfaces", "prefixes"}
        else:
            assert text in (old.get(name), new.get(name)), name
    for name in old.keys() & new.keys():
        assert Path(name).exists()


# --- an apply, and a removal -------------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "systemd"), [(OLD, True), (LEAF, False)])
def test_a_first_apply_that_is_cut_short_anywhere_is_finished_by_the_next(tmp_path, view, systemd):
    """No file is half written or open to others on the way, and nothing is left behind in the end."""
    count = 0
    for last in range(ENOUGH):
        host = node(tmp_path / str(last), systemd=systemd)
        done = False
        with contextlib.suppress(Killed), Mortal(last):
            apply.apply(host, view)
            done = True
        assert_closed(host)
        apply.apply(host, view)
        assert apply.apply(host, view).lines == []
        assert leftovers(host) == []
        count = last
        if done:
            break
    assert count > 20


def test_an_apply_of_another_view_that_is_cut_short_anywhere_is_finished_by_the_next(tmp_path):
    """Files are old or new at each step; the view after the next leads on from there as well."""
    whole = node(tmp_path / "whole")
    apply.apply(whole, OLD)
    apply.apply(whole, NEW)
    for last in range(ENOUGH):
        host = node(tmp_path / f"n{last}")
        apply.apply(host, OLD)
        old, new = texts(host), _as_in(host, whole)
        done = False
        with contextlib.suppress(Killed), Mortal(last):
            apply.apply(host, NEW)
            done = True
        assert_each_old_or_new(host, old, new)
        assert_closed(host)
        apply.apply(host, LEAF if last % 2 else NEW)
        final = LEAF if last % 2 else NEW
        assert apply.apply(host, final).lines == []
        assert set(host.kernel.devices) == {i.name for i in final.interfaces}
        assert leftovers(host) == []
        if done:
            assert last > 20
            return


@pytest.fixture
def obedient(monkeypatch):
    """A watcher that has each link at rest as soon as it is asked to, and up as soon as it is not."""
    up = {n: Link(neighbour=n, interface="", state=LinkState.UP, since=0.0, heeded=True) for n in ("n2", "n7")}
    report = LinkReport(mesh="wg0", watched=True, links=MappingProxyType(up))
    monkeypatch.setattr(linkfile, "read", lambda _host, _mesh: report)


def test_other_names_that_are_cut_short_anywhere_are_finished_by_the_next(tmp_path, obedient):
    """Also where the next has them go back. Nothing of either name is left over, and no two devices with one port."""
    view = relay(leaves=(peer(7, endpoint="192.0.2.7:51820"),), trunks=(2,))
    for last in range(ENOUGH):
        host = node(tmp_path / f"n{last}")
        apply.apply(host, view)
        done = False
        with contextlib.suppress(Killed), Mortal(last):
            apply.apply(host, named(view, "office0"))
            done = True
        final = view if last % 2 else named(view, "office0")
        apply.apply(host, final)
        assert apply.apply(host, final).lines == []
        names = {i.name for i in final.interfaces}
        assert set(host.kernel.devices) == names == Store(host=host, mesh="wg0").owned().interfaces
        assert {path.stem for path in host.conf_dir.glob("*.conf")} == names
        assert {device for _, device, _ in host.kernel.rules} == {i.name for i in final.interfaces[1:]}
        assert [path for path in leftovers(host) if path.parent == host.conf_dir] == []
        if done:
            assert last > 40
            return


def _as_in(host: FakeHost, other: FakeHost) -> dict[str, bytes]:
    """The files of *other*, as they would be called and worded at *host*."""
    here, there = str(host.conf_dir.parent), str(other.conf_dir.parent)
    return {n.replace(there, here): t.replace(there.encode(), here.encode()) for n, t in texts(other).items()}


@pytest.mark.parametrize("with_key", [False, True])
def test_a_removal_that_is_cut_short_anywhere_is_finished_by_the_next(tmp_path, with_key):
    """Nothing is left in the end but the key, or not even that; until then no file lacks its key."""
    steps = 0
    for last in range(ENOUGH):
        host = node(tmp_path / f"n{last}", systemd=True)
        apply.apply(host, OLD)
        done = False
        with contextlib.suppress(Killed), Mortal(last):
            _leave(host, with_key)
            done = True
        assert_closed(host)
        _leave(host, with_key)
        assert (host.kernel.devices, host.kernel.routes, host.kernel.rules) == ({}, {}, set())
        assert list(texts(host)) == ([] if with_key else [str(host.key_file)])
        assert leftovers(host) == []
        steps = last
        if done:
            break
    assert steps > 20


def _leave(host: FakeHost, with_key: bool) -> None:
    apply.remove(host, "wg0")
    if with_key:
        keys.remove(host)


def test_after_a_removal_that_was_cut_short_the_mesh_can_come_back(tmp_path):
    """An apply in the place of the second removal."""
    for last in range(ENOUGH):
        host = node(tmp_path / f"n{last}")
        apply.apply(host, OLD)
        done = False
        with contextlib.suppress(Killed), Mortal(last):
            apply.remove(host, "wg0")
            done = True
        apply.apply(host, OLD)
        assert apply.apply(host, OLD).lines == []
        if done:
            return


def test_files_for_boot_that_are_cut_short_anywhere_are_finished_by_the_next(tmp_path):
    """Each is whole and of one view or the other, whatever was written until then."""
    host = node(tmp_path / "n")
    for view, other in ((OLD, NEW), (NEW, OLD)) * 2:
        boot.write(host, "wg0", _state(host, other))
        old = texts(host)
        boot.write(host, "wg0", _state(host, view))
        new = texts(host)
        boot.write(host, "wg0", _state(host, other))
        for _ in deaths(lambda: boot.write(host, "wg0", _state(host, view))):  # noqa: B023
            assert_each_old_or_new(host, old, new)
            assert_closed(host)
            boot.write(host, "wg0", _state(host, other))
            assert texts(host) == old
            assert leftovers(host) == []


def _state(host: FakeHost, view: View) -> Any:
    own = wanted.Own(public_key=host.kernel.public_key, families=frozenset({4, 6}), advertised=())
    return wanted.state(view, routes.choose(view), own)


def test_leftovers_of_an_interface_that_is_not_wanted_any_more_go(tmp_path):
    """Also when no other write of that file follows; those of another mesh, whose name begins alike, stay."""
    host = node(tmp_path / "n")
    for name in (".wg0-t9.conf.partial", ".wg0.conf.partial", ".wg00.conf.partial"):
        host.conf_dir.joinpath(name).write_text("half")
    apply.apply(host, LEAF)
    assert [path.name for path in leftovers(host)] == [".wg00.conf.partial"]


# --- really killed -----------------------------------------------------------------------------------------


def kill_at(number: int, work: Callable[[], object]) -> bool:
    """*work* is done in a process of its own, which dies at the *number*-th call into C that our own files make, or
    return from one; whether it died."""
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
    """After each death, its number; the last time *work* is done in full."""
    for number in range(ENOUGH):
        if not kill_at(number, work):
            assert number > 10
            return
        yield number


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_a_write_that_is_killed_leaves_the_old_or_the_new(tmp_path):
    """With the mode asked for; at most one leftover at any time, and none after the next write."""
    path = tmp_path / "f"
    files.write(path, "old")
    for _ in every_kill(lambda: files.write(path, "new" * 10_000)):
        assert path.read_text() in ("old", "new" * 10_000)
        assert modes(tmp_path) == {0o600}
        assert len(list(tmp_path.iterdir())) <= 2
        files.write(path, "old")
        assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert path.read_text() == "new" * 10_000


def test_leftovers_do_not_pile_up_though_every_write_is_killed(tmp_path):
    """They take each other's place."""
    path = tmp_path / "f"
    for _ in every_kill(lambda: files.write(path, "new")):
        assert {p.name for p in tmp_path.iterdir()} <= {"f", ".f.partial"}
    files.remove(path)
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_that_is_open_to_others_takes_no_secret(tmp_path, monkeypatch):
    """It is closed before anything is written to it."""
    partial = tmp_path / ".f.partial"
    partial.write_text("x" * 100)
    partial.chmod(0o644)
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda fd: (seen.append(stat.S_IMODE(os.fstat(fd).st_mode)), fsync(fd)))
    files.write(tmp_path / "f", "secret")
    assert seen[0] == 0o600
    assert ((tmp_path / "f").read_text(), modes(tmp_path)) == ("secret", {0o600})


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """A full disk is told, and the old file stays."""
    files.write(tmp_path / "f", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            files.write(tmp_path / "f", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "old")]


def test_a_key_that_is_killed_in_the_making_is_there_whole_or_not_at_all(tmp_path):
    """Readable by its owner alone at every moment; the next run makes one, and from then on it stays the same."""
    host = FakeHost.below(tmp_path, Kernel())
    for _ in every_kill(lambda: keys.ensure(host)):
        assert modes(tmp_path) <= {0o600}
        found = keys.public_key(host)
        assert keys.ensure(host) == (found or keys.public_key(host))
        assert leftovers(host) == []
        keys.remove(host)
        assert leftovers(host) == []


def test_permissions_that_are_mended_and_killed_leave_the_key(tmp_path):
    host = FakeHost.below(tmp_path, Kernel())
    made = keys.ensure(host)
    host.key_file.chmod(0o644)
    for _ in every_kill(lambda: keys.ensure(host)):
        assert keys.public_key(host) == made
        host.key_file.chmod(0o644)
    assert keys.mode(host) == 0o600


def test_a_memory_that_is_killed_in_the_keeping_is_of_one_view_or_the_other(tmp_path):
    """So is what it calls its own."""
    store = Store(host=FakeHost.below(tmp_path, Kernel()), mesh="wg0")
    few, many = Owned(interfaces=frozenset({"wg0"})), Owned(interfaces=frozenset({"wg0", "wg0-t2"}))

    def keep(view: View, owned: Owned) -> None:
        store.own(owned)
        store.keep(view)

    keep(OLD, few)
    for _ in every_kill(lambda: keep(NEW, many)):
        assert store.view() in (OLD, NEW)
        assert store.previous() in (None, OLD, NEW)
        assert store.owned() in (few, many)
        assert store.view() == OLD or store.owned() == many
        keep(OLD, few)
        assert store.view() == OLD
    assert (store.view(), store.previous()) == (NEW, OLD)
