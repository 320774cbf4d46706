"""The clock of a node may jump at any moment: what it keeps on disk goes on as usual once the clock is right."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from saltext_wgmesh.core.liveness.link_report import LinkReport
from saltext_wgmesh.minion.apply import await_push, preconditions
from saltext_wgmesh.minion.state import admin_down, link_report_file, psk_files, store
from saltext_wgmesh.minion.state.store import RolledBackView, Store
from tests import nodeviews
from tests.unit.harness.fakehost import FakeHost, Kernel

JUMPS = (-1e9, -86_400.0, 86_400.0, 1e9)


class Clock:
    """The wall clock of the node, which is *ahead* by some seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that is right."""
    return Clock(monkeypatch)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """A node without a mesh."""
    return FakeHost.below(tmp_path, Kernel())


@pytest.mark.parametrize("jump", JUMPS)
def test_admin_down_request_outlives_jump(host: FakeHost, clock: Clock, jump: float) -> None:
    """A clock that is set during an apply releases no link before the apply has ended."""
    link_report_file.write_report(host, LinkReport(mesh="wg0", from_watcher=True))
    with admin_down.links_admin_down(host, "wg0", frozenset({"r1"})):
        clock.ahead = jump
        assert admin_down.requested(host, "wg0") == {"r1"}
    assert admin_down.requested(host, "wg0") == frozenset()


@pytest.mark.parametrize("jump", [86_400.0, 1e9])
def test_view_of_future_gets_old(host: FakeHost, jump: float) -> None:
    """The previous preshared keys are not tried for ever, although the view was set while the clock was ahead."""
    view = nodeviews.leaf()
    kept = Store(host=host, mesh=view.mesh)
    kept.set_view(view)
    os.utime(kept.folder / store.VIEW, (time.time() + jump,) * 2)
    assert kept.age() > psk_files.ROLLOVER_TIME


@pytest.mark.parametrize("jump", [86_400.0, 1e9])
def test_rolled_back_view_of_future_is_tried(host: FakeHost, jump: float) -> None:
    """A view that was rolled back while the clock was ahead is not refused until the clock gets there."""
    view = nodeviews.leaf()
    kept = Store(host=host, mesh=view.mesh)
    kept.set_rolled_back(RolledBackView(digest=view.digest(), reason="broken", at=time.time() + jump))
    preconditions.refuse_if_recently_rolled_back(kept, view)


@pytest.mark.parametrize("jump", JUMPS)
def test_push_is_seen_whatever_clock_says(host: FakeHost, clock: Clock, jump: float) -> None:
    """A push that arrives after the clock was set ends the wait; results from before it do not."""
    store.set_outcomes(host, {"wg0": {"digest": "1"}})
    before = store.outcomes_version(host)
    assert await_push.await_push(host, before, 0.0, lambda: None) is None
    clock.ahead = jump
    store.set_outcomes(host, {"wg0": {"digest": "2"}})
    path = host.state_dir / store.OUTCOMES
    os.utime(path, (time.time(),) * 2)
    (result,) = await_push.await_push(host, before, 5.0, lambda: None) or ()
    assert result.digest == "2"
