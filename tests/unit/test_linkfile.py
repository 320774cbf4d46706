"""The watcher's file and the kept view, as the beacon reads them each second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saltext_wgmesh.core.linkstate import LinkReport
from saltext_wgmesh.minion import linkfile
from saltext_wgmesh.minion.store import Store
from tests import nodeviews
from tests.unit.fakehost import FakeHost, Kernel


def test_a_report_that_is_the_same_is_not_parsed_again(tmp_path: Path) -> None:
    """A sign of life changes nothing; another text counts at once."""
    host = FakeHost.below(tmp_path, Kernel())
    linkfile.write(host, LinkReport(mesh="wg0", watched=True))
    first = linkfile.read(host, "wg0")
    linkfile.write(host, LinkReport(mesh="wg0", watched=True))
    assert linkfile.read(host, "wg0") is first
    linkfile.write(host, LinkReport(mesh="wg0", watched=False))
    assert linkfile.read(host, "wg0") == LinkReport(mesh="wg0", watched=False)


def test_a_view_that_is_the_same_is_not_parsed_again(tmp_path: Path) -> None:
    """Another one counts at once."""
    store = Store(host=FakeHost.below(tmp_path, Kernel()), mesh="wg0")
    store.keep(nodeviews.leaf())
    assert store.view() is store.view()
    store.keep(replace(nodeviews.leaf(), mtu=1280))
    assert store.view() == replace(nodeviews.leaf(), mtu=1280)
