"""The state of a mesh on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.reporting.events import EventSource
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state import store as stored
from saltext_wgmesh.minion.state.store import Owned, RolledBackView, Store
from saltext_wgmesh.minion.state.view_result import ViewResult
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


# --- damaged files -------------------------------------------------------------------------------------

FILES = (stored.VIEW, stored.PREVIOUS_VIEW, stored.OWNED, stored.ROLLED_BACK_FILE, stored.LEDGER)
NODE_FILES = (stored.OUTCOMES, stored.UNDERLAY)
DAMAGE = st.sampled_from([b"", b"\0" * 4096, b"{", b"{}", b"[]", b"null", b"7", b'"x"', b"\xff\xfe"]) | st.binary(
    max_size=40
)


@pytest.fixture(scope="module")
def applied(tmp_path_factory) -> Store:
    """Return the store of a node that has applied a view twice."""
    host = FakeHost.below(tmp_path_factory.mktemp("node"), Kernel())
    keys.ensure(host)
    apply.apply(host, replace(nodeviews.leaf(), mtu=1280))
    apply.apply(host, nodeviews.leaf())
    return Store(host=host, mesh="wg0")


@given(name=st.sampled_from(FILES), damage=DAMAGE)
@settings(deadline=None)
def test_apply_replaces_any_damaged_file(applied, name, damage):
    """A file of any content stops no apply. After it, the node holds the view, and owns what it has."""
    (applied.folder / name).write_bytes(damage)
    apply.apply(applied.host, nodeviews.leaf(), retry_rolled_back=False)
    assert applied.view() == nodeviews.leaf()
    assert applied.owned() == Owned.by(nodeviews.leaf())
    assert applied.rolled_back() is None
    assert applied.previous() in (None, replace(nodeviews.leaf(), mtu=1280), nodeviews.leaf())


@given(name=st.sampled_from(NODE_FILES), damage=DAMAGE)
@settings(deadline=None)
def test_damaged_file_of_node_is_replaced(applied, name, damage):
    """The record of outcomes and that of published addresses are written again by the next run."""
    (applied.host.state_dir / name).write_bytes(damage)
    result = ViewResult(mesh="wg0", digest="d")
    stored.set_outcomes(applied.host, {"wg0": result})
    stored.set_published_underlay(applied.host, ["192.0.2.1"])
    assert stored.outcomes(applied.host) == {"wg0": result}
    assert stored.published_underlay(applied.host) == ("192.0.2.1",)


@given(damage=DAMAGE)
@settings(deadline=None)
def test_damaged_ledger_record_names_no_ledger(applied, damage):
    """So no view of the right master is refused; the next apply records its name again."""
    (applied.folder / stored.LEDGER).write_bytes(damage)
    found = applied.ledger()
    assert found is None or json.loads(damage) == found
    applied.set_ledger("salt.example.org")
    assert applied.ledger() == "salt.example.org"


def test_record_of_rollback_is_read_back(applied):
    """As it was written."""
    record = RolledBackView(digest="d", reason="r", at=7.0)
    applied.set_rolled_back(record)
    assert applied.rolled_back() == record
    applied.set_rolled_back(None)


def test_damaged_view_is_reported_as_drift(applied, caplog):
    """At once and then each minute, so that the master pushes the view again. It is logged once."""
    now = [1000.0]
    source = EventSource(lambda: now[0])
    path = applied.folder / stored.VIEW
    source.poll(applied.host)
    path.write_bytes(b"")
    events = []
    for _ in range(90):
        now[0] += 1.0
        events.append([event["tag"] for event in source.poll(applied.host)])
    assert events == [["drift"], *([[]] * 60), ["drift"], *([[]] * 28)]
    assert sum(str(path) in line for line in caplog.messages) == 1
    apply.apply(applied.host, nodeviews.leaf())
    assert source.poll(applied.host) == []
