"""The converge as it is started: what is queued, what is reported, and what an error leaves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from salt.exceptions import SaltCacheError

from saltext_wgmesh.core.errors import NoPolicyError, PlanError, PolicyError, Problem, WgmeshError
from saltext_wgmesh.master.operator import plain, run_converge
from saltext_wgmesh.master.records import inventory
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.report import MeshReport
from saltext_wgmesh.master.requests import run_queue
from saltext_wgmesh.master.requests.reactions import queue_dir
from saltext_wgmesh.master.requests.request import ConvergeRequest, Request, RequestKind
from saltext_wgmesh.master.requests.run_queue import RunQueue
from tests.unit.harness.memory_cache import MemoryCache

HINT = Request(kind=RequestKind.HINT, value="a")
DRAIN = Request(kind=RequestKind.DRAIN, value="r1")


class FakeConverge:
    """A converge that records its requests, and gives the prepared results in turn: reports or an error."""

    def __init__(self, *results: list[MeshReport] | Exception) -> None:
        self.results = list(results)
        self.requests: list[ConvergeRequest] = []

    def __call__(self, _opts: dict[str, Any], request: ConvergeRequest, **_: bool) -> list[MeshReport]:
        self.requests.append(request)
        result = self.results.pop(0) if self.results else []
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def ledger(monkeypatch) -> Ledger:
    """The master's ledger, in memory."""
    made = Ledger(MemoryCache())  # type: ignore[arg-type]
    monkeypatch.setattr(run_converge.Ledger, "of", lambda _opts: made)
    return made


@pytest.fixture
def opts(tmp_path, ledger) -> dict[str, Any]:
    """A master on which an operator calls salt-run."""
    return {"cachedir": str(tmp_path), "__cli": "salt-run"}


@pytest.fixture
def use(monkeypatch):
    """Have runs call the given fake."""

    def install(*results: list[MeshReport] | Exception, down: tuple[str, ...] = ()) -> FakeConverge:
        fake = FakeConverge(*results)
        monkeypatch.setattr(run_converge.converge, "converge", fake)
        monkeypatch.setattr(inventory, "accepted_keys", lambda _opts: {})
        monkeypatch.setattr(run_converge.link_check, "await_links", lambda _opts, meshes: dict.fromkeys(meshes, down))
        return fake

    return install


def report(**values: Any) -> MeshReport:
    return MeshReport(mesh="wg0", generation=3, **values)


def queued(opts: dict[str, Any]) -> frozenset[Request]:
    """The requests that the next run would take, besides the one for that run."""
    (found,) = RunQueue(queue_dir(opts), interactive=True).run(lambda requests: requests)
    return found - {Request()}


def test_clean_run_returns_its_report(opts, use):
    """The report stands under the mesh's name, without an exit status."""
    fake = use([report(published=True, applied=("a",))])
    assert run_converge.run_converge(opts, DRAIN).as_dict() == {
        "wg0": {"mesh": "wg0", "generation": 3, "published": True, "applied": ["a"]}
    }
    assert fake.requests == [ConvergeRequest(drain=frozenset({"r1"}))]


def test_run_that_needs_attention_has_exit_status(opts, use):
    """salt-run exits with 1."""
    use([report(failed={"a": "no disk"})])
    found = run_converge.run_converge(opts).as_dict()
    assert found["retcode"] == 1
    assert found["wg0"]["failed"] == {"a": "no disk"}


def test_run_with_dead_link_has_exit_status(opts, use):
    """A mesh that carries nothing is no success, though all nodes have applied their views."""
    use([report(published=True, applied=("a",))], down=("a--r1",))
    found = run_converge.run_converge(opts).as_dict()
    assert (found["retcode"], found["wg0"]["down"]) == (1, ["a--r1"])


def test_background_run_asks_for_no_links(opts, use):
    """The schedule's runs go by the health: nobody waits for their exit status."""
    use([report(down=("a--r1",))], down=("b--r1",))
    found = run_converge.run_converge({**opts, "__cli": "salt-master"}).as_dict()
    assert (found["retcode"], found["wg0"]["down"]) == (1, ["a--r1"])


