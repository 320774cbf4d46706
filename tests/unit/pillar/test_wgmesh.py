"""The ext_pillar: each minion gets what can be read, and no error of ours spoils its pillar."""

from __future__ import annotations

import pytest
import salt.cache
from hypothesis import given, settings
from hypothesis import strategies as st
from salt.exceptions import SaltCacheError

from saltext_wgmesh.core import constants
from saltext_wgmesh.master.records import banks
from saltext_wgmesh.master.records.decisions import FailedRun
from saltext_wgmesh.pillar import wgmesh as pillar
from tests.unit.harness.fake_master import FakeMaster, mine

NODE = "a"
RECORDS = ((banks.NODES, NODE), (banks.CURRENT, "wg0"), (banks.CURRENT, "wg1"), ("mine", NODE))
"""All that the pillar of NODE is read from."""
DAMAGES = (SaltCacheError("Permission denied"), PermissionError("a.p"), 7, ["x"], {"schema": 99}, {"schema": 2, "a": 1})
"""Errors of a read, and contents that are no record."""


class DamagedCache:
    """A cache of whose records some are damaged, as ``(bank, key)`` → an error or other content."""

    def __init__(self, cache, damages):
        self._cache, self._damages = cache, damages

    def fetch(self, bank, key):
        damage = self._damages.get((bank, key), self._cache.fetch(bank, key))
        if isinstance(damage, Exception):
            raise damage
        return damage


@pytest.fixture(scope="module")
def cache():
    """A master that has published two meshes, with the facts of NODE in its mine."""
    master = FakeMaster()
    master.policy["wg1"] = {**master.policy["wg0"], "network": "10.1.0.0/16", "listen_port": 52820}
    master.run_all()
    master.cache.store("mine", NODE, {constants.FACTS_FUNCTION: mine(NODE)})
    return master.cache


def compiled(cache, damages, *args, **kwargs):
    """The pillar of NODE, from *cache* with *damages*."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(salt.cache, "factory", lambda _opts: DamagedCache(cache, damages))
        patch.setattr(pillar, "__opts__", {"id": "m", "pki_dir": "/nonexistent"}, raising=False)
        return pillar.ext_pillar(NODE, {}, *args, **kwargs)


def test_sound_records_give_no_error(cache):
    """Views of both meshes, and the digest of the facts."""
    found = compiled(cache, {}, True)
    assert found.keys() == {constants.PILLAR_VIEWS, constants.PILLAR_FACTS_DIGEST}
    assert found[constants.PILLAR_VIEWS].keys() == {"wg0", "wg1"}


@settings(deadline=None)
@given(damages=st.dictionaries(st.sampled_from(RECORDS), st.sampled_from(DAMAGES), min_size=1))
def test_damaged_record_costs_only_itself(cache, damages):
    """Whatever is damaged: nothing is raised, what is not is given unchanged, and an error or an absence says so."""
    sound, found = compiled(cache, {}), compiled(cache, damages)
    views = found.get(constants.PILLAR_VIEWS, {})
    for mesh, view in views.items():
        assert view == sound[constants.PILLAR_VIEWS][mesh]
    if (banks.NODES, NODE) not in damages:
        assert views.keys() >= {mesh for mesh in ("wg0", "wg1") if (banks.CURRENT, mesh) not in damages}
    if ("mine", NODE) not in damages:
        assert found[constants.PILLAR_FACTS_DIGEST] == sound[constants.PILLAR_FACTS_DIGEST]
    if any(isinstance(damages.get(record), Exception) for record in ((banks.NODES, NODE), ("mine", NODE))):
        assert found[constants.PILLAR_ERROR]


@pytest.mark.parametrize(("args", "kwargs"), [((True, "x"), {}), ((), {"driver": "redis"})], ids=["list", "mapping"])
def test_unknown_option_costs_no_pillar(cache, args, kwargs):
    """A line of the master's configuration is the only fault."""
    found = compiled(cache, {}, *args, **kwargs)
    assert found[constants.PILLAR_VIEWS].keys() == {"wg0", "wg1"}
    assert "has no option" in found[constants.PILLAR_ERROR]


def test_node_without_view_gets_the_failed_run():
    """The state that waits for a view knows the reason from the pillar; a node that has a view does not get it."""
    master = FakeMaster()
    master.ledger.save_failed_run(FailedRun(number=3, error="web1: a typo", reason="the policy has errors"))
    assert compiled(master.cache, {}) == {
        constants.PILLAR_FAILED_RUN: {"reason": "the policy has errors", "run": 3},
    }
    master.run_all()
    master.ledger.save_failed_run(FailedRun(number=1, error="web1: a typo", reason="the policy has errors"))
    assert compiled(master.cache, {}).keys() == {constants.PILLAR_VIEWS}
