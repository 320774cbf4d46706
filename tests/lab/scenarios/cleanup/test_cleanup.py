"""Nothing of a lab outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ... import processes
from ...lab import LABS, stop
from ...machine import REPOSITORY
from ...wait import wait_until

HOST_FOLDERS = ("/etc/wireguard", "/var/lib/wgmesh", "/run/wireguard", "/run/salt", "/var/cache/salt", "/etc/salt")
KINDS = ("net", "mnt", "pid", "uts", "ipc")


@pytest.fixture
def tag() -> Iterator[str]:
    """A tag that no other lab has; what is left of its lab is ended after the test."""
    tag = f"cleanup-{os.getpid()}"
    yield tag
    stop(tag)


def demo(tag: str, *options: str) -> subprocess.Popen[str]:
    """The demo, as a user would start it: whoever runs this in the background may have SIGINT ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lab", "--tag", tag, "demo", *options],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def namespaces(pids: list[int] | None = None) -> set[str]:
    """The namespaces of these processes; of all, if None."""
    which = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()] if pids is None else pids
    found = set()
    for pid in which:
        for kind in KINDS:
            try:
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
            except OSError:
                continue
    return found


def of_lab(tag: str) -> set[str]:
    """The namespaces that a running lab has and this process does not."""
    return namespaces([p.pid for p in processes.tagged(tag)]) - namespaces([os.getpid()])


def host_files() -> dict[str, list[str]]:
    """What stands in the folders of the host that a node writes to."""
    return {f: sorted(str(p) for p in Path(f).rglob("*")) for f in HOST_FOLDERS}


def assert_nothing_left(tag: str, own: set[str], before: dict[str, list[str]]) -> None:
    """No process, no namespace, no mount, no file."""
    assert processes.tagged(tag) == []
    # A dead process keeps its namespaces until its parent, or init, has taken note of its death.
    wait_until(lambda: not namespaces() & own, 5, "the namespaces to end")
    mounts = Path("/proc/self/mountinfo").read_text()
    assert f".lab/{tag}" not in mounts
    assert "/run/.private" not in mounts
    assert not (LABS / tag).exists()
    assert host_files() == before


def test_a_lab_that_ends_by_itself(tag: str):
    """The demo's own end removes everything."""
    before = host_files()
    run = demo(tag, "--only-underlay")
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0, out
    assert_nothing_left(tag, set(), before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("when", ["the first machine runs", "Salt runs"])
def test_a_lab_that_is_interrupted(tag: str, number: signal.Signals, status: int, when: str):
    """Ctrl-C and SIGTERM end all, early or late."""
    before = host_files()
    run = demo(tag)

    def reached() -> bool:
        assert run.poll() is None, run.stdout.read()
        commands = [p.command for p in processes.tagged(tag)]
        if when == "Salt runs":
            return sum("salt-minion" in c for c in commands) > 9 and any("salt-master" in c for c in commands)
        return any(c == "sleep infinity" for c in commands)

    wait_until(reached, 60, when, every=0.02)
    own = of_lab(tag)
    assert own
    run.send_signal(number)
    out, _ = run.communicate(timeout=30)
    assert run.returncode == status, out
    assert_nothing_left(tag, own, before)


def test_a_lab_that_was_kept(tag: str):
    """It stays until it is stopped, says how to do that, and gives a shell on its machines."""
    before = host_files()
    run = demo(tag, "--only-underlay", "--keep")
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0, out
    assert f"stop {tag}" in out
    own = of_lab(tag)
    assert own
    lab = [sys.executable, "-m", "tests.lab"]
    shell = [*lab, "--tag", tag, "shell", "web1", "hostname"]
    assert subprocess.run(shell, cwd=REPOSITORY, capture_output=True, text=True).stdout == "web1\n"
    subprocess.run([*lab, "stop", tag], cwd=REPOSITORY, check=True, capture_output=True)
    assert_nothing_left(tag, own, before)


def test_stopping_ends_daemons_that_left_their_parent(tag: str):
    """A process that became a daemon, in a session of its own, is found by its tag."""
    env = {**os.environ, **processes.environment(tag, "nowhere")}
    subprocess.run(["sh", "-c", "setsid sleep 600 > /dev/null 2>&1 &"], env=env, check=True)
    wait_until(lambda: any("sleep 600" in p.command for p in processes.tagged(tag)), 10, "the daemon to run")
    stop(tag)
    assert processes.tagged(tag) == []


def test_a_tag_that_begins_alike_is_another_lab(tag: str):
    """Only the exact tag counts."""
    other = f"{tag}0"
    with subprocess.Popen(["sleep", "600"], env={**os.environ, **processes.environment(other, "nowhere")}) as one:
        try:
            stop(tag)
            assert [p.pid for p in processes.tagged(other)] == [one.pid]
        finally:
            stop(other)
