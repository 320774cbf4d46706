"""The gate: one at a time, and no request forgotten."""

import threading

import pytest

from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.master.gate import Gate


def test_one_request_is_one_run(tmp_path):
    """Work is done once, and its result returned."""
    runs = []
    assert Gate(tmp_path, hurry=True).run(lambda _: runs.append(1) or len(runs)) == [1]
    assert runs == [1]


def test_who_asks_meanwhile_gets_one_more_run_however_many_they_are(tmp_path):
    """Fifty requests during a run return at once with nothing and cause exactly one further run."""
    started, go_on, runs = threading.Event(), threading.Event(), []

    def work(_):
        runs.append(1)
        if len(runs) == 1:
            started.set()
            assert go_on.wait(10)
        return len(runs)

    results = []
    holder = threading.Thread(target=lambda: results.append(Gate(tmp_path, hurry=True).run(work)))
    holder.start()
    assert started.wait(10)
    meanwhile = [Gate(tmp_path, hurry=True).run(work) for _ in range(50)]
    go_on.set()
    holder.join(10)
    assert meanwhile == [[]] * 50
    assert results == [[1, 2]]


def _in_threads(ask):
    """Eight at once."""
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_no_request_falls_between_the_last_look_and_the_release(tmp_path):
    """Of many threads that ask at random, every request is followed by a run that began after it."""
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
            Gate(tmp_path, hurry=True).run(work)

    _in_threads(ask)
    assert (asked, seen) == (800, 800)


