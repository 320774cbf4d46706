"""What a run that died while it published left behind never becomes current."""

from __future__ import annotations

import pytest

from saltext_wgmesh.master.records.ledger import Ledger
from tests.unit.harness.generations import marks, publish
from tests.unit.harness.memory_cache import Cut, MemoryCache


def interrupted(bank: str, key: str) -> tuple[MemoryCache, Ledger]:
    """A ledger of one whole generation, and of the second what was written until the write to that key."""
    cache = MemoryCache()
    ledger = Ledger(cache)  # type: ignore[arg-type]
    publish(ledger, 1, a=1, b=1)
    cache.cut_at = (bank, key)
    with pytest.raises(Cut):
        publish(ledger, 2, a=2, b=2)
    cache.cut_at = None
    return cache, ledger


def test_view_of_unfinished_generation_is_never_given():
    """The change of *a* was undone after the crash: the next generation, of *b* alone, leaves *a* its old view."""
    _, ledger = interrupted("wgmesh/node", "b")
    publish(ledger, 2, b=3)
    assert marks(ledger, "a", "b") == [1, 3]


def test_second_crash_forgets_nothing_of_the_first():
    """Two runs died at the same generation, each with nodes of its own."""
    cache, ledger = interrupted("wgmesh/node", "b")
    cache.cut_at = ("wgmesh/head", "wg0")
    with pytest.raises(Cut):
        publish(ledger, 2, b=3)
    cache.cut_at = None
    publish(ledger, 2, c=4)
    assert marks(ledger, "a", "b", "c") == [1, 1, 4]


def test_reader_never_sets_the_number_back():
    """A reader fetched the head of generation 1, then another process published generation 2."""
    cache = MemoryCache()
    ledger = Ledger(cache)  # type: ignore[arg-type]
    publish(ledger, 1, a=1)
    old = cache.banks["wgmesh/head"]["wg0"]
    publish(ledger, 2, a=2)
    cache.banks["wgmesh/head"]["wg0"] = old
    assert ledger.head("wg0").generation == 1
    assert marks(ledger, "a") == [2]
