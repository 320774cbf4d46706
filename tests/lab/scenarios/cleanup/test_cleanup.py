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
    """Yield a tag that no other lab has, and stop its lab after the test."""
    tag = f"cleanup-{os.getpid()}"
    yield tag
    stop(tag)


def demo(tag: str, *options: str) -> subprocess.Popen[str]:
    """Start the demo as a user would. A background shell may ignore SIGINT, so its default is restored."""
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
    """Return the namespaces of these processes, or of all processes if None."""
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
    """Return the namespaces that the running lab has and this process does not."""
    return namespaces([p.pid for p in processes.tagged(tag)]) - namespaces([os.getpid()])


def host_files() -> dict[str, list[str]]:
    """Return the contents of the host's folders that a node writes to."""
    return {f: sorted(str(p) for p in Path(f).rglob("*")) for f in HOST_FOLDERS}


def assert_nothing_left(tag: str, own: set[str], before: dict[str, list[str]]) -> None:
    """Assert that no process, namespace, mount or file of the lab is left."""
    assert processes.tagged(tag) == []
    # A dead process keeps its namespaces until its parent, or init, has reaped it.
    wait_until(lambda: not namespaces() & own, 5, "the namespaces to end")
    mounts = Path("/proc/self/mountinfo").read_text()
    assert f".lab/{tag}" not in mounts
    assert "/run/.private" not in mounts
    assert not (LABS / tag).exists()
    assert host_files() == before


def test_finished_lab_leaves_nothing(tag: str):
    """A demo that ends normally removes everything."""
    before = host_files()
    run = demo(tag, "--only-underlay")
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0, out
    assert_nothing_left(tag, set(), before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("when", ["the first machine runs", "Salt runs"])
def test_interrupted_lab_leaves_nothing(tag: str, number: signal.Signals, status: int, when: str):
    """Ctrl-C and SIGTERM remove everything, at an early and at a late time."""
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


def test_kept_lab_leaves_nothing_when_stopped(tag: str):
    """A kept lab runs until it is stopped. It prints the command for that, and offers a shell on its machines."""
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


def test_stop_ends_daemons_without_parent(tag: str):
    """A daemon in a session of its own is found by its tag and ended."""
    env = {**os.environ, **processes.environment(tag, "nowhere")}
    subprocess.run(["sh", "-c", "setsid sleep 600 > /dev/null 2>&1 &"], env=env, check=True)
    wait_until(lambda: any("sleep 600" in p.command for p in processes.tagged(tag)), 10, "the daemon to run")
    stop(tag)
    assert processes.tagged(tag) == []


def test_stop_spares_lab_with_longer_tag(tag: str):
    """Only processes with the exact tag are ended."""
    other = f"{tag}0"
    with subprocess.Popen(["sleep", "600"], env={**os.environ, **processes.environment(other, "nowhere")}) as one:
        try:
            stop(tag)
            assert [p.pid for p in processes.tagged(other)] == [one.pid]
        finally:
            stop(other)
