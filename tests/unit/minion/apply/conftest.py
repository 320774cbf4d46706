"""Fixtures of the tests of applies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from saltext_wgmesh.core.model.view import View
from tests.unit.harness.fake_watcher import FakeWatcher, apply_fast
from tests.unit.harness.fakehost import FakeHost


@pytest.fixture
def watched(host: FakeHost) -> Iterator[Callable[[View], FakeWatcher]]:
    """Applies a first view, and starts a watcher of it."""
    started: list[FakeWatcher] = []

    def start(view: View) -> FakeWatcher:
        apply_fast(host, view)
        started.append(FakeWatcher(host, view))
        host.kernel.ran.clear()
        return started[0]

    yield start
    for each in started:
        each.stop()
