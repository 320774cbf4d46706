"""A failure that is tried again many times a second is logged once."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from saltext_wgmesh.minion.state import link_report_file
from saltext_wgmesh.minion.watcher.error_log import LOG_AGAIN_AFTER, ErrorLog
from tests import nodeviews
from tests.unit.harness.watcher import mesh_monitor

log = logging.getLogger("tests")


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def errors(clock, caplog):
    caplog.set_level("INFO")
    return ErrorLog(log, lambda: clock[0])


def test_lasting_failure_is_logged_rarely(errors, clock, caplog):
    """Once, again when its reason changes, and again after LOG_AGAIN_AFTER."""
    for reason in ("full", "full", "read-only", "read-only"):
        errors.failed("%s: not written", "/run/x", OSError(reason))
    assert caplog.messages == ["/run/x: not written: full", "/run/x: not written: read-only"]
    clock[0] = LOG_AGAIN_AFTER + 1
    errors.failed("%s: not written", "/run/x", OSError("read-only"))
    assert len(caplog.messages) == 3


def test_end_of_failure_is_logged_once(errors, caplog):
    """A success without a failure before is not."""
    errors.succeeded("%s: written", "/run/x")
    errors.failed("%s: not written", "/run/x", OSError("full"))
    errors.succeeded("%s: written", "/run/x")
    errors.succeeded("%s: written", "/run/x")
    assert caplog.messages == ["/run/x: not written: full", "/run/x: written"]


def test_full_run_directory_is_logged_once(tmp_path, monkeypatch, caplog):
    """The line names the report. Each round tries again, and the report is there as soon as it can be written."""
    monitor = mesh_monitor(tmp_path, nodeviews.leaf())
    caplog.set_level("INFO")
    write = link_report_file.Path.write_text

    def full(path, text):
        write(path, text[:5])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(link_report_file.Path, "write_text", full)
    for second in range(25):
        monitor.maintain(50.0 + second / 5)
    path = link_report_file.report_path(monitor.host, "wg0")
    assert [line for line in caplog.messages if "cannot be written" in line and f"'{path}'" in line] == caplog.messages
    assert len(caplog.messages) == 1
    assert list(path.parent.iterdir()) == []
    monkeypatch.undo()
    monitor.maintain(60.0)
    assert link_report_file.read_report(monitor.host, "wg0").links.keys() == {"n1", "n2"}
