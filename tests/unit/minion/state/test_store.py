"""The state of a mesh on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.state.store import Owned, Store
from tests import nodeviews
from tests.nodeviews import peer, relay
from tests.unit.harness.fakehost import FakeHost, Kernel
from tests.unit.harness.interruption import (
    every_kill,
)

OLD = relay(leaves=(peer(7), peer(8)), trunks=(2, 3))
NEW = relay(leaves=(peer(7, endpoint="192.0.2.7:51820"), peer(9)), trunks=(3, 4))


def test_unchanged_view_is_parsed_once(tmp_path: Path) -> None:
    """Another view counts at once."""
    store = Store(host=FakeHost.below(tmp_path, Kernel()), mesh="wg0")
    store.set_view(nodeviews.leaf())
    assert store.view() is store.view()
    store.set_view(replace(nodeviews.leaf(), mtu=1280))
    assert store.view() == replace(nodeviews.leaf(), mtu=1280)


def test_killed_write_leaves_one_view_or_other(tmp_path):
    """So is what the mesh owns, which is recorded before the view."""
    store = Store(host=FakeHost.below(tmp_path, Kernel()), mesh="wg0")
    few, many = Owned(interfaces=frozenset({"wg0"})), Owned(interfaces=frozenset({"wg0", "wg0-t2"}))

    def record(view: View, owned: Owned) -> None:
        store.set_owned(owned)
        store.set_view(view)

    record(OLD, few)
    for _ in every_kill(lambda: record(NEW, many)):
        assert store.view() in (OLD, NEW)
        assert store.previous() in (None, OLD, NEW)
        assert store.owned() in (few, many)
        assert store.view() == OLD or store.owned() == many
        record(OLD, few)
        assert store.view() == OLD
    assert (store.view(), store.previous()) == (NEW, OLD)