def test_unresponsive_nodes_are_asked_once_more(opts, use):
    """A busy node may answer late: the same call runs again, with hints."""
    fake = use([report(newly_unresponsive=("a",), newly_unanswered=("c",), psk_unacknowledged=("b",))])
    run_converge.run_converge(opts)
    assert fake.requests == [ConvergeRequest.EMPTY, ConvergeRequest(hints=frozenset({"a", "b", "c"}))]


def test_transition_goes_on_in_the_same_run(opts, use):
    """Until no step is due; what the rounds did is reported together."""
    fake = use([report(has_follow_up=True, applied=("a",))], [report(has_follow_up=True)], [report(applied=("b",))])
    found = run_converge.run_converge(opts).as_dict()
    step = ConvergeRequest(continue_transition=True)
    assert fake.requests == [ConvergeRequest.EMPTY, step, step]
    assert found["wg0"]["applied"] == ["a", "b"]


@pytest.mark.parametrize(
    "error",
    [PlanError([Problem(path="wgmesh:wg0", message="it is too small", remedy="enlarge it")]), ZeroDivisionError("x")],
    ids=["expected", "defect"],
)
def test_failed_run_keeps_requests_of_events(opts, use, error):
    """Events are not repeated; an operator gets the error and repeats the call."""
    use(error)
    with pytest.raises(type(error)):
        run_converge.run_converge(opts, HINT, DRAIN)
    assert queued(opts) == {HINT}


NO_POLICY = NoPolicyError([Problem(path="wgmesh", message="has no mesh", remedy="write one")])
TYPO = PolicyError([Problem(path="wgmesh:wg0:nodes:web1", message="has no key 'rol'", remedy="correct it")])


def background(opts):
    """The call of the schedule, and of the reactor."""
    return run_converge.run_converge_with({**opts, "__cli": "salt-master"})


@pytest.mark.parametrize("error", [NO_POLICY, TYPO, PermissionError(13, "denied", "/x"), SaltCacheError("unreadable")])
def test_background_failure_is_logged_once(opts, use, caplog, error):
    """The schedule repeats it each minute: one line, without a traceback, and nothing is raised."""
    use(*[error] * 3)
    assert [background(opts).as_dict() for _ in range(3)] == [{"error": str(error), "retcode": 1}] * 3
    (record,) = caplog.records
    assert str(error) in record.getMessage()
    assert not record.exc_info


@settings(deadline=None)
@given(results=st.lists(st.sampled_from([None, "a", "b"]), max_size=8))
def test_failure_is_logged_when_it_changes(tmp_path_factory, results):
    """None is a run without an error. The record of the last failure ends with it."""
    ledger = Ledger(MemoryCache())  # type: ignore[arg-type]
    opts = {"cachedir": str(tmp_path_factory.mktemp("master"))}
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_converge.Ledger, "of", lambda _opts: ledger)
        patch.setattr(run_converge.log, "error", lambda _text, error: lines.append(error))
        patch.setattr(run_queue.RateLimit, "delay", lambda _limit, _now: 0.0)
        patch.setattr(inventory, "accepted_keys", lambda _opts: {})
        patch.setattr(
            run_converge.converge,
            "converge",
            FakeConverge(*[[] if error is None else WgmeshError(error) for error in results]),
        )
        for error in results:
            background(opts)
            if error is None:
                ledger.save_idle_fingerprint("")
    changed = [now for before, now in zip([None, *results], results, strict=False) if now and now != before]
    assert lines == changed


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NO_POLICY, "the master has no policy yet"),
        (TYPO, "the policy has errors"),
        (WgmeshError("web1 is broken"), "the last run of the master failed"),
    ],
    ids=["no policy", "typo", "other"],
)
def test_failure_tells_nodes_nothing_of_others(opts, use, ledger, error, reason):
    """Each node gets the reason in its pillar, and a view is all that a node may learn of the mesh."""
    use(error, error)
    background(opts)
    background(opts)
    failed = ledger.failed_run()
    assert (failed.number, failed.error) == (2, str(error))
    assert failed.reason == f"{reason}; 'salt-run wgmesh.plan' on the master shows why"


