"""Speaking to nodes: who answered, and who did not."""

import contextlib

import pytest
import salt.client

from saltext_wgmesh.core.errors import FleetError
from saltext_wgmesh.master import fleet


class Client:
    """Salt's client with a job cache in which one more node's return stands at each look."""

    def __init__(self, *returns, at_it=()):
        self.returns = returns
        self.at_it = at_it
        self.looks = 0
        self.inquiries = []

    def run_job(self, nodes, function, arg, tgt_type):
        assert tgt_type == "list"
        if function == "saltutil.find_job":
            assert arg == ("1",)
            self.inquiries.append(nodes)
            return {"jid": "2", "minions": nodes}
        assert (nodes, arg) == (["db1", "web1", "web2"], ())
        return {"jid": "1", "minions": nodes}

    def get_cache_returns(self, jid):
        if jid == "2":
            return {node: {"ret": {"jid": "1"} if node in self.at_it else {}} for node in self.inquiries[-1]}
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
    answered = ask(monkeypatch, Client(*answers))
    assert answered.returned == {node: {"wg0": {"digest": "d"}} for node in ("db1", "web1", "web2")}
    assert answered.jobs == {}
    assert clock[0] < 1


def test_a_node_that_neither_answers_nor_is_at_it_is_waited_for_a_bounded_time(monkeypatch, clock):
    answered = ask(monkeypatch, Client(("db1", {"ret": 1}), ("stranger", {"ret": 2})))
    assert answered.returned == {"db1": 1}
    assert answered.jobs == {"web1": "1", "web2": "1"}
    assert fleet.APPLYING.pause <= clock[0] <= fleet.APPLYING.pause + 1


def test_a_node_that_is_at_it_still_is_waited_for(monkeypatch, clock):
    slow = int(3 * fleet.APPLYING.pause / fleet.POLL)
    client = Client(("db1", {"ret": 1}), *[("db1", {"ret": 1})] * slow, ("web1", {"ret": 2}), at_it=("web1",))
    answered = ask(monkeypatch, client)
    assert answered.returned == {"db1": 1, "web1": 2}
    assert answered.jobs == {"web2": "1"}
    assert client.inquiries[0] == ["web1", "web2"]
    assert client.inquiries[-1] == ["web1"]


def test_a_node_that_is_at_it_for_ever_is_given_up(monkeypatch, clock):
    answered = ask(monkeypatch, Client(("db1", {"ret": 1}), at_it=("web1", "web2")))
    assert answered.returned == {"db1": 1}
    assert fleet.APPLYING.most <= clock[0] <= fleet.APPLYING.most + fleet.APPLYING.pause


@pytest.mark.parametrize(
    ("answered", "gone", "pause"),
    [
        (["db1", "web1"], {"web2"}, fleet.SHORT),
        (["db1"], {"web2"}, fleet.ASKING.pause),
        (["db1", "web1"], set(), fleet.ASKING.pause),
        ([], {"db1", "web1", "web2"}, fleet.ASKING.first),
    ],
    ids=["all silent seem gone", "one silent does not", "nobody tells", "nobody answered"],
)
def test_who_is_gone_by_what_others_answer_is_not_waited_for_long(monkeypatch, clock, answered, gone, pause):
    client = Client(*[(node, {"ret": {}}) for node in answered])
    monkeypatch.setattr(salt.client, "get_local_client", lambda **_: contextlib.nullcontext(client))
    returned = fleet.links({}, ["web2", "web1", "db1"], lambda said: gone if said else ())
    assert sorted(returned) == answered
    assert pause <= clock[0] <= pause + 0.5


def test_an_answer_that_came_late_is_found(monkeypatch):
    client = Client(("db1", {"ret": 1}))
    monkeypatch.setattr(salt.client, "get_local_client", lambda **_: contextlib.nullcontext(client))
    assert fleet.late({}, {"db1": "1", "web1": "1"}) == {"db1": 1}


@pytest.mark.parametrize(
    "opts", [{"job_cache": False}, {"ext_job_cache": "redis"}, {"pillar_cache": True}, {"minion_data_cache": False}]
)
def test_a_master_that_is_set_up_otherwise_is_an_error(opts):
    with pytest.raises(FleetError, match=next(iter(opts))):
        fleet.links(opts, ["a"])
