"""The run queue: one run at a time, and no request lost."""

import fcntl
import itertools
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.master.requests import run_queue
from saltext_wgmesh.master.requests.request import FROM_EVENTS, Request, RequestKind
from saltext_wgmesh.master.requests.run_queue import MAX_ATTEMPTS, RunQueue

RUN = Request()


def hint(node):
    return Request(kind=RequestKind.HINT, value=node)


def started(node):
    return Request(kind=RequestKind.STARTED, value=node)


def interactive(folder):
    """The queue as an operator's call has it: without rate limit."""
    return RunQueue(folder, interactive=True)


def in_threads(ask):
    """Do *ask* in eight threads at once."""
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


@pytest.fixture
def clock(monkeypatch):
    """A list with the monotonic time, which only sleeping moves. The clock of the day jumps by hours all the time."""
    now = [1000.0]

    def sleep(seconds):
        now[0] += seconds

    jumps = itertools.cycle([0.0, 7200.0, -90_000.0])
    monkeypatch.setattr(run_queue.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run_queue.time, "time", lambda: now[0] + next(jumps))
    monkeypatch.setattr(run_queue.time, "sleep", sleep)
    return now


def test_one_request_is_one_run(tmp_path):
    """Work is done once, and its result returned."""
    runs = []
    assert interactive(tmp_path).run(lambda _: runs.append(1) or len(runs)) == [1]
    assert runs == [1]


def test_requests_during_a_run_cause_one_more(tmp_path):
    """Fifty requests during a run return at once with nothing and cause exactly one further run."""
    began, go_on, runs = threading.Event(), threading.Event(), []

    def work(_):
        runs.append(1)
        if len(runs) == 1:
            began.set()
            assert go_on.wait(10)
        return len(runs)

    results = []
    runner = threading.Thread(target=lambda: results.append(interactive(tmp_path).run(work)))
    runner.start()
    assert began.wait(10)
    queued = [interactive(tmp_path).run(work) for _ in range(50)]
    go_on.set()
    runner.join(10)
    assert queued == [[]] * 50
    assert results == [[1, 2]]


def test_request_near_the_release_is_not_lost(tmp_path):
    """Many threads ask at random; each request is followed by a run that began after it."""
    lock, asked, seen = threading.Lock(), 0, 0

    def work(_):
        nonlocal seen
        with lock:
            seen = asked

    def ask():
        nonlocal asked
        for _ in range(100):
            with lock:
                asked += 1
            interactive(tmp_path).run(work)

    in_threads(ask)
    assert (asked, seen) == (800, 800)


