"""The status names a node whose clock was ahead: its neighbours refuse its handshakes for a while."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import salt.cache

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness.mesh_health import Health, Outage
from saltext_wgmesh.master.operator import status
from saltext_wgmesh.master.records import inventory
from tests.unit.harness.fake_master import FakeMaster, mine, reachable_by_commands

NOW = 1.7e9


def entry(seconds_ahead: float) -> dict[str, str]:
    return {"observed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + seconds_ahead))}


def test_node_whose_clock_was_ahead_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a node with an outage is looked at; facts that say no time, or a time just ahead, say nothing."""
    mine = {"a": entry(86_400.0), "b": entry(10.0), "c": entry(86_400.0), "d": {"observed_at": 7}, "r1": None}
    monkeypatch.setattr(inventory, "mine_entry", lambda _cache, node: mine[node])
    monkeypatch.setattr("salt.cache.factory", lambda _opts: None)
    outage = Outage(since=NOW, reporters=())
    health = Health(nodes={"b": outage}, links={("a", "r1"): outage, ("b", "d"): outage})
    assert list(status._clocks_ahead({}, health, NOW)) == ["a"]
    assert "ahead of the master's" in status._clocks_ahead({}, health, NOW)["a"]


def test_status_explains_link_of_clock_ahead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the facts in Salt's own cache to what the operator reads."""
    master = FakeMaster()
    master.now = NOW
    reachable_by_commands(master, monkeypatch)
    master.run()
    opts = {"cache": "localfs", "cachedir": str(tmp_path), "extension_modules": str(tmp_path / "ext")}
    for node, ahead in (("a", 86_400.0), ("b", 0.0)):
        stored = {constants.FACTS_FUNCTION: mine(node, **entry(ahead))}
        salt.cache.factory(opts).store(f"minions/{node}", "mine", stored)
    outage = Outage(since=NOW, reporters=("r1",))
    master.ledger.save_health("wg0", Health(nodes={}, links={("a", "r1"): outage, ("b", "r1"): outage}))
    found = status.status(opts, live=False)["wg0"].clocks
    assert list(found) == ["a"]
    assert "neighbours refuse handshakes of an earlier time" in found["a"]
