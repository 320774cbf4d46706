"""Jobs to nodes: which answers are waited for, and how long."""

import pytest
import salt.client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import FleetError
from saltext_wgmesh.master.fleet import jobs
from tests.unit.harness.salt_client import JOB, FakeClient, TimedClient

WAIT = jobs.apply_wait({})
QUERY = jobs.query_wait({})
NODES = ["web2", "web1", "db1"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(jobs.time, "sleep", sleep)
    return now


@pytest.fixture
def use(monkeypatch):
    """Have the library talk to the given client."""
    return lambda client: monkeypatch.setattr(salt.client, "get_local_client", lambda **_: client)


def test_apply_ends_when_all_have_answered(use, clock):
    """No timeout is waited for."""
    client = FakeClient(*[(node, {"ret": {"wg0": {"digest": "d"}}}) for node in ("web2", "db1", "web1")])
    use(client)
    result = jobs.run_apply({}, NODES)
    assert result.returned == {node: {"wg0": {"digest": "d"}} for node in ("db1", "web1", "web2")}
    assert result.unanswered == {}
    assert client.jobs == [(["db1", "web1", "web2"], "wgmesh.apply", ())]
    assert clock[0] < 1


def test_apply_without_retry_passes_the_argument(use, clock):
    """A node that rolled the view back is asked not to try it again."""
    client = FakeClient(("db1", {"ret": 1}))
    use(client)
    jobs.run_apply({}, ["db1"], retry_rolled_back=False)
    ((_, function, (argument,)),) = client.jobs
    assert function == "wgmesh.apply"
    assert argument == {"retry_rolled_back": False, "__kwarg__": True}


def test_apply_does_not_await_unlikely_nodes(use, clock):
    """Their answers are taken if they come; without them the others are enough."""
    use(FakeClient(("db1", {"ret": 1}), ("web1", {"ret": 2}), dead=("web2",)))
    result = jobs.run_apply({}, NODES, {"web2"})
    assert (result.returned, result.unanswered) == ({"db1": 1, "web1": 2}, {"web2": JOB})
    assert clock[0] < 2


def test_apply_gives_up_nodes_without_a_running_job(use, clock):
    """A node that neither answers nor runs the job is waited for a bounded time; strangers' returns are ignored."""
    use(FakeClient(("db1", {"ret": 1}), ("stranger", {"ret": 2})))
    result = jobs.run_apply({}, NODES)
    assert result.returned == {"db1": 1}
    assert result.unanswered == {"web1": JOB, "web2": JOB}
    assert WAIT.idle <= clock[0] <= WAIT.idle + 1


def test_apply_waits_for_a_running_job(use, clock):
    """A slow node that says that the job runs gets more time."""
    slow = int(3 * WAIT.idle / jobs.JOB_POLL_INTERVAL)
    client = FakeClient(("db1", {"ret": 1}), *[("db1", {"ret": 1})] * slow, ("web1", {"ret": 2}), running=("web1",))
    use(client)
    result = jobs.run_apply({}, NODES)
    assert result.returned == {"db1": 1, "web1": 2}
    assert result.unanswered == {"web2": JOB}
    assert client.inquiries[0] == ["web1", "web2"]
    assert client.inquiries[-1] == ["web1"]


def test_apply_waits_as_the_master_is_configured(use, clock):
    """Salt's own options say how long nodes of this master may take."""
    use(FakeClient(("db1", {"ret": 1})))
    jobs.run_apply({"timeout": 30, "gather_job_timeout": 20}, NODES)
    assert 30 <= clock[0] <= 31
    assert jobs.apply_wait({"timeout": 30, "gather_job_timeout": 20}).find_job.total == 20


@pytest.mark.parametrize(("timeout", "waited"), [(12, 12.0), (120, jobs.MAX_QUERY_TIMEOUT)])
def test_links_waits_as_the_master_is_configured(use, clock, timeout, waited):
    """Busy nodes are heard, and a long timeout does not delay the reaction to dead ones."""
    use(FakeClient())
    assert jobs.links({"timeout": timeout}, NODES).returned == {}
    assert waited <= clock[0] <= waited + 0.5


def test_apply_gives_up_endless_jobs(use, clock):
    """A job that never ends does not block the run."""
    use(FakeClient(("db1", {"ret": 1}), running=("web1", "web2")))
    assert jobs.run_apply({}, NODES).returned == {"db1": 1}
    assert WAIT.total <= clock[0] <= WAIT.total + WAIT.idle


@pytest.mark.parametrize(
    ("answered", "presumed_dead", "wait"),
    [
        (["db1", "web1"], {"web2"}, jobs.PRESUMED_DEAD_WAIT),
        (["db1"], {"web2"}, QUERY.idle),
        (["db1", "web1"], set(), QUERY.idle),
        ([], {"db1", "web1", "web2"}, QUERY.first_answer),
    ],
    ids=["all missing seem dead", "one missing does not", "no hint", "no answer"],
)
def test_links_ends_early_for_presumed_dead(use, clock, answered, presumed_dead, wait):
    """If all missing nodes are down by the answers of the others, the wait is short."""
    use(FakeClient(*[(node, {"ret": {}}) for node in answered]))
    returned = jobs.links({}, NODES, lambda answers: presumed_dead if answers else ()).returned
    assert sorted(returned) == answered
    assert wait <= clock[0] <= wait + 0.5


def test_late_return_is_found(use):
    """It is read from the job cache, and no node is asked."""
    client = FakeClient(("db1", {"ret": 1}))
    use(client)
    result = jobs.late_returns({}, {"db1": JOB, "web1": JOB})
    assert (result.returned, result.unanswered) == ({"db1": 1}, {"web1": JOB})
    assert client.jobs == []


@pytest.mark.parametrize(
    ("start", "function"), [(jobs.enrol, "wgmesh.enrol"), (jobs.renew, "wgmesh.renew_key")], ids=["enrol", "renew"]
)
def test_started_job_is_sent_in_batches(use, monkeypatch, start, function):
    """No return is waited for, and no job names more nodes than a batch has."""
    monkeypatch.setattr(jobs, "BATCH", 2)
    client = FakeClient()
    use(client)
    start({}, NODES)
    assert client.jobs == [(["db1", "web1"], function, ()), (["web2"], function, ())]
    assert client.reads == 0


@pytest.mark.parametrize(
    "opts", [{"job_cache": False}, {"ext_job_cache": "redis"}, {"pillar_cache": True}, {"minion_data_cache": False}]
)
def test_unsuitable_master_configuration_is_an_error(opts):
    """The error names the setting."""
    with pytest.raises(FleetError, match=next(iter(opts))):
        jobs.links(opts, ["a"])


def test_presumed_dead_node_that_answers_is_awaited(use, clock):
    """Its links are down, but it is there: its return is waited for as that of any other node."""
    slow = int(2 * WAIT.idle / jobs.JOB_POLL_INTERVAL)
    use(FakeClient(("db1", {"ret": 1}), *[("db1", {"ret": 1})] * slow, ("web1", {"ret": 2}), running=("web1",)))
    assert jobs.run_apply({}, ["db1", "web1"], ["web1"]).returned == {"db1": 1, "web1": 2}


def test_presumed_dead_node_costs_little(use, clock):
    """A node that does not even answer a question is given up within a second."""
    use(FakeClient(("db1", {"ret": 1}), dead=("web1",)))
    assert jobs.run_apply({}, ["db1", "web1"], ["web1"]).unanswered == {"web1": JOB}
    assert clock[0] <= 1.0


def test_impatient_run_spends_no_question(use, clock):
    """A node that kept earlier runs waiting is not asked whether it is still applying, and is named again."""
    client = FakeClient(("db1", {"ret": 1}), running=("web1",))
    use(client)
    result = jobs.run_apply({}, ["db1", "web1"], impatient_of=["web1"])
    assert (result.returned, result.unanswered) == ({"db1": 1}, {"web1": JOB})
    assert client.inquiries == []
    assert clock[0] <= WAIT.idle + 1


def test_urgent_run_is_awaited_by_no_node(use, clock):
    """A node that says for ever that it still applies gets no more time, and is not slow by that."""
    use(FakeClient(("db1", {"ret": 1}), running=("web1",)))
    result = jobs.run_apply({}, ["db1", "web1"], is_urgent=lambda: clock[0] > 0)
    assert (result.returned, result.unanswered, result.waited) == ({"db1": 1}, {"web1": JOB}, {})
    assert result.is_interrupted
    assert clock[0] <= 0.1


def test_urgent_run_ends_question(use, clock):
    """A revoked key waits for no link report."""
    use(FakeClient(("db1", {"ret": {}})))
    result = jobs.links({}, ["db1", "web1"], is_urgent=lambda: clock[0] > 1)
    assert (sorted(result.returned), result.waited, result.is_interrupted) == (["db1"], {}, True)
    assert clock[0] <= 1.1


def test_node_that_never_returns_is_waited_for(use, clock):
    """It keeps the run waiting for as long as any node can; nodes that return soon are not waited for."""
    use(FakeClient(("db1", {"ret": 1}), running=("web1",)))
    waited = jobs.run_apply({}, ["db1", "web1"]).waited
    assert waited.keys() == {"web1"}
    assert clock[0] - WAIT.idle - 1 <= waited["web1"] <= clock[0]
    use(FakeClient(("db1", {"ret": 1}), ("web1", {"ret": 1})))
    assert jobs.run_apply({}, ["db1", "web1"]).waited == {}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(late=st.floats(0.0, 9.0), honest=st.sampled_from([0, 2, 3, 5]), busy=st.floats(0.0, 1.0))
def test_answer_just_in_time_counts(use, clock, late, honest, busy):
    """The seconds that one late answer costs are its node's, and a busy master blames no node for its own delay."""
    clock[0] = 0.0
    use(TimedClient(clock, {**{f"h{i}": busy for i in range(honest)}, "late": late}))
    result = jobs.links({}, [*(f"h{i}" for i in range(honest)), "late"])
    others = busy if honest else 0.0
    cost = clock[0] - min(clock[0], others) - jobs.PRESUMED_DEAD_WAIT - 0.1
    assert result.waited.get("late", 0.0) >= cost
    assert not honest or result.waited.keys() <= {"late"}
