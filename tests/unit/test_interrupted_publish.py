"""What a run that died in the middle of a publish left behind never comes to count."""

from __future__ import annotations

from saltext_wgmesh.master.ledger import Head, Ledger


class MemoryCache:
    """Salt's cache as a dict; it fails at the write to *cut*."""

    def __init__(self):
        self.kept = {}
        self.cut = None

    def store(self, bank, key, data):
        if (bank, key) == self.cut:
            raise OSError("the power went")
        self.kept[bank, key] = data

    def fetch(self, bank, key):
        return self.kept.get((bank, key), {})


def publish(ledger, generation, **nodes):
    entries = {node: {"mark": mark} for node, mark in nodes.items()}
    ledger.publish("wg0", Head(generation=generation), entries, {"policy": generation})


def interrupted(cut):
    """A ledger of one whole generation, and of the second what was written until the write to *cut*."""
    cache = MemoryCache()
    ledger = Ledger(cache)
    publish(ledger, 1, a="a1", b="b1")
    cache.cut = cut
    try:
        publish(ledger, 2, a="a2", b="b2")
    except OSError:
        cache.cut = None
    return cache, ledger


def test_a_view_of_a_generation_that_never_was_is_not_given_out_later():
    """The change of *a* was taken back after the crash: the next generation, of *b* alone, leaves *a* its old view."""
    _, ledger = interrupted(("wgmesh/node", "b"))
    publish(ledger, 2, b="b3")
    assert ledger.views("a")["wg0"]["mark"] == "a1"
    assert ledger.views("b")["wg0"]["mark"] == "b3"


def test_a_second_crash_forgets_nothing_of_the_first():
    """Two runs died at the same generation, each with nodes of its own."""
    cache, ledger = interrupted(("wgmesh/node", "b"))
    cache.cut = ("wgmesh/head", "wg0")
    try:
        publish(ledger, 2, b="b3")
    except OSError:
        cache.cut = None
    publish(ledger, 2, c="c4")
    assert [ledger.views(node)["wg0"]["mark"] for node in "abc"] == ["a1", "b1", "c4"]


def test_a_reader_never_sets_the_number_back():
    """A reader fetched the head of generation 1, then another process published generation 2."""
    cache = MemoryCache()
    ledger = Ledger(cache)
    publish(ledger, 1, a="a1")
    old = cache.kept["wgmesh/head", "wg0"]
    publish(ledger, 2, a="a2")
    cache.kept["wgmesh/head", "wg0"] = old
    assert ledger.head("wg0").generation == 1
    assert ledger.views("a")["wg0"]["mark"] == "a2"
