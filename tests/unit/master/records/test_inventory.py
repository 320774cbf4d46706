"""Whatever minions write into the mine, reading it does not fail."""

from pathlib import Path
from typing import Any

import pytest
import salt.cache

from saltext_wgmesh.core.model.untrusted import Refused
from saltext_wgmesh.master.records import inventory
from tests.unit.harness.fake_master import FakeMaster, mine
from tests.unit.harness.hostile import nested
from tests.unit.harness.memory_cache import MemoryCache

FACTS = "wgmesh.facts"
HOSTILE = [
    nested(960),
    {"schema": 1, "x": nested(960)},
    ["x"] * 50_000,
    {"x": "y" * 2_000_000},
    {1: 2, "x": {3: 4, "y": 5}},
]


def test_only_revoked_key_is_found(monkeypatch):
    """A minion that was accepted since is no reason, one that is accepted no longer is."""
    keys = {"a": "1", "b": "2"}
    monkeypatch.setattr(inventory, "accepted_keys", lambda _opts: dict(keys))
    assert not inventory.is_key_revoked({}, {})
    before = dict(keys)
    keys["c"] = "3"
    assert not inventory.is_key_revoked({}, before)
    del keys["b"]
    assert inventory.is_key_revoked({}, before)
    keys["b"] = "another"
    assert inventory.is_key_revoked({}, before)


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ({"wgmesh.facts": {"schema": 1}}, {"schema": 1}),
        ({"wgmesh.facts": {"__saltmine_acl__": 1, "__data__": {"schema": 1}}}, {"schema": 1}),
        ({"wgmesh.facts": {"__saltmine_acl__": 1}}, None),
        ({"wgmesh.facts": "text"}, "text"),
        ({}, None),
        (["wgmesh.facts"], None),
        ("text", None),
        (17, None),
    ],
)
def test_mine_entry_is_unwrapped_or_none(entries, found):
    """An entry with access rights gives its data; anything that is no entry gives nothing."""
    cache = MemoryCache()
    cache.store("mine", "web1", entries)
    assert inventory.mine_entry(cache, "web1") == found


@pytest.fixture
def opts(tmp_path: Path) -> dict[str, Any]:
    """The options of a master with a real cache."""
    return {"cache": "localfs", "cachedir": str(tmp_path), "extension_modules": str(tmp_path / "ext")}


@pytest.mark.parametrize("facts", HOSTILE, ids=["nested", "nested field", "list", "text", "mixed keys"])
def test_hostile_facts_reject_one_node(facts):
    """The run plans all other nodes, and the next one ends early: nothing has changed."""
    master = FakeMaster()
    master.mine["x"] = facts
    master.policy["wg0"]["nodes"]["x"] = {}
    report = master.run()
    assert {"a", "b", "r1"} <= set(report.applied)
    assert ([line[:2] for line in report.rejected], list(report.unplaced)) == (["x:"], ["x"])
    assert master.run().made_changes is False


@pytest.mark.parametrize("content", [b"", b"\x81", b"\xc1", b"\x82\xa1a" + b"\x91" * 5000], ids=repr)
def test_damaged_mine_file_rejects_one_node(opts, tmp_path, content):
    """Its entry says so; the entries of other nodes are read."""
    cache = salt.cache.factory(opts)
    for node in ("a", "b"):
        cache.store("mine", node, {FACTS: mine(node)})
    (tmp_path / "mine" / "a.p").write_bytes(content)
    assert isinstance(inventory.mine_entry(cache, "a"), Refused) or not content
    assert inventory.mine_entry(cache, "b") == mine("b")


@pytest.mark.parametrize("other", [nested(960), "text"], ids=["nested", "text"])
def test_mine_of_deleted_node_is_dropped(opts, other):
    """Salt can read more levels than it can write in every process; then the whole entry goes."""
    cache = salt.cache.factory(opts)
    cache.store("mine", "a", {FACTS: nested(960), "other": other})
    inventory.drop_mine(opts, "a")
    assert inventory.mine_entry(cache, "a") is None


def test_damaged_mine_of_deleted_node_is_dropped(opts, tmp_path):
    """A run must not end for it, time after time."""
    cache = salt.cache.factory(opts)
    cache.store("mine", "a", {FACTS: 1})
    (tmp_path / "mine" / "a.p").write_bytes(b"\x81")
    inventory.drop_mine(opts, "a")
    assert cache.list("mine") == []


def test_key_that_moves_meanwhile_is_read_again(monkeypatch):
    """Salt 3008 raises an AttributeError for a key that is accepted between its list and its reads."""

    class Keys:
        reads = 0

        def key_str(self, _pattern):
            self.reads += 1
            if self.reads < 3:
                raise AttributeError
            return {"minions": {}}

    keys = Keys()
    monkeypatch.setattr(inventory.salt.key, "get_key", lambda _opts: keys)
    assert (inventory.accepted_keys({}), keys.reads) == ({}, 3)
