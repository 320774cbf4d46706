"""Every execution function works on a minion of every id."""

from __future__ import annotations

import inspect

import pytest
from salt.exceptions import CommandExecutionError

from saltext_wgmesh import current_pillar
from saltext_wgmesh.core import constants
from saltext_wgmesh.minion.apply.health_check import Master
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.modules import wgmesh as module
from tests.unit.harness.fake_master import FakeMaster, mine
from tests.unit.harness.fakehost import FakeHost, Kernel
from tests.unit.runners.test_ids import IDS

READING = ("facts", "public_key", "show", "links", "forwarded", "meshes", "watch_unit", "diff_view")


@pytest.fixture
def minion(monkeypatch, tmp_path):
    """A function that makes this machine the minion of that id, in a mesh with a relay."""

    def make(id_):
        host = FakeHost.below(tmp_path, Kernel())
        (tmp_path / "minion.pub").write_text("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n")
        master = FakeMaster()
        master.policy["wg0"]["nodes"]["*"] = {}
        master.mine = {"r1": mine("r1"), id_: mine(id_, public_key=keys.ensure(host))}
        master.run()
        opts = {"id": id_, "pki_dir": str(tmp_path), "cachedir": str(tmp_path)}
        salt_functions = {
            "mine.send": lambda _function, **_: True,
            "event.send": lambda _tag: True,
            "saltutil.is_running": lambda _function: [],
            "state.apply": lambda _name: {},
        }
        pillar = {constants.PILLAR_VIEWS: master.ledger.assignments(id_)}
        monkeypatch.setattr(module, "__opts__", opts, raising=False)
        monkeypatch.setattr(module, "__grains__", {}, raising=False)
        monkeypatch.setattr(module, "__salt__", salt_functions, raising=False)
        monkeypatch.setattr(module, "Host", lambda: host)
        monkeypatch.setattr(Master, "of", lambda _opts: None)
        monkeypatch.setattr(current_pillar, "pillar", lambda _opts, _grains: pillar)

    return make


def test_each_function_has_a_call():
    """A new function of the module joins the test."""
    own = {name for name, each in vars(module).items() if inspect.isfunction(each) and name[0] != "_"}
    assert own - {"digest_of", "readers_of_facts"} == {
        *READING,
        "apply_view",
        "renew_key",
        "replace_key",
        "rollback",
        "enrol",
    }


@pytest.mark.parametrize("id_", IDS)
def test_function_works_on_minion_of_id(minion, id_):
    """The minion applies its view, reads all, makes a key, and applies the formula."""
    minion(id_)
    applied = module.apply_view()
    assert "error" not in applied["wg0"]
    for name in READING:
        getattr(module, name)()
    assert "next_key" in module.renew_key()
    with pytest.raises(CommandExecutionError, match="no earlier view of wg0"):
        module.rollback("wg0")
    assert "error" not in module.replace_key()["wg0"]
    assert module.enrol() == {}
