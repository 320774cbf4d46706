"""One minion of a host holds the host's key and meshes; other minions of that host change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.state import key_holder, keys
from saltext_wgmesh.minion.state.key_holder import Minion
from saltext_wgmesh.minion.state.store import Owned, Store
from tests import nodeviews
from tests.unit.harness.fakehost import FakeHost, Kernel


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """A host without a mesh."""
    return FakeHost.below(tmp_path, Kernel())


def minion(folder: Path, name: str) -> Minion:
    """A minion with a Salt key of its own below *folder*."""
    pki = folder / name
    pki.mkdir(exist_ok=True)
    (pki / "minion.pem").touch()
    return Minion(id=name, pki_dir=str(pki))


def test_second_minion_of_host_is_refused(host: FakeHost, tmp_path: Path) -> None:
    """The first minion that takes hold keeps it; the error names both, and the command for the second one."""
    first, second = minion(tmp_path, "web1"), minion(tmp_path, "web1-app")
    key_holder.take_hold(host, first)
    key_holder.take_hold(host, first)
    for refused in (key_holder.require_holder, key_holder.take_hold):
        with pytest.raises(HostError, match=r"belongs to its minion web1 .*not to web1-app.*salt web1-app mine.delete"):
            refused(host, second)
    key_holder.require_holder(host, first)


def test_copied_disk_may_go_on(host: FakeHost, tmp_path: Path) -> None:
    """A minion with another id and the same folder is on a copy of the disk, or was renamed: it is not refused."""
    first = minion(tmp_path, "web1")
    key_holder.take_hold(host, first)
    key_holder.take_hold(host, Minion(id="web2", pki_dir=first.pki_dir))


def test_minion_that_moved_its_folder_goes_on(host: FakeHost, tmp_path: Path) -> None:
    """If the recorded minion has no Salt key there any longer, another one takes its place."""
    first, second = minion(tmp_path, "web1"), minion(tmp_path, "moved")
    key_holder.take_hold(host, first)
    Path(first.pki_dir, "minion.pem").unlink()
    key_holder.take_hold(host, second)


@pytest.fixture
def view(host: FakeHost) -> View:
    """The view that a minion of this host applied before there was a record."""
    applied = nodeviews.leaf()
    store = Store(host=host, mesh=applied.mesh)
    store.set_owned(Owned.by(applied))
    store.set_view(applied)
    return applied


def test_renamed_minion_without_record_goes_on(
    host: FakeHost, tmp_path: Path, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The views name its former id. There is no minion with Salt's own folder that they could belong to."""
    monkeypatch.setattr(key_holder, "DEFAULT_PKI_DIR", str(tmp_path / "none"))
    key_holder.take_hold(host, minion(tmp_path, f"new-{view.node}"))


def test_host_without_record_belongs_by_view(
    host: FakeHost, tmp_path: Path, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade, the minion that the applied views name holds the host, or the one with Salt's own folder."""
    monkeypatch.setattr(key_holder, "DEFAULT_PKI_DIR", minion(tmp_path, "main").pki_dir)
    with pytest.raises(HostError, match=f"belongs to its minion {view.node}"):
        key_holder.take_hold(host, minion(tmp_path, "second"))
    key_holder.require_holder(host, Minion(id="copy", pki_dir=key_holder.DEFAULT_PKI_DIR))
    key_holder.take_hold(host, minion(tmp_path, view.node))


@pytest.mark.parametrize("text", ["", "half", "[]", "{}", "null"])
def test_damaged_record_is_replaced(host: FakeHost, tmp_path: Path, text: str) -> None:
    """A record that can't be read holds no minion back."""
    holder = key_holder.holder_file(host)
    holder.parent.mkdir(parents=True)
    holder.write_text(text)
    key_holder.take_hold(host, minion(tmp_path, "web1"))
    assert '"web1"' in holder.read_text()


def test_record_goes_with_key(host: FakeHost, tmp_path: Path) -> None:
    """Without a key, any minion of the host may make one."""
    key_holder.take_hold(host, minion(tmp_path, "web1"))
    keys.ensure(host)
    keys.remove_keys(host)
    assert list(host.key_file.parent.iterdir()) == []
