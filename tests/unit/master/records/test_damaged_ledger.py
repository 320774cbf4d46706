"""Any bytes in any file of the ledger: the last good state, or one LedgerError that names the file."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import salt.cache
import salt.payload
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master.records import banks
from saltext_wgmesh.master.records.ledger import Ledger
from tests.unit.harness.fake_master import FakeMaster

OF_A_NODE = (banks.NODES, banks.ACKS)
FILES = [
    (banks.HEADS, "wg0"),
    (banks.HEAD_COPIES, "wg0"),
    (banks.CURRENT, "wg0"),
    (banks.GENERATIONS, "wg0.1"),
    (banks.NODES, "a"),
    (banks.ACKS, "a"),
    (banks.HEALTH, "wg0"),
    (banks.GUARD, "wg0"),
    (banks.PINS, "wg0"),
    (banks.RUNS, "last"),
    (banks.RUNS, "ledger"),
    (banks.RUNS, "ledger-copy"),
]
VALUES = st.sampled_from(
    [None, {}, [], 0, 7, "x", {"schema": 2}, {"schema": 2, "generation": "x"}, {"schema": 1}, {1: 2}]
)
CONTENTS = st.binary(max_size=8) | VALUES.map(salt.payload.dumps) | st.integers(0, 40)
"""Bytes, another record, or the number of bytes that are left of the file."""


class DiskMaster(FakeMaster):
    """A master whose ledger is in files below *folder*."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        opts = {"cache": "localfs", "cachedir": str(folder), "extension_modules": str(folder / "ext")}
        self.folder = folder
        self.ledger = Ledger.of(opts)
        self.env = dataclasses.replace(self.env, ledger=self.ledger, new_ledger_name=lambda: "m")

    def problem_of_run(self) -> str:
        """The LedgerError of a run that tells *a*, in words; empty if there is none."""
        try:
            self.run(retry={"a"})
        except LedgerError as error:
            return str(error)
        return ""

    def damage(self, bank: str, key: str, content: bytes | int) -> None:
        """Replace a file of the ledger, or cut it off."""
        path = self.folder / bank / f"{key}.p"
        path.parent.mkdir(parents=True, exist_ok=True)
        known = path.read_bytes() if path.exists() else b""
        path.write_bytes(known[:content] if isinstance(content, int) else content)


@pytest.fixture
def master(tmp_path: Path) -> DiskMaster:
    """A master that has published one generation."""
    made = DiskMaster(tmp_path)
    made.run()
    return made


@settings(max_examples=150, deadline=None)
@given(file=st.sampled_from(FILES), content=CONTENTS)
def test_damage_gives_good_state_or_names_file(file: tuple[str, str], content: bytes | int) -> None:
    """A run after the damage never plans from the beginning, and other nodes keep their views."""
    bank, key = file
    with tempfile.TemporaryDirectory() as folder:
        master = DiskMaster(Path(folder))
        master.run()
        views, numbers = master.ledger.assignments("b"), dict(master.ledger.head("wg0").allocations.relay_numbers)
        master.damage(bank, key, content)
        if problem := master.problem_of_run():
            assert f"{bank} {key}" in problem
            assert bank not in banks.REPLACEABLE
            return
        assert master.ledger.name() == "m"
        head = master.ledger.head("wg0")
        assert head.generation >= 1
        assert dict(head.allocations.relay_numbers) == numbers
        assert master.ledger.assignments("b") == views
        assert master.ledger.ack("a").digests == {"wg0": head.digests["a"]}
        assert master.ledger.assignments("a")["wg0"]["digest"] == head.digests["a"]


