"""The clock of a node may jump at any moment: what it keeps on disk goes on as usual once the clock is right."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from saltext_wgmesh.core.liveness.hold_down import HOLD_CEILING
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.minion.apply import await_push, preconditions
from saltext_wgmesh.minion.state import admin_down, link_report_file, psk_files, store
from saltext_wgmesh.minion.state.store import RolledBackView, Store
from saltext_wgmesh.minion.state.view_result import ViewResult
from saltext_wgmesh.minion.watcher.link_verdict import remembered_hold_down
from tests import nodeviews
from tests.unit.harness.fakehost import FakeHost, Kernel

JUMPS = (-1e9, -86_400.0, 86_400.0, 1e9)
MOMENT = re.compile(r'(\["[^"]*", )([0-9.e+]+)\]')


def shift(folder: Path, by: float) -> None:
    """Add *by* seconds to every time in the files of *folder*, and to the times of the files."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        path.write_text(MOMENT.sub(lambda found: f"{found[1]}{float(found[2]) + by}]", path.read_text()))
        os.utime(path, (path.stat().st_mtime + by,) * 2)


class Clock:
    """The wall clock of the node, which is *ahead* by some seconds. The node has been up for an hour."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)
        # A moment of a day ago is none of this boot, however long the machine of the test has been up.
        monotonic, started = time.monotonic, time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() - started + 3600.0)


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


@pytest.mark.parametrize("jump", JUMPS)
def test_view_gets_old_in_usual_time(
    host: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """The previous preshared keys are tried for their usual time, whatever any stored time or the clock says."""
    view = nodeviews.leaf()
    kept = Store(host=host, mesh=view.mesh)
    kept.set_view(view)
    clock.ahead = jump
    shift(host.state_dir, jump)
    assert 0 <= kept.age() < 60
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + psk_files.ROLLOVER_TIME)
    assert kept.age() > psk_files.ROLLOVER_TIME


def test_view_of_former_version_gets_old(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does one of another boot: there is no moment of it, and it counts as set when it is first looked at."""
    view = nodeviews.leaf()
    kept = Store(host=host, mesh=view.mesh)
    kept.set_view(view)
    (kept.folder / store.APPLIED).unlink()
    assert kept.age() < 60
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + psk_files.ROLLOVER_TIME)
    assert kept.age() > psk_files.ROLLOVER_TIME
    host.boot_id.write_text("another")
    assert kept.age() < 60


@pytest.mark.parametrize("jump", JUMPS)
def test_report_counts_whatever_clock_says(
    host: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """A watcher is alive as long as it writes, and no longer: neither a set clock nor the time of the file matters."""
    report = LinkReport(mesh="wg0", from_watcher=True)
    link_report_file.write_report(host, report)
    clock.ahead = jump
    os.utime(link_report_file.report_path(host, "wg0"), (time.time() + jump,) * 2)
    assert link_report_file.watcher_is_alive(host, "wg0")
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + link_report_file.MAX_AGE + 1)
    assert not link_report_file.watcher_is_alive(host, "wg0")
    link_report_file.write_report(host, report)
    assert link_report_file.watcher_is_alive(host, "wg0")
    host.boot_id.write_text("another")
    assert not link_report_file.watcher_is_alive(host, "wg0")


@pytest.mark.parametrize("jump", JUMPS)
def test_damaged_report_is_written_again(host: FakeHost, jump: float) -> None:
    """A report of a moment that this boot has not had is void until the watcher writes the next one."""
    report = LinkReport(mesh="wg0", from_watcher=True)
    link_report_file.write_report(host, report)
    shift(host.run_dir, jump)
    assert not link_report_file.watcher_is_alive(host, "wg0")
    link_report_file.write_report(host, report)
    assert link_report_file.read_report(host, "wg0") == report


@pytest.mark.parametrize("jump", JUMPS)
def test_report_of_former_watcher_is_read(host: FakeHost, jump: float) -> None:
    """It has no moment, so the time of the file counts."""
    path, report = link_report_file.report_path(host, "wg0"), LinkReport(mesh="wg0", from_watcher=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.as_dict()))
    assert link_report_file.read_report(host, "wg0") == report
    os.utime(path, (time.time() + jump,) * 2)
    assert link_report_file.read_report(host, "wg0") is None


@pytest.mark.parametrize("jump", JUMPS)
def test_link_of_earlier_watcher_is_used_as_usual(jump: float) -> None:
    """A restarted watcher takes no hold-down time from a report that is longer than the longest."""
    since, hold = max(0.0, time.time() + jump), abs(jump)
    known = LinkStatus(neighbour="r1", interface="wg0-u1", state=LinkState.UP, since=since, hold=hold)
    found = remembered_hold_down(known, time.monotonic(), time.time())
    assert found.went_down(time.monotonic()).hold <= HOLD_CEILING


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
    store.set_outcomes(host, {"wg0": ViewResult(mesh="wg0", digest="1")})
    before = store.outcomes_version(host)
    assert await_push.await_push(host, before, 0.0, lambda: None) is None
    clock.ahead = jump
    store.set_outcomes(host, {"wg0": ViewResult(mesh="wg0", digest="2")})
    path = host.state_dir / store.OUTCOMES
    os.utime(path, (time.time(),) * 2)
    (result,) = await_push.await_push(host, before, 5.0, lambda: None) or ()
    assert result.digest == "2"
