"""Whatever minions write into the mine, reading it does not fail."""

import pytest

from saltext_wgmesh.master.records import inventory
from tests.unit.harness.memory_cache import MemoryCache


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