@settings(max_examples=80, deadline=None)
@given(file=st.sampled_from(FILES), data=st.data())
def test_wrong_value_ends_no_run_by_other_error(file: tuple[str, str], data: st.DataObject) -> None:
    """A record with one value of another type is refused by name, or the run ends as usual: never in between."""
    bank, key = file
    with tempfile.TemporaryDirectory() as folder:
        master = DiskMaster(Path(folder))
        master.policy["wg0"]["rotate_after"] = "30d"
        master.run(rotate="a")
        path = master.folder / bank / f"{key}.p"
        if not path.exists():
            return
        raw = salt.payload.loads(path.read_bytes())
        path.write_bytes(salt.payload.dumps(replaced(raw, data)))
        if problem := master.problem_of_run():
            assert f"{bank} {key}" in problem
            assert bank not in OF_A_NODE


@pytest.mark.parametrize(
    ("record", "key", "value"),
    [
        ("allocations", "addresses", {"a": "x"}),
        ("transition", "dual_addresses", {"a": ["10.100.0.5", "x"]}),
        ("transition", "former_networks", ["x"]),
    ],
)
def test_damaged_address_of_head_is_named(tmp_path: Path, record: str, key: str, value: Any) -> None:
    """A run would parse it long after the record was read, and end without the name of the file."""
    master = DiskMaster(tmp_path)
    master.run()
    path = master.folder / banks.HEADS / "wg0.p"
    raw = salt.payload.loads(path.read_bytes())
    raw[record][key] = value
    path.write_bytes(salt.payload.dumps(raw))
    (master.folder / banks.HEAD_COPIES / "wg0.p").unlink()
    assert f"{banks.HEADS} wg0" in master.problem_of_run()


def replaced(raw: Any, data: st.DataObject) -> Any:
    """*raw* with one value in it replaced."""
    if not isinstance(raw, dict) or not raw or data.draw(st.integers(0, 3)) == 0:
        return data.draw(VALUES)
    key = data.draw(st.sampled_from(sorted(raw)))
    return {**raw, key: replaced(raw[key], data)}


@settings(max_examples=40, deadline=None)
@given(files=st.lists(st.sampled_from(FILES), unique=True, min_size=2, max_size=3), content=CONTENTS)
def test_damage_of_several_files_is_named(files: list[tuple[str, str]], content: bytes | int) -> None:
    """One of them is named, or all is as before."""
    with tempfile.TemporaryDirectory() as folder:
        master = DiskMaster(Path(folder))
        master.run()
        numbers = dict(master.ledger.head("wg0").allocations.relay_numbers)
        for bank, key in files:
            master.damage(bank, key, content)
        if problem := master.problem_of_run():
            assert any(f"{bank} {key}" in problem for bank, key in files)
            return
        assert dict(master.ledger.head("wg0").allocations.relay_numbers) == numbers


@pytest.mark.parametrize("content", [b"", b"\x81", b"\x81\xa6schema\x63"])
@pytest.mark.parametrize("key", ["ledger", "ledger-copy"])
def test_damaged_name_costs_no_pillar(master, key, content):
    """The name stands there twice, and a view without a name is applied as usual."""
    views = master.ledger.assignments("a")
    master.damage(banks.RUNS, key, content)
    assert master.ledger.assignments("a") == views
    master.run()
    master.damage(banks.RUNS, "ledger", content)
    master.damage(banks.RUNS, "ledger-copy", content)
    (view,) = master.ledger.assignments("a").values()
    assert constants.LEDGER_KEY not in view
    with pytest.raises(LedgerError, match="wgmesh/runs ledger"):
        master.run()


@pytest.mark.parametrize("bank", [banks.ACKS, banks.NODES])
def test_unknown_schema_costs_one_node(master, bank):
    """The record is written again, and the log names the file."""
    before = master.ledger.head("wg0").digests
    master.damage(bank, "a", salt.payload.dumps({"schema": 99}))
    assert master.run(retry="a").not_acknowledged == ()
    assert master.ledger.head("wg0").digests == before
    assert master.ledger.assignments("a")["wg0"]["digest"] == before["a"]
    assert master.ledger.ack("a").digests == {"wg0": before["a"]}


