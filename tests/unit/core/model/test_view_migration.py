"""A view that the version before stored on a node is the same view to this version."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.model.view_migration import migrate_view
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import key, leaf, peer
from tests.unit.harness.fakehost import FakeHost, Kernel, with_ipv6
from tests.unit.harness.recorded import former_view


@pytest.mark.parametrize(
    "view",
    [
        leaf(),
        replace(leaf(), drained_relays=("n7",), activate_key=key(9), keys=(key(8),)),
        leaf(direct=(peer(7, preshared="0123456789abcdef"),)),
    ],
    ids=["plain", "drained and activated", "with PSKs"],
)
def test_old_view_reads_as_the_same_view(view):
    """Only keys are renamed. Keys that are no part of the view, as the ledger's, are kept."""
    migrated = migrate_view({**former_view(view), "digest": "d", "generation": 3})
    assert View.from_dict(migrated) == view
    assert (migrated["digest"], migrated["generation"]) == ("d", 3)


@pytest.mark.parametrize("raw", [{"schema": 3}, {"schema": 3, "interfaces": "x"}, {"schema": 3, "interfaces": [None]}])
def test_damaged_old_view_fails_in_no_migration(raw):
    """``View.from_dict`` reports the damage."""
    assert migrate_view(raw)["schema"] == 4


def test_upgraded_node_finds_nothing_to_do(tmp_path: Path):
    """The stored view of schema 3 is the view that runs: applying it in its new form changes nothing."""
    host = FakeHost.below(tmp_path, Kernel(sysctls=with_ipv6()))
    keys.ensure(host)
    view = leaf(direct=(peer(7),))
    apply.apply(host, view)
    store = Store(host=host, mesh="wg0")
    (store.folder / "view.json").write_text(json.dumps(former_view(view)))
    assert store.view() == view
    assert apply.apply(host, view, dry_run=True).lines == []
