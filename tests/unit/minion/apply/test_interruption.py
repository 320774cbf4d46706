"""Applies and removals that are interrupted anywhere: each file is old or new, and the next run finishes the work."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from saltext_wgmesh.core.device import desired, route_selection
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import apply, removal
from saltext_wgmesh.minion.state import boot_files, keys, link_report_file
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import leaf, named, peer, relay
from tests.unit.harness.fakehost import FakeHost
from tests.unit.harness.interruption import (
    ENOUGH,
    Killed,
    Mortal,
    assert_closed,
    deaths,
    leftovers,
    node_with_key,
    texts,
)

OLD = relay(leaves=(peer(7), peer(8)), trunks=(2, 3))
NEW = relay(leaves=(peer(7, endpoint="192.0.2.7:51820"), peer(9)), trunks=(3, 4))
LEAF = leaf(direct=(peer(7, endpoint="192.0.2.7:51820", keepalive=25),))


def assert_each_old_or_new(host: FakeHost, old: dict[str, bytes], new: dict[str, bytes]) -> None:
    """Assert that each file is as before or as it is to be; what is recorded as owned may be both.

    The moment of the apply differs in each run.
    """
    for name, text in texts(host).items():
        if name.endswith("owned.json"):
            assert json.loads(text).keys() == {"interfaces", "prefixes"}
        elif name.endswith("applied.json"):
            assert len(json.loads(text)) == 2
        else:
            assert text in (old.get(name), new.get(name)), name
    for name in old.keys() & new.keys():
        assert Path(name).exists()


@pytest.mark.parametrize(("view", "systemd"), [(OLD, True), (LEAF, False)])
def test_interrupted_first_apply_is_finished_by_next(tmp_path, view, systemd):
    """No file is half written or readable by others meanwhile, and nothing is left over in the end."""
    count = 0
    for last in range(ENOUGH):
        host = node_with_key(tmp_path / str(last), systemd=systemd)
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


def test_interrupted_second_apply_is_finished_by_next(tmp_path):
    """Files are old or new at each step; another view can follow as well."""
    whole = node_with_key(tmp_path / "whole")
    apply.apply(whole, OLD)
    apply.apply(whole, NEW)
    for last in range(ENOUGH):
        host = node_with_key(tmp_path / f"n{last}")
        apply.apply(host, OLD)
        old, new = texts(host), _as_on(host, whole)
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
def obedient_watcher(monkeypatch):
    """A watcher that holds links down as soon as requested, and has them up right after."""
    up = {
        n: LinkStatus(neighbour=n, interface="", state=LinkState.UP, since=0.0, admin_down_acknowledged=True)
        for n in ("n2", "n7")
    }
    report = LinkReport(mesh="wg0", from_watcher=True, links=MappingProxyType(up))
    monkeypatch.setattr(link_report_file, "read_report", lambda _host, _mesh: report)


def test_interrupted_rename_is_finished_or_reverted(tmp_path, obedient_watcher):
    """Neither name is left over, and no two devices share a port."""
    view = relay(leaves=(peer(7, endpoint="192.0.2.7:51820"),), trunks=(2,))
    for last in range(ENOUGH):
        host = node_with_key(tmp_path / f"n{last}")
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


def _as_on(host: FakeHost, other: FakeHost) -> dict[str, bytes]:
    """Return the files of *other*, with the paths and texts that they have on *host*."""
    here, there = str(host.conf_dir.parent), str(other.conf_dir.parent)
    return {n.replace(there, here): t.replace(there.encode(), here.encode()) for n, t in texts(other).items()}


@pytest.mark.parametrize("with_key", [False, True])
def test_interrupted_removal_is_finished_by_next(tmp_path, with_key):
    """Nothing is left in the end but the key, if it is to stay; until then no boot file lacks its key."""
    steps = 0
    for last in range(ENOUGH):
        host = node_with_key(tmp_path / f"n{last}", systemd=True)
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
    removal.remove_mesh(host, "wg0")
    if with_key:
        keys.remove_keys(host)


def test_interrupted_removal_may_precede_an_apply(tmp_path):
    """An apply takes the place of the second removal."""
    for last in range(ENOUGH):
        host = node_with_key(tmp_path / f"n{last}")
        apply.apply(host, OLD)
        done = False
        with contextlib.suppress(Killed), Mortal(last):
            removal.remove_mesh(host, "wg0")
            done = True
        apply.apply(host, OLD)
        assert apply.apply(host, OLD).lines == []
        if done:
            return


def test_interrupted_boot_files_are_old_or_new(tmp_path):
    """Each file is whole, and of one view or the other."""
    host = node_with_key(tmp_path / "n")
    for view, other in ((OLD, NEW), (NEW, OLD)) * 2:
        boot_files.write_boot_files(host, "wg0", _state(host, other))
        old = texts(host)
        boot_files.write_boot_files(host, "wg0", _state(host, view))
        new = texts(host)
        boot_files.write_boot_files(host, "wg0", _state(host, other))
        for _ in deaths(lambda: boot_files.write_boot_files(host, "wg0", _state(host, view))):  # noqa: B023
            assert_each_old_or_new(host, old, new)
            assert_closed(host)
            boot_files.write_boot_files(host, "wg0", _state(host, other))
            assert texts(host) == old
            assert leftovers(host) == []


def _state(host: FakeHost, view: View) -> Any:
    own = desired.LocalNode(public_key=host.kernel.public_key, families=frozenset({4, 6}), advertised=())
    return desired.desired_state(view, route_selection.select_routes(view), own)


def test_partial_files_of_removed_interfaces_are_deleted(tmp_path):
    """No later write replaces them. Those of another mesh, whose name begins alike, stay."""
    host = node_with_key(tmp_path / "n")
    for name in (".wg0-t9.conf.partial", ".wg0.conf.partial", ".wg00.conf.partial"):
        host.conf_dir.joinpath(name).write_text("half")
    apply.apply(host, LEAF)
    assert [path.name for path in leftovers(host)] == [".wg00.conf.partial"]
