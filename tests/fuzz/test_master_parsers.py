"""Fuzzers of all that the master reads of nodes, of the operator and of its own disk."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PolicyError, ViewError, WgmeshError
from saltext_wgmesh.core.inputs.policy import parse_policy
from saltext_wgmesh.core.inputs.trusted_facts import parse_facts
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState
from saltext_wgmesh.core.model import untrusted
from saltext_wgmesh.master.records import banks
from saltext_wgmesh.master.records.inventory import Inventory
from saltext_wgmesh.master.records.push_answer import MAX_ERROR_LENGTH, parse_push_answer
from saltext_wgmesh.master.requests import reactions
from saltext_wgmesh.master.requests.rate_limit import RateLimit
from saltext_wgmesh.master.requests.request import MAX_VALUE_LENGTH, Request
from tests.fuzz.foreign import JSON, damaged, fuzz
from tests.unit.harness.fake_master import FakeMaster, link_reports, mine

ANSWER = {"wg0": {"digest": "0" * 64, "changed": True, "changes": ["x"], "error": "e", "rolled_back": True}}
REPORT = link_reports({"r1": ("wg0-u1", LinkState.DOWN), "r2": ("wg0-u2", LinkState.UP)})["wg0"]
POLICY = FakeMaster().policy


def published() -> FakeMaster:
    """A master that has published one generation."""
    master = FakeMaster()
    master.run()
    return master


RECORDS = {bank: keys for bank, keys in published().cache.banks.items() if keys}
PLACES = st.sampled_from([(bank, key) for bank in sorted(RECORDS) for key in sorted(RECORDS[bank])])


@fuzz
@given(entry=damaged(mine("a", next_key=None)))
def test_mine_entry_rejects_its_node_alone(entry: Any) -> None:
    """The facts of the other node are taken, whatever one node publishes."""
    found = Inventory(policy=None, accepted={}, mine={"a": entry, "b": mine("b")})
    parsed = parse_facts(found.mine, {"a": "key of a", "b": "key of b"})
    assert "b" in parsed.facts


@fuzz
@given(raw=damaged(POLICY))
def test_policy_is_parsed_or_refused(raw: Any) -> None:
    """The operator gets problems in words, not a traceback."""
    with contextlib.suppress(PolicyError):
        parse_policy(raw)


@fuzz
@given(answer=damaged(ANSWER))
def test_push_answer_is_bounded(answer: Any) -> None:
    """Whatever a node returns, the ledger gets a little of it."""
    parsed = parse_push_answer(answer, ["wg0"])
    assert parsed.meshes.keys() <= {"wg0"}
    texts = [parsed.error, *(part.error or "" for part in parsed.meshes.values())]
    assert all(len(text) <= MAX_ERROR_LENGTH and text.isprintable() for text in texts)


@fuzz
@given(raw=damaged(REPORT))
def test_link_report_is_parsed_or_refused(raw: Any) -> None:
    """A report that is taken can be written and shown."""
    with contextlib.suppress(ViewError):
        json.dumps(LinkReport.from_dict(untrusted.bounded(raw, untrusted.RETURN_BOUNDS)).as_dict())


@fuzz
@given(names=st.dictionaries(st.sampled_from(["hint", "started", "drifted", "suspects"]), JSON))
def test_event_leaves_short_names(tmp_path_factory: pytest.TempPathFactory, names: dict[str, Any]) -> None:
    """Any minion can forge any event: it is at most a request for a run."""
    found = reactions.converge_reaction({"cachedir": str(tmp_path_factory.mktemp("cache"))}, **names)
    assert len(str(found)) < (reactions.MAX_SUSPECTS + 4) * (MAX_VALUE_LENGTH + 40)


@fuzz
@given(data=st.data(), place=PLACES)
def test_ledger_record_is_used_or_named(data: st.DataObject, place: tuple[str, str]) -> None:
    """A run ends as usual, or with an error that names the record."""
    master, (bank, key) = published(), place
    master.cache.banks[bank][key] = data.draw(damaged(RECORDS[bank][key]))
    problem = ""
    try:
        master.run(retry="a")
    except WgmeshError as error:
        problem = str(error)
    # A generation has a policy and facts, and a head has addresses: these may be wrong, and well-formed.
    assert not problem or f"{bank} {key}" in problem or bank in (banks.HEADS, banks.GENERATIONS)
    assert not problem or bank not in (banks.NODES, banks.ACKS)


@fuzz
@given(text=st.text() | JSON.map(str) | st.sampled_from(["[" * 100_000, "9" * 5000]))
def test_own_files_of_queue_are_read(text: str) -> None:
    """A power failure leaves any text in a request and in the lock file."""
    Request.decode(text)
    assert RateLimit.decode(text).delay(1.0) >= 0
