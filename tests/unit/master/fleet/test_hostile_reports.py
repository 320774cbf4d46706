"""Link reports of a hostile node: one line of the log, no state of others, and nothing that controls a terminal."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness.link_report import MAX_LINKS, LinkReport, LinkState
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.master.fleet import link_survey
from saltext_wgmesh.master.fleet.jobs import JobResult
from saltext_wgmesh.master.operator import status
from saltext_wgmesh.master.records.published import Published, published
from tests.unit.harness.fake_master import FakeFleet, FakeMaster, link_reports
from tests.unit.harness.hostile import nested

ESC = "\x1b[2J\nforged line"
JUNK = st.sampled_from(
    [nested(960), ESC, "x" * 100_000, 10**5000, float("nan"), {1: 2, "a": 3}, [], None, True, {}, b"\xff", {"a": ESC}]
)
SOUND = link_reports({"r1": ("wg0-u1", LinkState.UP)})
SOUND_REPORT = LinkReport.from_dict(SOUND["wg0"])
MAX_LINE = 500


class TellingMaster(FakeMaster):
    """A master whose node *a* returns *told* to the question for its links."""

    told: Any = None

    def links(self, nodes: list[str]) -> dict[str, Any]:
        """Only the hostile node answers."""
        return {"a": self.told} if "a" in nodes else {}


def spoilt(place: str, junk: Any) -> Any:
    """A sound return, of which one value is *junk*, or one name if a name can be that."""
    told: Any = copy.deepcopy(SOUND)
    report = told["wg0"]
    link = report["links"]["r1"]
    if place == "all":
        return junk
    if place == "mesh name":
        return {junk if isinstance(junk, (str, bytes, int)) else "m": report}
    if place == "neighbour":
        report["links"] = {junk if isinstance(junk, (str, bytes, int)) else "n": link, "r1": link}
    owner = {"report": told, "link": report["links"]}.get(place, link if place in link else report)
    owner[{"report": "wg0", "link": "r1"}.get(place, place)] = junk
    return told


PLACES = [
    "all",
    "mesh name",
    "neighbour",
    "report",
    "link",
    "schema",
    "mesh",
    "links",
    "relay_faults",
    *SOUND["wg0"]["links"]["r1"],
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), junk=JUNK)
def test_hostile_report_is_one_short_line(caplog: pytest.LogCaptureFixture, place: str, junk: Any) -> None:
    """No value ends the survey; what is kept can be shown, and the log has at most one printable line of it."""
    caplog.clear()
    master = TellingMaster()
    master.told = spoilt(place, junk)
    with caplog.at_level(logging.INFO):
        found = link_survey.query(FakeFleet(master), ["a"])
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 1
    assert all(line.isprintable() and len(line) < MAX_LINE for line in lines)
    for mesh, report in found["a"].items():
        assert isinstance(report, LinkReport)
        assert all(name.isprintable() for name in (mesh, *report.links, *report.relay_faults))


def test_many_meshes_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred thousand names cost what one costs."""
    master = TellingMaster()
    master.told = {f"m{i}": {} for i in range(100_000)}
    assert link_survey.query(FakeFleet(master), ["a"]) == {"a": {}}
    assert len(caplog.records) == 1
    master.told = {"wg0": {**SOUND["wg0"], "links": {str(i): {} for i in range(MAX_LINKS + 1)}}}
    assert link_survey.query(FakeFleet(master), ["a"]) == {"a": {}}


def test_status_shows_names_of_plan() -> None:
    """Neighbours that the plan does not have are left out, and a fault of a relay is on one line."""
    master = TellingMaster()
    master.run()
    up = ("wg0-u1", LinkState.UP)
    master.told = link_reports({"r1": up, **{f"x{i}": up for i in range(500)}})
    master.told["wg0"]["relay_faults"] = [ESC, "y" * 10_000]
    shown = _shown(master, published(master.ledger, "wg0"))
    assert list(shown["links"]) == ["r1"]
    assert all(fault.isprintable() and len(fault) <= MAX_LINE for fault in shown["relay_faults"])


def _shown(master: TellingMaster, what: Published) -> dict[str, Any]:
    reports = link_survey.query(FakeFleet(master), ["a"])
    node = status._node(master.ledger, what, master.ledger.head("wg0"), "a", {"a": ""}, reports)
    assert isinstance(what.plan.views["a"], View)
    return node.as_dict("wg0")


def test_answer_to_push_is_kept_short() -> None:
    """Whatever a node answers, its record is small and can be shown."""
    master = FakeMaster()
    for answer in (ESC * 1000, {"wg0": {"digest": "d" * 10_000_000, "error": ESC * 1000, "rolled_back": True}}):
        master.applied = lambda node, answer=answer: answer if node == "a" else FakeMaster.applied(master, node)
        master.policy["wg0"]["mtu"] = 1400 if isinstance(answer, str) else 1380
        report = master.run()
        assert report.failed["a"].isprintable()
        assert len(repr(master.ledger.ack("a").as_dict())) < 3000


class PollingFleet(FakeFleet):
    """Nodes of which one never answers: the others are asked many times whether it is dead."""

    def links(self, nodes: Sequence[str], presumed_dead: Any = None, **_: Any) -> JobResult:
        """The answer of *a*, after fifty looks at the job cache."""
        found = super().links(nodes)
        for _ in range(50):
            presumed_dead(dict(found.returned))
        return found


def test_large_return_is_read_once_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A return may have megabytes, and the master looks at the job cache many times a second."""
    master, read = TellingMaster(), []
    master.run()
    master.told = {"wg0": SOUND["wg0"]}
    master.env = dataclasses.replace(master.env, fleet=PollingFleet(master))
    monkeypatch.setattr(LinkReport, "from_dict", lambda raw: read.append(raw) or SOUND_REPORT)
    master.run(hints={"a"})
    assert len(read) == 2
