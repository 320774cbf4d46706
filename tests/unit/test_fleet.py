"""Speaking to nodes: who answered, and who did not."""

import contextlib

import pytest
import salt.client

from saltext_wgmesh.core.errors import FleetError
from saltext_wgmesh.master import fleet


class Client:
    """Salt's client with a job cache in which one more node's return stands at each look."""

    def __init__(self, *returns):
        self.returns = returns
        self.looks = 0

    def run_job(self, nodes, function, tgt_type):
        assert (nodes, function, tgt_type) == (["db1", "web1", "web2"], "wgmesh.apply", "list")
        return {"jid": "1", "minions": nodes}

    def get_cache_returns(self, jid):
        assert jid == "1"
        self.looks += 1
        return dict(self.returns[: self.looks])


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(fleet.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(fleet.time, "sleep", sleep)
    return now


def ask(monkeypatch, client):
    monkeypatch.setattr(salt.client, "get_local_client", lambda **_: contextlib.nullcontext(client))
    return fleet.apply({}, ["web2", "web1", "db1"])


def test_it_ends_as_soon_as_all_have_answered(monkeypatch, clock):
    answers = [(node, {"ret": {"wg0": {"digest": "d"}}}) for node in ("web2", "db1", "web1")]
    assert ask(monkeypatch, Client(*answers)) == {node: {"wg0": {"digest": "d"}} for node in ("db1", "web1", "web2")}
    assert clock[0] < 1


def test_a_node_that_does_not_answer_is_missing_and_waited_for_a_bounded_time(monkeypatch, clock):
    assert ask(monkeypatch, Client(("db1", {"ret": 1}), ("stranger", {"ret": 2}))) == {"db1": 1}
    assert fleet.APPLYING.pause <= clock[0] <= fleet.APPLYING.pause + 1


def test_a_master_without_a_job_cache_is_an_error(monkeypatch):
    with pytest.raises(FleetError, match="job_cache"):
        fleet.links({"job_cache": False}, ["a"])
