"""The wait of a join for its first neighbour."""

from __future__ import annotations

import types

import pytest

from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.minion.apply import apply, first_link, removal
from saltext_wgmesh.minion.state import link_report_file
from tests.nodeviews import key, leaf
from tests.unit.harness.fakehost import FakeHost


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of the wait, on a clock that only they move."""
    made: list[float] = []
    clock = types.SimpleNamespace(monotonic=lambda: sum(made), sleep=made.append)
    monkeypatch.setattr(first_link, "time", clock)
    return made


def reported(host: FakeHost, state: LinkState) -> None:
    """The watcher reports the link to n1."""
    link = LinkStatus(neighbour="n1", interface="wg0-u1", state=state, since=1.0)
    link_report_file.write_report(host, LinkReport(mesh="wg0", from_watcher=True, links={"n1": link}))


def test_silent_relay_is_named_after_patience(host: FakeHost, ticks: list[float]) -> None:
    """The wait ends with the cause, and not before its time."""
    apply.apply(host, leaf(relays=(1,)))
    reported(host, LinkState.NEW)
    host.kernel.devices["wg0-u1"].peers[key(1)].sent = 148
    assert first_link.await_first_links(host, ["wg0"], 5.0) == (
        "wg0: 0 of 1 links up: n1 (192.0.2.10:51820) did not answer 148 bytes sent; is UDP 51820 open there?",
    )
    assert 5.0 <= sum(ticks) < 6.0


def test_wait_ends_with_first_link(host: FakeHost, ticks: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """One relay of two is enough to have joined."""
    apply.apply(host, leaf())
    reported(host, LinkState.NEW)
    pause = ticks.append

    def comes_up(seconds: float) -> None:
        pause(seconds)
        reported(host, LinkState.UP)

    monkeypatch.setattr(first_link.time, "sleep", comes_up)
    assert first_link.await_first_links(host, ["wg0"], 30.0) == ()
    assert len(ticks) == 1


def test_each_silent_mesh_is_named(host: FakeHost, ticks: list[float]) -> None:
    """One mesh that carries does not hide another that does not."""
    apply.apply(host, leaf(relays=(1,)))
    apply.apply(host, leaf(relays=(1,), mesh="wg1", port=51900))
    reported(host, LinkState.UP)
    (found,) = first_link.await_first_links(host, ["wg0", "wg1"], 2.0)
    assert found.startswith("wg1: 0 of 1 links up: ")


def test_mesh_without_neighbours_is_not_awaited(host: FakeHost, ticks: list[float]) -> None:
    """Neither is a mesh that the node has left meanwhile."""
    apply.apply(host, leaf(relays=()))
    apply.apply(host, leaf(relays=(1,), mesh="wg1", port=51900))
    removal.remove_mesh(host, "wg1")
    assert first_link.await_first_links(host, ["wg0", "wg1"], 30.0) == ()
    assert ticks == []
