"""Files that the former version of the package left: an upgraded node still reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from saltext_wgmesh.core.errors import RolledBack
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import assignments, await_push, health_check, journal, preconditions
from saltext_wgmesh.minion.state import keys, store
from saltext_wgmesh.minion.state.store import RolledBackView, Store
from saltext_wgmesh.minion.state.view_result import ViewResult
from tests.nodeviews import leaf
from tests.unit.harness.fakehost import FakeHost

FORMER_PENDING = {
    "view": leaf(relays=(1, 2)).as_dict(),
    "asked": "digest of the view that was asked for",
    "held": leaf(relays=(1,)).as_dict(),
    "previous": None,
    "up": ["n1"],
    "master": ["10.100.0.7", 4505],
    "awaited": ["n1"],
    "one_of": {"no relay": ["n1", "n2"], "nobody on wg0": ["n7"]},
    "boot": "4711",
}


@pytest.fixture
def folder(host: FakeHost) -> Path:
    """The folder of the mesh wg0, which has been applied."""
    found = Store(host=host, mesh="wg0")
    found.set_view(leaf())
    found.set_owned(store.Owned.by(leaf()))
    return found.folder


def test_pending_apply_of_former_version_is_recovered(host: FakeHost, folder: Path) -> None:
    """The journal is found, and read with the names of this version."""
    (folder / "unjudged.json").write_text(json.dumps(FORMER_PENDING))
    assert journal.interrupted(host) == ["wg0"]
    pending = journal.read_pending(Store(host=host, mesh="wg0"))
    assert pending is not None
    assert (pending.view, pending.requested_digest) == (leaf(relays=(1, 2)), FORMER_PENDING["asked"])
    attempt = pending.attempt
    assert (attempt.old_view, attempt.older_view) == (leaf(relays=(1,)), None)
    assert attempt.baseline.links_up == attempt.required == {"n1"}
    assert attempt.baseline.master == health_check.Master(address="10.100.0.7", port=4505)
    assert attempt.required_any == {"relay": {"n1", "n2"}, "neighbour on wg0": {"n7"}}
    assert pending.boot_id == "4711"


def test_pending_apply_of_former_version_is_cleared(host: FakeHost, folder: Path) -> None:
    """Neither file is left, and a new journal replaces the former one."""
    former = folder / "unjudged.json"
    former.write_text(json.dumps(FORMER_PENDING))
    found = Store(host=host, mesh="wg0")
    pending = journal.read_pending(found)
    assert pending is not None
    journal.write_pending(found, pending)
    assert (former.exists(), journal.read_pending(found)) == (False, pending)
    former.write_text(json.dumps(FORMER_PENDING))
    journal.clear_pending(found)
    assert journal.interrupted(host) == []


def test_rolled_back_view_of_former_version_is_refused(host: FakeHost, folder: Path) -> None:
    """The record counts until an apply succeeds, which deletes it under either name."""
    found, now = Store(host=host, mesh="wg0"), 1e12
    former = folder / "taken_back.json"
    former.write_text(json.dumps({"digest": leaf().digest(), "why": "n1 was lost", "at": now}))
    assert found.rolled_back() == RolledBackView(digest=leaf().digest(), reason="n1 was lost", at=now)
    former.write_text(json.dumps({"digest": leaf().digest(), "why": "n1 was lost", "at": _seconds_ago(30)}))
    with pytest.raises(RolledBack, match="n1 was lost"):
        preconditions.refuse_if_recently_rolled_back(found, leaf())
    found.set_rolled_back(None)
    assert (former.exists(), found.rolled_back()) == (False, None)


def test_new_record_replaces_former_one(host: FakeHost, folder: Path) -> None:
    """The record of a later rollback counts."""
    found, later = Store(host=host, mesh="wg0"), RolledBackView(digest="d", reason="later", at=2.0)
    (folder / "taken_back.json").write_text(json.dumps({"digest": "d", "why": "earlier", "at": 1.0}))
    found.set_rolled_back(later)
    assert (found.rolled_back(), (folder / "taken_back.json").exists()) == (later, False)


def test_purge_deletes_files_of_former_version(host: FakeHost, folder: Path) -> None:
    """A mesh of which only the former record is left is listed, and a removal leaves nothing of it."""
    found = Store(host=host, mesh="wg0")
    found.purge()
    folder.mkdir()
    for name in ("taken_back.json", "unjudged.json"):
        (folder / name).write_text("{}")
    assert store.meshes(host) == ("wg0",)
    found.purge()
    assert (store.meshes(host), folder.exists()) == ((), False)


def test_outcome_of_former_version_is_read(host: FakeHost, folder: Path) -> None:
    """A state that waits for a push reads the results that were recorded before the upgrade."""
    former = {"wg0": {"digest": "d", "generation": 7, "error": "n1 was lost", "taken_back": True}}
    (host.state_dir / store.OUTCOMES).write_text(json.dumps(former))
    (result,) = await_push.await_push(host, (0, 0), 5.0, lambda: None) or ()
    assert result == ViewResult(mesh="wg0", digest="d", generation=7, error="n1 was lost", rolled_back=True)
    assert assignments.is_stale(host, {"wg0": {"generation": 6}})


def test_view_is_read_by_one_function(host: FakeHost, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applied view, previous view and journal go through it, so a view of a former schema is read everywhere."""
    read: list[object] = []
    monkeypatch.setattr(store.former_version, "view", lambda raw: read.append(raw["mtu"]) or View.from_dict(raw))
    found = Store(host=host, mesh="wg0")
    former = {**leaf().as_dict(), "mtu": 1281}
    (folder / "view.json").write_text(json.dumps(former))
    (folder / "previous.json").write_text(json.dumps({**former, "mtu": 1282}))
    (folder / "unjudged.json").write_text(json.dumps({**FORMER_PENDING, "view": {**former, "mtu": 1283}}))
    assert (found.view(), found.previous(), journal.read_pending(found)) != (None, None, None)
    assert read[:2] == [1281, 1282]
    assert 1283 in read


def test_view_of_former_schema_is_migrated(host: FakeHost, folder: Path) -> None:
    """Schema 3 has other keys for the drained relays, the key to activate and the ids of preshared keys."""
    view = leaf()
    raw = {**view.as_dict(), "schema": 3, "drained": ["n1"], "turn_to": "another key"}
    del raw["drained_relays"]
    (folder / "view.json").write_text(json.dumps(raw))
    expected = replace(view, drained_relays=("n1",), activate_key="another key")
    assert Store(host=host, mesh="wg0").view() == expected


def test_keys_of_former_version_are_kept(host: FakeHost) -> None:
    """The key files have the names that they had: the present key, the next one and the record of an orphaned one."""
    present, following = keys.public_key(host), keys.create_next_key(host)
    assert keys.public_of(host.key_file) == present
    assert keys.public_of(host.key_file.with_name("wgmesh.key.next")) == following
    (host.state_dir / "lost.key").write_text("noted")
    assert keys.exists(host)
    keys.remove_keys(host)
    assert not keys.exists(host)


def _seconds_ago(seconds: float) -> float:
    return preconditions.time.time() - seconds
