"""What ``salt-run`` says is down: asked of the nodes, with time for new links."""

from __future__ import annotations

import types
from typing import Any

import pytest

from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.master.operator import link_check, plain, status
from tests.unit.harness.fake_master import FakeFleet, FakeMaster, link_reports, reachable_by_commands

UP, NEW, DOWN = LinkState.UP, LinkState.NEW, LinkState.DOWN


class AskedMaster(FakeMaster):
    """A master whose nodes report the states that a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, dict[str, LinkState]] = {
            "r1": {"a": UP, "b": UP},
            "a": {"r1": UP},
            "b": {"r1": UP},
        }
        self.asked: list[list[str]] = []

    def links(self, nodes: list[str]) -> dict[str, Any]:
        self.asked.append(nodes)
        told = {node: {n: ("wg0", state) for n, state in self.states.get(node, {}).items()} for node in nodes}
        return {node: link_reports(links) for node, links in told.items() if node not in self.off}


@pytest.fixture
def master(monkeypatch: pytest.MonkeyPatch) -> AskedMaster:
    """A relay and two leaves that run what is published; each pause takes as long as it says."""
    made = AskedMaster()
    made.run()
    made.asked.clear()
    reachable_by_commands(made, monkeypatch)
    for module in (link_check, status):
        monkeypatch.setattr(module, "SaltFleet", lambda **_: FakeFleet(made))
    pauses: list[float] = []
    monkeypatch.setattr(link_check, "time", types.SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append))
    return made


def down(master: AskedMaster) -> tuple[str, ...]:
    """What is down in wg0 after the wait."""
    return link_check.await_links(master.opts, ["wg0"])["wg0"]


def test_healthy_mesh_costs_one_question(master):
    """The relays hear all other nodes, so they alone are asked."""
    assert down(master) == ()
    assert master.asked == [["r1"]]


def test_mesh_without_any_link_is_down(master):
    """The port of the relay is closed: no link ever was up, and each is named after the wait."""
    master.states = {"r1": {"a": NEW, "b": NEW}, "a": {"r1": NEW}, "b": {"r1": NEW}}
    assert down(master) == ("a--r1", "b--r1")
    assert len(master.asked) >= link_check.LINKS_TIMEOUT


def test_new_link_gets_time(master, monkeypatch):
    """A link that a watcher does not know yet is new, too."""
    master.states = {"r1": {"a": UP}, "a": {"r1": UP}, "b": {}}
    pause = link_check.time.sleep

    def comes_up(seconds: float) -> None:
        pause(seconds)
        master.states |= {"r1": {"a": UP, "b": UP}, "b": {"r1": UP}}

    monkeypatch.setattr(link_check.time, "sleep", comes_up)
    assert down(master) == ()
    assert len(master.asked) == 3


def test_dead_link_is_not_awaited(master):
    """Its watchers have given their verdict."""
    master.states |= {"r1": {"a": DOWN, "b": UP}, "a": {"r1": DOWN}}
    assert down(master) == ("a--r1",)
    assert master.asked == [["r1"], ["a"]]


def test_silent_mesh_is_down(master):
    """If no node answers, none of them is known to be up."""
    master.off = {"r1", "a", "b"}
    assert down(master) == ("a", "b", "r1")


def test_minion_that_stopped_is_not_down(master):
    """Its link carries on, as the relay reports."""
    master.off = {"a"}
    assert down(master) == ()
    found = plain.with_exit_status(status.status(master.opts))
    assert (found["wg0"]["nodes"]["a"]["answers"], "down" in found["wg0"], "retcode" in found) == (False, False, False)


def test_status_of_dead_link_has_exit_status(master):
    """salt-run exits with 1, and ``down`` says for which link; without questions only outages count."""
    assert "retcode" not in plain.with_exit_status(status.status(master.opts))
    master.states["r1"]["a"] = DOWN
    found = plain.with_exit_status(status.status(master.opts))
    assert (found["wg0"]["down"], found["retcode"]) == (["a--r1"], 1)
    assert "retcode" not in plain.with_exit_status(status.status(master.opts, live=False))
