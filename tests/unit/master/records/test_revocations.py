"""A revoked key is found by a cheap look, and told unless its loss is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saltext_wgmesh.master.records import inventory, mesh_records, revocations
from saltext_wgmesh.master.records.revocations import KeyWatch, untold
from tests.unit.harness.fake_master import FakeMaster


class Keys:
    """The accepted keys of a master, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "minions"
        self.folder.mkdir()
        self.opts: dict[str, Any] = {"pki_dir": str(folder), "keys.cache_driver": "localfs_key"}
        self.reads = 0

    def read(self, _opts: dict[str, Any]) -> dict[str, str]:
        self.reads += 1
        return {path.name: path.read_text() for path in self.folder.iterdir()}


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    found = Keys(tmp_path)
    for node in "ab":
        (found.folder / node).write_text(node)
    monkeypatch.setattr(inventory, "accepted_keys", found.read)
    return found


def test_look_reads_keys_after_change_only(keys: Keys) -> None:
    """A thousand looks cost one read, another key one more, and a revoked one is found at the next look."""
    watch = KeyWatch(keys.opts, {"a": "a", "b": "b"})
    assert not any(watch() for _ in range(1000))
    assert keys.reads == 1
    (keys.folder / "c").write_text("c")
    assert not any(watch() for _ in range(1000))
    (keys.folder / "b").unlink()
    assert watch()
    (keys.folder / "b").write_text("b")
    assert watch()
    assert keys.reads == 3


def test_look_at_other_store_is_seldom(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are in no folder are read twice a second."""
    now = [0.0]
    monkeypatch.setattr(revocations.time, "monotonic", lambda: now[0])
    watch = KeyWatch({**keys.opts, "keys.cache_driver": "redis"}, {"a": "a", "b": "b"})
    for _ in range(100):
        watch()
        now[0] += 0.02
    assert keys.reads <= 5
    (keys.folder / "b").unlink()
    now[0] += 0.5
    assert watch()


def test_changed_key_is_revoked(keys: Keys) -> None:
    """The minion id alone does not tell that it is another minion."""
    watch = KeyWatch(keys.opts, {"a": "a", "b": "another"})
    assert watch()


def test_held_loss_is_not_told_first() -> None:
    """A member whose removal waits for the operator puts off no survey, until it is confirmed."""
    master = FakeMaster()
    master.policy["wg0"]["prune_guard"] = 1
    master.run()
    master.deleted = {"a", "b"}
    master.run()
    meshes = mesh_records.read_snapshot(master.ledger).meshes.values()
    (loss,) = [records.guard.held for records in meshes]
    assert loss
    accepted = master.inventory().accepted
    assert untold(meshes, accepted, ()) == set()
    assert {node for node, _ in untold(meshes, accepted, {loss.digest})} == {"a", "b"}