def test_failed_run_releases_the_lock(tmp_path):
    """An error passes through, and the next request runs."""
    with pytest.raises(ZeroDivisionError):
        interactive(tmp_path).run(lambda _: 1 // 0)
    assert interactive(tmp_path).run(lambda _: "done") == ["done"]


def test_killed_run_leaves_its_requests_to_the_next(tmp_path):
    """A caller waits for the lock, not for that run. Requests that were queued in that run are there too."""
    drain, rotate = Request(kind=RequestKind.DRAIN, value="b"), Request(kind=RequestKind.ROTATE_KEY, value="a")

    def work(_):
        RunQueue(tmp_path).enqueue(rotate)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interactive(tmp_path).run(work, drain)
    assert interactive(tmp_path).run(lambda requests: requests) == [{drain, rotate, RUN}]


@given(
    st.lists(st.tuples(st.sampled_from(list(RequestKind)), st.sampled_from(["a", "b"]), st.booleans()), max_size=6),
    st.lists(st.sampled_from([ZeroDivisionError, WgmeshError, OSError, RecursionError, KeyboardInterrupt])),
)
@settings(deadline=None, max_examples=40)
def test_failed_runs_lose_no_request(tmp_path_factory, listed, errors):
    """However runs fail, and however often: those of events are in the first run that succeeds.

    Those of operators who wait for another run are so for a few failures. The caller of a run gets its error.
    """
    folder = tmp_path_factory.mktemp("queue")
    others = {Request(kind=kind, value=value) for kind, value, is_own in listed if not is_own}
    own = {Request(kind=kind, value=value) for kind, value, is_own in listed if is_own} - others
    for request in others:
        RunQueue(folder).enqueue(request)

    def fail(_):
        raise error("no disk")

    for number, error in enumerate(errors):
        with pytest.raises(error):
            interactive(folder).run(fail, *(own if number == 0 else ()))
        assert len(list(folder.glob("*/*"))) <= MAX_ATTEMPTS * len(others | own | {RUN})
    (left,) = interactive(folder).run(lambda requests: requests)
    assert left >= {request for request in others | own if errors and request.kind in FROM_EVENTS} - {RUN}
    if len(errors) < MAX_ATTEMPTS:
        assert left >= others
    elif KeyboardInterrupt not in errors:
        assert {request for request in left if request.kind not in FROM_EVENTS} == {RUN}


def test_request_asked_again_has_all_its_attempts(tmp_path):
    """An operator who repeats a request while runs fail does not take over the attempts of the first one."""
    drain = Request(kind=RequestKind.DRAIN, value="b")
    for _ in range(2 * MAX_ATTEMPTS):
        RunQueue(tmp_path).enqueue(drain)
        with pytest.raises(ZeroDivisionError):
            interactive(tmp_path).run(lambda _: 1 // 0)
    assert interactive(tmp_path).run(lambda requests: requests) == [{drain, RUN}]
    assert list(tmp_path.glob("*/*")) == []


def test_request_during_a_run_reaches_the_next_round(tmp_path):
    """Every request arrives in exactly one round, however often it was queued."""
    rounds = []

    def work(requests):
        rounds.append(requests)
        if len(rounds) == 1:
            for request in (hint("a"), hint("b"), hint("a")):
                assert interactive(tmp_path).run(work, request) == []

    interactive(tmp_path).run(work, started("c"))
    assert rounds == [{started("c")}, {hint("a"), hint("b")}]


def test_enqueue_if_running_queues_only_during_a_run(tmp_path):
    """During a run the requests are in the next round; otherwise nothing is queued, and the caller knows."""
    rounds, queued = [], []

    def work(requests):
        rounds.append(requests)
        if len(rounds) == 1:
            queue = RunQueue(tmp_path)
            queued.extend([queue.enqueue_if_running(hint("a"), hint("b")), queue.enqueue_if_running()])

    assert not RunQueue(tmp_path).enqueue_if_running(hint("a"))
    interactive(tmp_path).run(work, started("c"))
    assert queued == [True, True]
    assert rounds == [{started("c")}, {hint("a"), hint("b"), RUN}]
    assert not RunQueue(tmp_path).enqueue_if_running()


def test_enqueued_request_near_release_is_not_lost(tmp_path):
    """Many threads ask at random, by enqueueing or else by a run; each is followed by a run that began after it."""
    lock, asked, seen, queued = threading.Lock(), 0, 0, 0

    def work(_):
        nonlocal seen
        with lock:
            seen = asked

    def ask():
        nonlocal asked, queued
        for _ in range(100):
            with lock:
                asked += 1
            if RunQueue(tmp_path).enqueue_if_running():
                with lock:
                    queued += 1
            else:
                interactive(tmp_path).run(work)

    in_threads(ask)
    assert (asked, seen) == (800, 800)
    assert queued


def test_run_is_seen_on_every_file_system(tmp_path, monkeypatch):
    """Device numbers as of btrfs, where stat(2) and the kernel's list of locks give different ones, do not matter."""
    monkeypatch.setattr(os, "minor", lambda _device: 4095)
    with RunQueue(tmp_path).exclusive():
        assert RunQueue(tmp_path).is_running()
        assert RunQueue(tmp_path).is_running()
    assert not RunQueue(tmp_path).is_running()


def test_question_turns_no_caller_away(tmp_path):
    """A caller gets the lock while a process looks whether a run is in progress."""
    queue = RunQueue(tmp_path)
    queue.is_running()
    with open(tmp_path / "converge.running") as asked:
        fcntl.flock(asked, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (asked, fcntl.LOCK_UN)).start()
        assert interactive(tmp_path).run(lambda requests: requests) == [{RUN}]


def test_request_lost_by_power_failure_starts_run(tmp_path):
    """A file that was created and never written asks for a run."""
    queue = interactive(tmp_path)
    queue.enqueue(hint("a"))
    next((tmp_path / "requests").iterdir()).write_text("")
    assert queue.run(lambda requests: requests, hint("b")) == [{RUN, hint("b")}]


def test_unusable_request_is_dropped_after_one_run(tmp_path):
    """A file of another version is read once: it neither fails the run nor stays."""
    queue = interactive(tmp_path)
    (tmp_path / "requests" / "other").write_text('{"kind": "of another version", "value": "a"}')
    (tmp_path / "requests" / "binary").write_bytes(b"\xff\x00")
    assert queue.run(lambda requests: requests, hint("b")) == [{RUN, hint("b")}]
    assert [path.name for folder in ("requests", "in-progress") for path in (tmp_path / folder).iterdir()] == []


def test_exclusive_caller_keeps_runs_away(tmp_path, monkeypatch):
    """Requests are queued; and a second exclusive caller gives up after the timeout."""
    with RunQueue(tmp_path).exclusive():
        assert RunQueue(tmp_path).run(lambda _: 1, hint("a")) == []
        monkeypatch.setattr(run_queue, "QUEUE_LOCK_TIMEOUT", 0.1)
        with pytest.raises(WgmeshError, match="another wgmesh run"), RunQueue(tmp_path).exclusive():
            pass
    assert interactive(tmp_path).run(lambda requests: requests) == [{RUN, hint("a")}]


@pytest.mark.parametrize("follow_up", [False, True], ids=["done", "has follow-up"])
def test_interactive_caller_stops_serving_after_a_minute(tmp_path, monkeypatch, follow_up):
    """It leaves the requests of others to the next caller, unless its own change has a follow-up."""
    now = [0.0]
    monkeypatch.setattr(run_queue.time, "monotonic", lambda: now[0])
    rounds = []

    def work(requests):
        rounds.append(requests)
        now[0] += 20.0
        if len(rounds) < 10:
            RunQueue(tmp_path).enqueue(hint("a"))

    drain = Request(kind=RequestKind.DRAIN, value="r1")
    interactive(tmp_path).run(work, drain, has_follow_up=lambda _: follow_up)
    assert len(rounds) == (10 if follow_up else 4)
    left = set() if follow_up else {hint("a")}
    assert interactive(tmp_path).run(lambda requests: requests) == [{RUN, *left}]


def test_runs_are_limited_to_a_burst(tmp_path, clock):
    """Five at once, then five in each five seconds, also over processes; an interactive caller does not wait."""
    begun = []
    for _ in range(11):
        RunQueue(tmp_path).run(lambda _: begun.append(clock[0] - 1000))
    assert begun == [0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 10]
    interactive(tmp_path).run(lambda _: begun.append(clock[0] - 1000))
    assert begun[-1] == 10


def test_run_without_changes_is_followed_by_a_pause(tmp_path, clock):
    """The pause is as long as the run, at most ten seconds; a run that made changes is followed by none."""
    begun, takes, changes = [], [2.0], []

    def work(_):
        begun.append(clock[0] - 1000)
        clock[0] += takes[0]

    def ask():
        RunQueue(tmp_path).run(work, made_changes=lambda _: bool(changes))

    for _ in range(7):
        ask()
    assert begun == [0, 2, 4, 6, 8, 12, 16]
    changes.append(True)
    ask()
    ask()
    assert begun[7:] == [20, 22]
    changes.clear()
    takes[0] = 60.0
    ask()
    ask()
    assert begun[9:] == [24, 94]


def test_urgent_run_ends_the_pause(tmp_path, clock):
    """A run that is no longer to be put off begins within a second."""
    begun = []
    for _ in range(6):
        RunQueue(tmp_path).run(lambda _: begun.append(clock[0] - 1000), is_urgent=lambda: clock[0] >= 1002)
    assert begun == [0, 0, 0, 0, 0, 2]


def test_boot_delays_ten_seconds_at_most(tmp_path, clock):
    """The clock begins again. A run that seems to have begun in the future does not block the queue."""
    begun = []
    for _ in range(5):
        RunQueue(tmp_path).run(lambda _: begun.append(clock[0]))
    clock[0] = 500.0
    RunQueue(tmp_path).run(lambda _: begun.append(clock[0]))
    assert 500.0 <= begun[-1] <= 510.0
