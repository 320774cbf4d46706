"""The report of the watcher, as the beacon reads it each second."""

from __future__ import annotations

from pathlib import Path

from saltext_wgmesh.core.liveness.link_report import LinkReport
from saltext_wgmesh.minion.state import link_report_file
from tests.unit.harness.fakehost import FakeHost, Kernel


def test_unchanged_report_is_parsed_once(tmp_path: Path) -> None:
    """A sign of life changes nothing; another text counts at once."""
    host = FakeHost.below(tmp_path, Kernel())
    link_report_file.write_report(host, LinkReport(mesh="wg0", from_watcher=True))
    first = link_report_file.read_report(host, "wg0")
    link_report_file.write_report(host, LinkReport(mesh="wg0", from_watcher=True))
    assert link_report_file.read_report(host, "wg0") is first
    link_report_file.write_report(host, LinkReport(mesh="wg0", from_watcher=False))
    assert link_report_file.read_report(host, "wg0") == LinkReport(mesh="wg0", from_watcher=False)
