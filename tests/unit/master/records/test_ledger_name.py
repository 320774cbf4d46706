"""Two masters never give one mesh to a node in turn, whatever their ids are."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saltext_wgmesh.core import constants
from saltext_wgmesh.master.environment import Environment
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.ledger_name import MARK_FILE, new_ledger_name
from saltext_wgmesh.minion.apply import assignments
from tests.unit.harness.fake_master import FakeMaster
from tests.unit.harness.fake_watcher import FAST
from tests.unit.harness.fakehost import FakeHost
from tests.unit.harness.nodes import node_below

ID = "master1_master"


class Master(FakeMaster):
    """A master with that id, whose files are below *folder*."""

    def __init__(self, folder: Path) -> None:
        super().__init__(id=ID, pki_dir=str(folder / "pki"), cachedir=str(folder / "cache"), cache="localfs")
        self.opts |= {"extension_modules": str(folder / "ext"), "sock_dir": str(folder)}
        self.folder = folder
        self.restart()

    def restart(self) -> None:
        """The master's process begins: it has what is in files."""
        self.ledger = Ledger.of(self.opts)
        named = Environment.of(self.opts).new_ledger_name
        self.env = replace(self.env, ledger=self.ledger, new_ledger_name=named)


@pytest.fixture
def master(tmp_path: Path) -> Callable[[str], Master]:
    """Return a function that makes a master by name, each on a machine of its own."""
    return lambda name: Master(tmp_path / name)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """The node a."""
    return node_below(tmp_path / "a")


def given(master: Master) -> dict[str, Any]:
    """Return what the pillar of *a* has once *master* has planned."""
    master.run()
    return master.ledger.assignments("a")


def refusal(host: Any, views: dict[str, Any]) -> str | None:
    """Return why the node *a* refuses *views*; None if it applies them."""
    (result,) = assignments.apply_assignments(host, views, timeouts=FAST, dry_run=True)
    return result.error


def follow(host: Any, views: dict[str, Any]) -> None:
    """The node has the views of that ledger from now on."""
    (result,) = assignments.apply_assignments(host, views, timeouts=FAST)
    assert result.error is None


def test_second_master_of_same_id_is_refused(host, master):
    """The node's error names both ledgers, and these names differ."""
    first, second = given(master("one")), given(master("two"))
    follow(host, first)
    names = [views["wg0"][constants.LEDGER_KEY] for views in (first, second)]
    assert names[0] != names[1]
    assert all(name.startswith(f"{ID} (") for name in names)
    error = refusal(host, second)
    assert error
    assert all(name in error for name in names)


def test_master_that_lost_its_cache_is_followed(host, master):
    """The next ledger has the name of the lost one."""
    one = master("one")
    follow(host, given(one))
    shutil.rmtree(one.folder / "cache")
    one.restart()
    assert refusal(host, given(one)) is None


def test_moved_ledger_keeps_name(host, master):
    """It lies on another machine with another key and another id."""
    one, two = master("one"), master("two")
    follow(host, given(one))
    shutil.copytree(one.folder / "cache", two.folder / "cache", dirs_exist_ok=True)
    two.opts["id"] = "other_master"
    two.restart()
    assert refusal(host, given(two)) is None


def test_name_given_before_stays(master):
    """Nodes have recorded the plain id of an earlier version."""
    one = master("one")
    one.ledger.ensure_name(lambda: ID)
    assert given(one)["wg0"][constants.LEDGER_KEY] == ID


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"x" * 5000, b"../../etc"], ids=["empty", "bytes", "long", "path"]
)
def test_damaged_mark_is_replaced(tmp_path, content):
    """No content of the file becomes a part of the name."""
    name = functools.partial(new_ledger_name, {"id": ID, "pki_dir": str(tmp_path)})
    (tmp_path / "wgmesh").mkdir()
    (tmp_path / "wgmesh" / MARK_FILE).write_bytes(content)
    first = name()
    assert len(first) == len(f"{ID} (12345678)")
    assert name() == first


def test_unwritable_mark_ends_no_run(tmp_path, caplog):
    """The ledger has a name all the same, and the log says what could not be written."""
    (tmp_path / "wgmesh").write_text("no folder")
    assert new_ledger_name({"id": ID, "pki_dir": str(tmp_path)}).startswith(f"{ID} (")
    assert MARK_FILE in caplog.text
    assert new_ledger_name({"pki_dir": str(tmp_path)}) == ""
