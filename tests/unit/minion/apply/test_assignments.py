"""The assignments of a node: one master plans a mesh."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core import constants
from saltext_wgmesh.minion.apply import assignments
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import leaf
from tests.unit.harness.fake_watcher import FAST

LEAVE = {"reason": "it was removed", "removed": True, "digest": "d"}


def applied(host, raw, ledger, **options):
    """The result of the assignment *raw* of wg0, from that ledger; None: from a master of an earlier version."""
    offered = {"wg0": {**raw, **({constants.LEDGER_KEY: ledger} if ledger else {})}}
    (result,) = assignments.apply_assignments(host, offered, timeouts=FAST, **options)
    return result


@pytest.mark.parametrize("raw", [leaf(relays=(1,)).as_dict(), LEAVE], ids=["view", "leave"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_assignment_of_second_ledger_is_refused(host, raw, dry_run):
    """By the names of both; the node keeps what it has."""
    assert applied(host, leaf().as_dict(), "m1_master").error is None
    refused = applied(host, raw, "m2_master", dry_run=dry_run)
    assert "ledger of m2_master" in refused.error
    assert "that of m1_master" in refused.error
    assert Store(host=host, mesh="wg0").view() == leaf()


def test_node_follows_new_ledger_on_request(host):
    """From then on it refuses the former one."""
    applied(host, leaf().as_dict(), "m1_master")
    assert applied(host, leaf().as_dict(), "m2_master", new_ledger=True).error is None
    assert applied(host, leaf().as_dict(), "m2_master").error is None
    assert "that of m2_master" in applied(host, leaf().as_dict(), "m1_master").error


def test_master_of_earlier_version_is_followed(host):
    """Its ledger has no name."""
    assert applied(host, leaf().as_dict(), None).error is None
    assert applied(host, leaf().as_dict(), "m1_master").error is None
    assert applied(host, leaf().as_dict(), None).error is None
    assert Store(host=host, mesh="wg0").ledger() == "m1_master"


def test_removed_mesh_leaves_no_ledger(host):
    """A node that left may join the mesh of another master."""
    applied(host, leaf().as_dict(), "m1_master")
    assert applied(host, LEAVE, "m1_master").error is None
    assert applied(host, leaf().as_dict(), "m2_master").error is None


def test_mesh_that_is_left_goes_first(host):
    """A new mesh, whose name comes before, takes over its port in the same apply."""
    applied(host, leaf(relays=()).as_dict(), "m1_master")
    offered = {"a0": leaf(mesh="a0", relays=()).as_dict(), "wg0": LEAVE}
    results = assignments.apply_assignments(host, offered, timeouts=FAST)
    assert [(result.mesh, result.error) for result in results] == [("wg0", None), ("a0", None)]
