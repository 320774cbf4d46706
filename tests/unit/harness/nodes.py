"""Nodes made of values, and what a test asks of them."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from saltext_wgmesh.core.keys import psk
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import key
from tests.unit.harness.fakehost import FakeHost, Kernel, with_ipv6

PSKS = {str(psk.psk_id(key(n))): key(n) for n in (101, 102)}
"""Two preshared keys, by their PSK ids."""
FIRST_PSK, SECOND_PSK = sorted(PSKS)


def node_below(folder: Path) -> FakeHost:
    """Return a node with a key and nothing else, whose files lie in *folder*."""
    host = FakeHost.below(folder, Kernel(sysctls=with_ipv6()))
    keys.ensure(host)
    return host


def with_own_key(host: FakeHost, view: View) -> View:
    """Return *view* as a master makes it that knows this node's key."""
    return replace(view, keys=(str(keys.public_key(host)),))


def psk_files_of(host: FakeHost) -> dict[str, str]:
    """Return PSK id → key of the PSK files of *host*. Their permissions are asserted."""
    folder = Store(host=host, mesh="wg0").psk_dir
    assert not folder.exists() or stat.S_IMODE(folder.stat().st_mode) == 0o700
    found = sorted(folder.iterdir()) if folder.exists() else []
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} <= {0o600}
    return {path.name: path.read_text().strip() for path in found}
