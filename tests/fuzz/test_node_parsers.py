"""Fuzzers of all that a node reads of the master, of its neighbours and of its own disk."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.keys import sealed_box
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.bfd_auth import CODE_LENGTH, Authentication, Authenticity, LinkKey
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import assignments, journal
from saltext_wgmesh.minion.state import admin_down, link_report_file, store
from saltext_wgmesh.minion.state.former_version import PENDING_APPLY_FILE, ROLLED_BACK_FILE
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.watcher.loop import Loop
from saltext_wgmesh.minion.watcher.slices import finish
from saltext_wgmesh.minion.watcher.view_reader import view_steps
from tests import nodeviews
from tests.fuzz.foreign import JSON, damaged, fuzz
from tests.unit.harness.fakehost import FakeHost, Kernel

VIEW = nodeviews.leaf().as_dict()
TEXTS = (
    st.text()
    | st.sampled_from(["[" * 100_000, "9" * 5000, '{"a": 1e999}'])
    | JSON.map(lambda raw: json.dumps(raw, default=str, skipkeys=True))
    | damaged(VIEW).map(lambda raw: json.dumps(raw, default=str, skipkeys=True))
)
KEY = LinkKey(send=b"1" * 32, receive=b"2" * 32)


@fuzz
@given(raw=damaged(VIEW))
def test_view_is_parsed_or_refused(raw: Any) -> None:
    """A view that is taken can be written once more."""
    try:
        found = View.from_dict(raw)
    except ViewError:
        return
    assert View.from_dict(json.loads(json.dumps(found.as_dict()))) == found


@fuzz
@given(text=TEXTS)
def test_watcher_reads_view_or_refuses_it(text: str) -> None:
    """The watcher reads a view in slices, by code of its own."""
    with contextlib.suppress(ViewError):
        for _ in view_steps(text):
            pass


@fuzz
@given(text=TEXTS)
def test_view_file_ends_no_watcher(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """A mesh whose view file is damaged costs the other one nothing, before its first view as after it."""
    host = FakeHost.below(tmp_path_factory.mktemp("node"), Kernel())
    loop = Loop(host)
    for first in (text, json.dumps(VIEW), text):
        _write(first, host.state_dir / "wg0" / store.VIEW)
        _write(json.dumps({**VIEW, "mesh": "wg1"}), host.state_dir / "wg1" / store.VIEW)
        finish(loop._following_steps(time.monotonic()))
        assert loop._meshes["wg1"].links.keys() == {"n1", "n2"}
    assert loop._meshes["wg0"].links.keys()


@fuzz
@given(raw=st.dictionaries(st.sampled_from(["wg0", "x"]), damaged({**VIEW, "digest": "d", "generation": 1})) | JSON)
def test_pillar_is_read_per_mesh(tmp_path_factory: pytest.TempPathFactory, raw: Any) -> None:
    """A dry run of whatever stands in the pillar has a result for each mesh, and no traceback."""
    host = FakeHost.below(tmp_path_factory.mktemp("node"), Kernel())
    for result in assignments.apply_assignments(host, raw, dry_run=True):
        assert result.as_dict()


@fuzz
@given(text=TEXTS)
def test_own_files_are_used_or_not(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever a crash left in a file of the node's state, each of them is read as what it is, or as none."""
    host = FakeHost.below(tmp_path_factory.mktemp("node"), Kernel())
    kept = Store(host=host, mesh="wg0")
    names = [
        store.VIEW,
        store.APPLIED,
        store.PREVIOUS_VIEW,
        store.OWNED,
        store.LEDGER,
        ROLLED_BACK_FILE,
        PENDING_APPLY_FILE,
    ]
    _write(text, *(kept.folder / name for name in names), host.state_dir / store.OUTCOMES)
    _write(text, host.state_dir / store.UNDERLAY, host.run_dir / "wg0.json", host.run_dir / "wg0.admin-down")
    kept.view(), kept.previous(), kept.owned(), kept.ledger(), kept.rolled_back()
    assert kept.age() >= 0
    store.outcomes(host), store.published_underlay(host), journal.read_pending(kept)
    link_report_file.read_report(host, "wg0")
    assert admin_down.requested(host, "wg0") == frozenset()


def _write(text: str, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, errors="replace")


@fuzz
@given(data=st.binary(max_size=80))
def test_bfd_packet_is_decoded_or_refused(data: bytes) -> None:
    """A packet that is taken has the 24 bytes of the standard; one that is not signed is never genuine."""
    with contextlib.suppress(bfd.BfdError):
        assert bfd.decode(data).encode()[:1] == data[:1]
    authentication = Authentication()
    authentication.set_keys((KEY,))
    assert authentication.check(data, 0.0) is Authenticity.UNSIGNED


@fuzz
@given(data=st.binary(min_size=bfd.PACKET_LENGTH, max_size=bfd.PACKET_LENGTH), bit=st.integers(0))
def test_bfd_code_covers_each_bit(data: bytes, bit: int) -> None:
    """Of a signed packet, no bit can be changed."""
    here, there = Authentication(), Authentication()
    here.set_keys((KEY,))
    there.set_keys((LinkKey(send=KEY.receive, receive=KEY.send),))
    signed = bytearray(here.sign(data, 0.0))
    assert len(signed) == bfd.PACKET_LENGTH + CODE_LENGTH
    assert there.check(bytes(signed), 0.0) is Authenticity.GENUINE
    place = bit % (8 * len(signed))
    signed[place // 8] ^= 1 << place % 8
    assert there.check(bytes(signed), 0.0) is Authenticity.FORGED


@fuzz
@given(box=st.text() | st.binary(max_size=200).map(lambda raw: raw.hex()))
def test_sealed_box_is_opened_or_refused(box: str) -> None:
    """One message for all causes."""
    with pytest.raises(ValueError, match="not sealed to this key"):
        sealed_box.open_sealed(box, "wg0", b"1" * 32)
