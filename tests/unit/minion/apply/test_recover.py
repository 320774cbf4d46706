"""An apply that died: another process checks the node, and rolls it back if it is broken."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.errors import HostError, RolledBack
from saltext_wgmesh.minion.apply import executor, health_check, journal, recover, removal, rollback
from saltext_wgmesh.minion.state import admin_down
from saltext_wgmesh.minion.state.former_version import PENDING_APPLY_FILE
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import key, leaf
from tests.unit.harness.fake_watcher import (
    FAST,
    NEW,
    OLD,
    FakeWatcher,
    apply_fast,
    broken_while,
    with_endpoint,
)

BAD = with_endpoint(leaf(), 1, NEW)
DEATHS = {
    "after a step's commands": (executor, "run_all"),
    "while a link is awaited": (admin_down, "wait_for_links"),
    "before the view is recorded": (Store, "set_view"),
    "while it checks the node": (health_check, "lost_since"),
}


class Died(BaseException):
    """As by SIGKILL: no handler runs."""


@pytest.fixture(params=DEATHS)
def died(request, host, watched, monkeypatch) -> FakeWatcher:
    """An apply of BAD has died, at each of DEATHS."""
    watcher = watched(leaf())
    owner, name = DEATHS[request.param]
    real, calls = getattr(owner, name), []

    def dies(*args, **kwargs):
        calls.append(name)
        if name == "run_all":
            real(*args, **kwargs)
        # The first commands only add.
        if (name, len(calls)) != ("run_all", 1):
            raise Died
        return []

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        with pytest.raises(Died):
            apply_fast(host, BAD)
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == NEW
    assert journal.interrupted(host) == ["wg0"]
    return watcher


def test_broken_node_is_rolled_back_by_recovery(host, died, request) -> None:
    """The master is not needed. If the view was applied in full, it is not tried again soon."""
    died.broken = broken_while(1, NEW)
    died.settle()
    with pytest.raises(RolledBack, match="n1 is no longer reachable"):
        recover.recover(host, "wg0", timeouts=FAST)
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD
    assert Store(host=host, mesh="wg0").view() == leaf()
    taken = Store(host=host, mesh="wg0").rolled_back()
    assert (taken and taken.digest) == (BAD.digest() if "while it checks" in request.node.name else None)
    assert journal.interrupted(host) == []
    assert apply_fast(host, leaf()).lines == []
    recover.recover(host, "wg0", timeouts=FAST)


def test_next_apply_recovers_first(host, died) -> None:
    """If it is of the same view, that view is refused. If it is of another one, the apply goes on from there."""
    died.broken = broken_while(1, NEW)
    died.settle()
    with pytest.raises(RolledBack, match="n1 is no longer reachable"):
        apply_fast(host, BAD)
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD
    better = with_endpoint(leaf(), 2, NEW)
    apply_fast(host, better)
    assert (journal.interrupted(host), Store(host=host, mesh="wg0").view()) == ([], better)


def test_reboot_does_not_blame_the_view(host, died) -> None:
    """The neighbours may have been without power longer."""
    host.boot_id.write_text("another")
    died.broken = broken_while(1, NEW)
    died.settle()
    with pytest.raises(RolledBack):
        recover.recover(host, "wg0", timeouts=FAST)
    assert Store(host=host, mesh="wg0").rolled_back() is None


def test_failed_rollback_does_not_block_next_apply(host, died, monkeypatch) -> None:
    """The error is logged, and the next view is applied."""
    died.broken = broken_while(1, NEW)
    died.settle()
    real, left = rollback._restore, ["fails"]

    def fails(*args):
        raise HostError(left.pop()) if left else AssertionError

    monkeypatch.setattr(rollback, "_restore", fails)
    apply_fast(host, leaf())
    monkeypatch.setattr(rollback, "_restore", real)
    assert (left, journal.interrupted(host), Store(host=host, mesh="wg0").view()) == ([], [], leaf())
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD


def test_unbroken_node_is_left_to_next_apply(host, died) -> None:
    """Recovery clears the journal, and the next apply finishes the changes."""
    recover.recover(host, "wg0", timeouts=FAST)
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == NEW
    assert journal.interrupted(host) == []
    apply_fast(host, BAD)
    assert (apply_fast(host, BAD).lines, Store(host=host, mesh="wg0").view()) == ([], BAD)


def test_running_apply_is_not_recovered(host, died) -> None:
    """An apply that holds the lock is not interrupted."""
    with Store(host=host, mesh="wg0").locked():
        assert journal.interrupted(host) == []
    assert journal.interrupted(host) == ["wg0"]


def test_removal_clears_the_journal(host, died) -> None:
    """A removed mesh has nothing to recover."""
    removal.remove_mesh(host, "wg0")
    assert (journal.interrupted(host), host.kernel.devices) == ([], {})


def test_unreadable_journal_is_dropped(host, watched, caplog) -> None:
    """As of an unknown version: the next apply compares with the kernel."""
    watched(leaf())
    path = Store(host=host, mesh="wg0").folder / PENDING_APPLY_FILE
    for text in (b'{"view": 1}', b"[]", b"\xff", b""):
        path.write_bytes(text)
        recover.recover(host, "wg0", timeouts=FAST)
        assert not path.exists()
    assert caplog.text.count("can't be read") == 4


def test_finished_apply_leaves_no_journal(host, watched) -> None:
    """Neither a success nor a rollback leaves the journal."""
    watcher = watched(leaf())
    apply_fast(host, with_endpoint(leaf(), 2, NEW))
    assert not (Store(host=host, mesh="wg0").folder / PENDING_APPLY_FILE).exists()
    watcher.broken = broken_while(1, NEW)
    with pytest.raises(RolledBack):
        apply_fast(host, BAD)
    assert not (Store(host=host, mesh="wg0").folder / PENDING_APPLY_FILE).exists()
