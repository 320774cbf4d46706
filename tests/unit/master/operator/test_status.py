"""The status names a node whose clock was ahead: its neighbours refuse its handshakes for a while."""

from __future__ import annotations

import time

import pytest

from saltext_wgmesh.core.liveness.mesh_health import Health, Outage
from saltext_wgmesh.master.operator import status
from saltext_wgmesh.master.records import inventory

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
