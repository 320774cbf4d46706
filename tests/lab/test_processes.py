"""Processes of a lab. The tests need no root, since the tag is in the environment of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from . import processes
from .machine import REPOSITORY
from .wait import wait_until


@pytest.fixture
def tag() -> Iterator[str]:
    """Yield a tag of this test alone, and end its processes."""
    tag = f"unit-{os.getpid()}"
    yield tag
    processes.end_all(tag)


def sleeper(tag: str, machine: str = "m1") -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], env=processes.environment(tag, machine))


def test_favoured_process_has_priority(tag: str):
    """A process of the lab whose command line begins with the word gets the nice value; others keep theirs."""
    with sleeper(tag) as mine, sleeper(f"{tag}x") as other:
        with processes.favouring(tag, "sleep", 5, every=0.01):
            wait_until(lambda: os.getpriority(os.PRIO_PROCESS, mine.pid) == 5, 10, "the priority")
        assert os.getpriority(os.PRIO_PROCESS, other.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        processes.end_all(f"{tag}x")
        processes.end_all(tag)


def test_process_is_found_by_exact_tag(tag: str):
    """Only processes with the exact tag are found and ended."""
    with sleeper(tag) as mine, sleeper(f"{tag}x") as other:
        assert processes.tagged(tag) == [processes.Process(pid=mine.pid, machine="m1", command="sleep 600")]
        assert {tag, f"{tag}x"} <= processes.tags()
        processes.end_all(tag)
        assert mine.wait(5) == -9
        assert other.poll() is None
        processes.end_all(f"{tag}x")


def test_own_ancestors_are_never_found(tag: str):
    """A process and its ancestors are not found, so that a lab can be stopped from a shell on one of its machines."""
    script = (
        "import os; from tests.lab import processes as p;"
        "print([x.command for x in p.tagged(os.environ[p.TAG]) if x.pid in (os.getpid(), os.getppid())])"
    )
    env = {**os.environ, **processes.environment(tag, "m1"), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ended_process_has_no_parent(tag: str):
    """A running process has a parent and is one of its children. The parent of an ended one is 0."""
    with sleeper(tag) as one:
        assert processes.parent(one.pid) == os.getpid()
        assert one.pid in processes.children(os.getpid())
        one.kill()
    assert processes.parent(one.pid) == 0
