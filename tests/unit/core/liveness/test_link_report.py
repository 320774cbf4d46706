"""The link report: which links routes must avoid, and its plain form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.liveness.link_report import (
    MAX_FAULT,
    MAX_FAULTS,
    NEVER_UP,
    DownLink,
    LinkAvailability,
    LinkReport,
    LinkState,
    LinkStatus,
)


def status(neighbour: str, state: LinkState, since: float = 5.0, *, session_up: bool = False) -> LinkStatus:
    return LinkStatus(neighbour=neighbour, interface="wg0", state=state, since=since, session_up=session_up)


def report(*links: LinkStatus) -> LinkReport:
    return LinkReport(mesh="wg0", from_watcher=True, links={link.neighbour: link for link in links})


HELD_DOWN = DownLink(availability=LinkAvailability.HELD_DOWN)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        pytest.param(status("a", LinkState.UP), None, id="up"),
        pytest.param(status("a", LinkState.BLACKHOLE), None, id="blackhole"),
        pytest.param(status("a", LinkState.NEW), NEVER_UP, id="new"),
        pytest.param(
            status("a", LinkState.DOWN), DownLink(availability=LinkAvailability.FAILED, since=5.0), id="failed"
        ),
        pytest.param(status("a", LinkState.DOWN, session_up=True), HELD_DOWN, id="hold-down"),
        pytest.param(status("a", LinkState.ADMIN_DOWN), HELD_DOWN, id="admin-down"),
    ],
)
def test_down_each_state_has_its_availability(link: LinkStatus, expected: DownLink | None) -> None:
    """Routes avoid a link that is down, new or admin-down; a blackhole is up, and listed apart."""
    made = report(link)
    assert dict(made.down) == ({} if expected is None else {"a": expected})
    assert made.blackholed == ({"a"} if link.state is LinkState.BLACKHOLE else set())


def test_down_links_sort_by_chance_to_carry() -> None:
    """The last resort is the greatest: a held-down link, then the failed link that went down last, then a new one."""
    made = report(
        status("new", LinkState.NEW, 9.0),
        status("early", LinkState.DOWN, 7.0),
        status("late", LinkState.DOWN, 8.0),
        status("held", LinkState.DOWN, 1.0, session_up=True),
    )
    assert sorted(made.down, key=lambda n: made.down[n]) == ["new", "early", "late", "held"]


STATUSES = st.builds(
    LinkStatus,
    neighbour=st.sampled_from("abc"),
    interface=st.just("wg0-u1"),
    state=st.sampled_from(LinkState),
    since=st.floats(0, 1e10),
    hold=st.floats(0, 60),
    interval=st.integers(0, 1000),
    admin_down_acknowledged=st.booleans(),
    session_up=st.booleans(),
)


@given(st.lists(STATUSES, unique_by=lambda link: link.neighbour).map(lambda links: report(*links)), st.booleans())
def test_from_dict_plain_form_is_the_report(made: LinkReport, from_watcher: bool) -> None:
    """``from_dict`` is the inverse of ``as_dict``, for every state."""
    made = LinkReport(mesh="wg0", from_watcher=from_watcher, links=made.links)
    assert LinkReport.from_dict(made.as_dict()) == made


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"schema": 0}, id="other schema"),
        pytest.param({"links": {"a": {}}}, id="a link without fields"),
        pytest.param({"mesh": 7}, id="a mesh that is no text"),
    ],
)
def test_from_dict_damaged_report_raises_view_error(change: dict[str, object]) -> None:
    """A report of another version or with other types is refused."""
    with pytest.raises(ViewError, match="damaged"):
        LinkReport.from_dict({**report().as_dict(), **change})


def test_from_dict_former_schema_reads_as_present():
    """A node that is not upgraded yet reports by the former keys and the former state of a blackhole."""
    link = {"interface": "wg0-u1", "state": "mute", "since": 7.0, "hold": 0.0, "interval": 100, "heard": True}
    raw = {
        "schema": 1,
        "mesh": "wg0",
        "watched": True,
        "links": {"r1": link, "r2": {**link, "state": "up"}},
    }
    report = LinkReport.from_dict(raw)
    assert report.from_watcher
    assert [report.links[n].state for n in ("r1", "r2")] == [LinkState.BLACKHOLE, LinkState.UP]
    assert [report.links[n].session_up for n in ("r1", "r2")] == [True, True]


@given(st.lists(st.text(max_size=2 * MAX_FAULT), max_size=2 * MAX_FAULTS))
def test_from_dict_bounds_and_escapes_faults(faults: list[str]) -> None:
    """A node writes its faults itself, and a terminal shows them: each is one short line, and they are few."""
    raw = {**LinkReport(mesh="wg0", from_watcher=True).as_dict(), "relay_faults": ["\x1b[2J\n", *faults]}
    found = LinkReport.from_dict(raw).relay_faults
    assert len(found) <= MAX_FAULTS
    assert all(len(fault) <= MAX_FAULT and fault.isprintable() for fault in found)
