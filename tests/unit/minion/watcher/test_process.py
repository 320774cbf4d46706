"""The log of a watcher without a journal is bounded, however much the watcher writes."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.minion.watcher import instance, process
from tests.unit.harness.fakehost import FakeHost, Kernel

SIZE = 1000
"""Bytes of a log in these tests."""


class Ended(Exception):
    """The supervisor was about to start the watcher again."""


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A node with a short log, on which a supervisor ends after one watcher."""
    monkeypatch.setattr(process, "MAX_LOG_SIZE", SIZE)
    monkeypatch.setattr(process, "CHECK_LOG_EVERY", 0.01)
    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=end))
    made = FakeHost.below(tmp_path, Kernel())
    made.run_dir.mkdir()
    return made


def end(_seconds):
    raise Ended


def sizes(host):
    return {path.name: path.stat().st_size for path in host.run_dir.iterdir()}


def supervised(host, monkeypatch, script):
    """Run a shell *script* in the watcher's place until it ends."""
    monkeypatch.setattr(process, "WATCHER_COMMAND", ("sh", "-c", script))
    with pytest.raises(Ended):
        process.supervise(host)


def test_log_is_bounded_while_watcher_runs(host, monkeypatch):
    """It writes a hundred times as much as the log may have, and is not started again in between."""
    script = f"for i in 1 2 3 4 5 6 7 8 9 10; do head -c {10 * SIZE} /dev/zero; sleep 0.3; done; echo last"
    supervised(host, monkeypatch, script)
    assert sizes(host)["watch.log"] <= 20 * SIZE
    assert sizes(host)["watch.log.1"] == SIZE
    assert (host.run_dir / "watch.log").read_bytes().endswith(b"last\n")


def test_watcher_runs_without_log(host, monkeypatch, tmp_path):
    """As on a full disk, or with a folder in the place of the log."""
    (host.run_dir / "watch.log").mkdir()
    supervised(host, monkeypatch, f"touch {tmp_path}/ran")
    assert (tmp_path / "ran").exists()


def test_short_log_stays(host):
    """It is put aside as soon as it is longer than the bound."""
    path = host.run_dir / "watch.log"
    path.write_bytes(b"x" * SIZE)
    process.bound_log(path)
    assert sizes(host) == {"watch.log": SIZE}


@given(st.lists(st.binary(max_size=3 * SIZE), max_size=10))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_last_text_is_kept_in_order(host, written):
    """After each look the two files have the end of what was written, and not more than the bound each."""
    path, other = host.run_dir / "watch.log", host.run_dir / "watch.log.1"
    for each in (path, other):
        each.unlink(missing_ok=True)
    everything = b""
    with open(path, "ab", buffering=0) as log_file:
        for text in written:
            log_file.write(text)
            everything += text
            process.bound_log(path)
            kept = (other.read_bytes() if other.exists() else b"") + path.read_bytes()
            assert everything.endswith(kept)
            assert max(sizes(host).values()) <= SIZE
            assert len(kept) >= min(len(everything), 1)


def test_watcher_prepares_before_it_ends_former(tmp_path, monkeypatch):
    """The node is without a watcher from the end of the former one until the loop runs: nothing else comes between."""
    made, done = FakeHost.below(tmp_path, Kernel()), []

    @contextmanager
    def locked(_host):
        done.append("lock")
        yield instance.Tenure.SUCCESSOR

    def noted(name):
        return lambda *_, **given: done.append((name, given) if given else name)

    for name in ("_raise_priority", "_raise_file_limit"):
        monkeypatch.setattr(process, name, noted(name))
    monkeypatch.setattr(process, "Host", lambda: made)
    monkeypatch.setattr(process, "single_instance", locked)
    monkeypatch.setattr(process, "Loop", lambda _host: SimpleNamespace(prepare=noted("prepare"), run=noted("run")))
    monkeypatch.setattr("sys.argv", ["process"])
    assert process.main() == 0
    assert done == ["_raise_priority", "_raise_file_limit", "prepare", "lock", ("run", {"is_successor": True})]


def test_supervisor_starts_no_watcher_beside_installed_one(host, monkeypatch):
    """The watcher of a supervisor that ended runs on. Another one would only find it, again and again."""
    with instance.single_instance(host):
        monkeypatch.setattr(process, "former_program", lambda *_: None)
        supervised(host, monkeypatch, "echo started")
        assert not (host.run_dir / "watch.log").exists()
        monkeypatch.setattr(process, "former_program", lambda *_: 4711)
        supervised(host, monkeypatch, "echo started")
        assert (host.run_dir / "watch.log").read_text() == "started\n"