def test_defect_in_background_run_is_logged_with_traceback(opts, use, caplog):
    """It is raised too: the job has failed."""
    use(ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        background(opts)
    (record,) = caplog.records
    assert record.exc_info


def test_error_of_interactive_run_is_not_logged(opts, use, caplog):
    """The operator sees it."""
    use(WgmeshError("no plan"))
    with pytest.raises(WgmeshError):
        run_converge.run_converge(opts)
    assert caplog.records == []


def test_background_call_during_a_run_returns_at_once(opts, use):
    """Its request is queued for the next round."""
    fake = use()
    with RunQueue(queue_dir(opts)).exclusive():
        found = plain.converged(run_converge.run_converge({**opts, "__cli": "salt-master"}, HINT))
    assert isinstance(found, str)
    assert "in progress" in found
    assert fake.requests == []
    assert queued(opts) == {HINT}


def test_interactive_call_gives_up_after_the_timeout(opts, use, monkeypatch):
    """It says that the request is queued, and the exit status is 1."""
    fake = use()
    monkeypatch.setattr(run_converge, "QUEUE_LOCK_TIMEOUT", 0.2)
    monkeypatch.setattr(run_converge, "RUN_POLL_INTERVAL", 0.05)
    with RunQueue(queue_dir(opts)).exclusive():
        found = plain.converged(run_converge.run_converge(opts, DRAIN))
    assert found["retcode"] == 1
    assert "queued" in found["busy"]
    assert fake.requests == []
    assert queued(opts) == {DRAIN}


def test_interactive_call_runs_when_the_other_has_ended(opts, use, monkeypatch):
    """It waits for its turn, and then takes its own request, which the other left."""
    fake = use([report()])
    other = RunQueue(queue_dir(opts)).exclusive()
    other.__enter__()
    monkeypatch.setattr(run_converge.time, "sleep", lambda _seconds: other.__exit__(None, None, None))
    assert run_converge.run_converge(opts, DRAIN).as_dict() == {
        "wg0": {"mesh": "wg0", "generation": 3, "published": False}
    }
    assert fake.requests == [ConvergeRequest(drain=frozenset({"r1"}))]


def test_parameters_become_requests(opts, use, monkeypatch):
    """Names without an accepted key are dropped; an id of digits, which salt-run reads as a number, is one."""
    monkeypatch.setattr(inventory, "is_accepted", lambda _opts, node: node in ("17", "a", "r1"))
    monkeypatch.setattr(run_converge.show, "require_held", lambda _opts, digest: str(digest))
    fake = use()
    run_converge.run_converge_with(opts, node=17, hint="a", started="forged", suspects="r1,forged", confirm=42)
    assert fake.requests == [
        ConvergeRequest(
            retry=frozenset({"17"}), hints=frozenset({"a"}), suspects=frozenset({"r1"}), confirm=frozenset({"42"})
        )
    ]


def test_mistyped_node_is_an_error(opts, use, monkeypatch):
    """Only events may name nodes that do not exist."""
    monkeypatch.setattr(inventory, "is_accepted", lambda _opts, _node: False)
    fake = use()
    with pytest.raises(WgmeshError, match="web9 is no accepted minion id"):
        run_converge.run_converge_with(opts, node="web9")
    assert fake.requests == []


def test_background_round_notes_keys_first(opts, use, monkeypatch):
    """A key that is revoked during a round is found after it."""
    noted = []
    fake = use([report()])
    monkeypatch.setattr(inventory, "accepted_keys", lambda _opts: noted.append(len(fake.requests)) or {})
    background(opts)
    assert set(noted) == {0}
