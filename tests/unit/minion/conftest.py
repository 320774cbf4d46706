"""Fixtures of the tests of the node's side."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.harness.fakehost import FakeHost
from tests.unit.harness.nodes import node_below


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """A node with a key and nothing else."""
    return node_below(tmp_path)