def test_a_failed_run_leaves_the_gate_open(tmp_path):
    """An error passes through, and the next request runs."""
    with pytest.raises(ZeroDivisionError):
        Gate(tmp_path, hurry=True).run(lambda _: 1 // 0)
    assert Gate(tmp_path, hurry=True).run(lambda _: "done") == ["done"]


def test_what_a_run_took_that_was_killed_is_heeded_by_the_next(tmp_path):
    """Whoever asked for it waits for the gate, not for that run. Of what failed its caller is told."""

    def work(words):
        Gate(tmp_path).leave(("rotate", "a"))
        raise KeyboardInterrupt if ("drain", "b") in words else ZeroDivisionError

    with pytest.raises(KeyboardInterrupt):
        Gate(tmp_path, hurry=True).run(work, ("drain", "b"))
    with pytest.raises(ZeroDivisionError):
        Gate(tmp_path, hurry=True).run(lambda words: 1 // 0 if words == {("drain", "b"), ("rotate", "a"), ()} else None)
    assert Gate(tmp_path, hurry=True).run(lambda words: words) == [{()}]


def test_what_was_asked_meanwhile_is_heeded_by_the_next_round(tmp_path):
    """Every word arrives in exactly one round, however often it was left."""
    rounds = []

    def work(words):
        rounds.append(words)
        if len(rounds) == 1:
            for word in (("hint", "a"), ("hint", "b"), ("hint", "a")):
                assert Gate(tmp_path, hurry=True).run(work, word) == []

    Gate(tmp_path, hurry=True).run(work, ("started", "c"))
    assert rounds == [{("started", "c")}, {("hint", "a"), ("hint", "b")}]


def test_what_is_passed_on_is_heeded_once_by_who_runs(tmp_path):
    """While somebody runs, words are left for the next round; while nobody does, nothing is, and the caller knows."""
    rounds, passed = [], []

    def work(words):
        rounds.append(words)
        if len(rounds) == 1:
            passed.extend([Gate(tmp_path).pass_on(("hint", "a"), ("hint", "b")), Gate(tmp_path).pass_on()])

    assert not Gate(tmp_path).pass_on(("hint", "a"))
    Gate(tmp_path, hurry=True).run(work, ("started", "c"))
    assert passed == [True, True]
    assert rounds == [{("started", "c")}, {("hint", "a"), ("hint", "b"), ()}]
    assert not Gate(tmp_path).pass_on()


def test_nothing_that_is_passed_on_falls_between_the_last_look_and_the_release(tmp_path):
    """Of many threads that ask at random, by passing on or else by a run, each is followed by a run that began after
    it."""
    lock, asked, seen, passed = threading.Lock(), 0, 0, 0

    def work(_):
        nonlocal seen
        with lock:
            seen = asked

    def ask():
        nonlocal asked, passed
        for _ in range(100):
            with lock:
                asked += 1
            if Gate(tmp_path).pass_on():
                with lock:
                    passed += 1
            else:
                Gate(tmp_path, hurry=True).run(work)

    _in_threads(ask)
    assert (asked, seen) == (800, 800)
    assert passed


def test_where_the_kernel_tells_of_no_locks_nothing_is_passed_on(tmp_path, monkeypatch):
    """Who asks calls then, as before."""
    monkeypatch.setattr("saltext_wgmesh.master.gate.PROC_LOCKS", tmp_path / "none")
    passed = []
    Gate(tmp_path, hurry=True).run(lambda _: passed.append(Gate(tmp_path).pass_on()), ("started", "c"))
    assert passed == [False]


def test_what_power_left_unwritten_of_a_word_asks_for_a_run(tmp_path):
    gate = Gate(tmp_path, hurry=True)
    gate.leave(("hint", "a"))
    next((tmp_path / "words").iterdir()).write_text("")
    assert gate.run(lambda words: words, ("hint", "b")) == [{(), ("hint", "b")}]


def test_one_who_is_alone_has_others_wait(tmp_path, monkeypatch):
    """They leave their word; and whoever wants to be alone waits for who runs, up to a minute."""
    with Gate(tmp_path).alone():
        assert Gate(tmp_path).run(lambda _: 1, ("hint", "a")) == []
        monkeypatch.setattr("saltext_wgmesh.master.gate.PATIENCE", 0.1)
        with pytest.raises(WgmeshError, match="another run"), Gate(tmp_path).alone():
            pass
    assert Gate(tmp_path, hurry=True).run(lambda words: words) == [{(), ("hint", "a")}]


@pytest.mark.parametrize("more", [False, True], ids=["heeded", "goes on"])
def test_a_caller_in_a_hurry_does_not_run_for_others_for_ever(tmp_path, monkeypatch, more):
    """After a minute, unless what it began goes on, it leaves what others ask to the next call."""
    now = [0.0]
    monkeypatch.setattr("saltext_wgmesh.master.gate.time.monotonic", lambda: now[0])
    rounds = []

    def work(words):
        rounds.append(words)
        now[0] += 20.0
        if len(rounds) < 10:
            Gate(tmp_path).leave(("hint", "a"))

    Gate(tmp_path, hurry=True).run(work, ("drain", "r1"), goes_on=lambda _: more)
    assert len(rounds) == (10 if more else 4)
    assert Gate(tmp_path, hurry=True).run(lambda words: words) == [{(), *(() if more else [("hint", "a")])}]


@pytest.fixture
def clock(monkeypatch):
    """A list with the time, which only sleeping moves."""
    now = [1000.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr("saltext_wgmesh.master.gate.time.time", lambda: now[0])
    monkeypatch.setattr("saltext_wgmesh.master.gate.time.sleep", sleep)
    return now


def test_runs_are_spaced_unless_the_caller_is_in_a_hurry(tmp_path, clock):
    """Five at once, then five in each five seconds; also over processes, by the lock file alone."""
    begun = []
    for _ in range(11):
        Gate(tmp_path).run(lambda _: begun.append(clock[0] - 1000))
    assert begun == [0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 10]
    Gate(tmp_path, hurry=True).run(lambda _: begun.append(clock[0] - 1000))
    assert begun[-1] == 10


def test_runs_that_come_to_nothing_are_spaced_by_what_they_take(tmp_path, clock):
    """As long again; one that did something makes nobody wait for that, and no pause is longer than ten seconds."""
    begun, takes, fruitful = [], [2.0], []

    def work(_):
        begun.append(clock[0] - 1000)
        clock[0] += takes[0]

    def ask():
        Gate(tmp_path).run(work, fruitful=lambda _: bool(fruitful))

    for _ in range(7):
        ask()
    assert begun == [0, 2, 4, 6, 8, 12, 16]
    fruitful.append(True)
    ask()
    ask()
    assert begun[7:] == [20, 22]
    fruitful.clear()
    takes[0] = 60.0
    ask()
    ask()
    assert begun[9:] == [24, 94]


def test_a_clock_that_was_set_back_makes_nobody_wait_long(tmp_path, clock):
    """Ten seconds at most."""
    begun = []
    for _ in range(5):
        Gate(tmp_path).run(lambda _: begun.append(clock[0]))
    clock[0] = 500.0
    Gate(tmp_path).run(lambda _: begun.append(clock[0]))
    assert begun[-1] == 510.0
