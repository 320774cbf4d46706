"""What minions write into the mine is read as it is; nothing of it stops the reading."""

import pytest

from saltext_wgmesh.master import inventory
from tests.unit.test_ledger import MemoryCache


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
def test_an_entry_is_unwrapped_and_what_is_none_is_nothing(entries, found):
    cache = MemoryCache()
    cache.store("mine", "web1", entries)
    assert inventory.mine_entry(cache, "web1") == found