def test_damaged_view_is_published_once_more(master):
    """Its digest tells, when the node or the operator names it."""
    path = master.folder / banks.NODES / "a.p"
    raw = salt.payload.loads(path.read_bytes())
    raw["meshes"]["wg0"][-1]["mtu"] = 7
    path.write_bytes(salt.payload.dumps(raw))
    master.run(started="a")
    assert master.ledger.assignments("a")["wg0"]["mtu"] != 7


@pytest.mark.parametrize("content", [b"", b"\x81", 10])
def test_damaged_number_costs_no_pillar(master, content):
    """The number stands in the head as well; the next run writes it again."""
    views = master.ledger.assignments("a")
    master.damage(banks.CURRENT, "wg0", content)
    assert master.ledger.assignments("a") == views
    master.run()
    assert salt.payload.loads((master.folder / banks.CURRENT / "wg0.p").read_bytes())["generation"] == 1


@pytest.mark.parametrize("is_gone", [True, False])
def test_lost_head_is_read_from_copy(master, is_gone):
    """A power failure leaves it empty; without the copy, all relays would be numbered afresh."""
    head = master.ledger.head("wg0")
    path = master.folder / banks.HEADS / "wg0.p"
    path.unlink() if is_gone else path.write_bytes(b"")
    assert master.ledger.head("wg0") == head
    assert master.run().generation == 1


def test_copy_before_published_generation_is_refused(master):
    """It would give addresses and numbers of the generation in between to other nodes."""
    old = (master.folder / banks.HEAD_COPIES / "wg0.p").read_bytes()
    master.policy["wg0"]["mtu"] = 1400
    master.run()
    master.damage(banks.HEAD_COPIES, "wg0", old)
    master.damage(banks.HEADS, "wg0", b"")
    with pytest.raises(LedgerError, match="generation 2 was published"):
        master.run()


@pytest.mark.parametrize("cut", range(6))
def test_power_failure_while_publishing_keeps_state(tmp_path, cut, monkeypatch):
    """Each file that is written after the last sync is empty after it; the next run has one of the two generations."""
    master = DiskMaster(tmp_path)
    master.run()
    numbers = dict(master.ledger.head("wg0").allocations.relay_numbers)
    written: Iterator[int] = iter(range(100))
    store = salt.cache.Cache.store

    def power_fails(self, bank, key, data, **kwargs):
        store(self, bank, key, data, **kwargs)
        if next(written) == cut:
            (tmp_path / bank / f"{key}.p").write_bytes(b"")
            raise KeyboardInterrupt

    master.policy["wg0"]["mtu"] = 1400
    with monkeypatch.context() as patch:
        patch.setattr(salt.cache.Cache, "store", power_fails)
        with pytest.raises(KeyboardInterrupt):
            master.run()
    report = master.run()
    assert report.not_acknowledged == ()
    assert report.generation in (2, 3)
    assert dict(master.ledger.head("wg0").allocations.relay_numbers) == numbers


@settings(max_examples=25, deadline=None)
@given(
    bank=st.sampled_from(banks.ALL),
    names=st.lists(
        st.from_regex(r"tmp[a-z0-9_]{8}", fullmatch=True) | st.sampled_from(["wg0.x", "wg0.p~", ".nfs0", "wg0.1.bak"]),
        max_size=3,
    ),
)
def test_other_files_are_no_records(bank: str, names: list[str]) -> None:
    """Salt writes to a file ``tmp…`` first, which stays if it is killed. No mesh or node is made of its name."""
    with tempfile.TemporaryDirectory() as folder:
        master = DiskMaster(Path(folder))
        master.run()
        before = (master.ledger.meshes(), master.ledger.nodes(), master.ledger.generations("wg0"))
        for name in names:
            (master.folder / bank).mkdir(parents=True, exist_ok=True)
            (master.folder / bank / name).write_bytes(b"half")
        (master.folder / banks.GENERATIONS / "wg0.old.p").write_bytes(b"")
        assert (master.ledger.meshes(), master.ledger.nodes(), master.ledger.generations("wg0")) == before
        assert master.problem_of_run() == ""
