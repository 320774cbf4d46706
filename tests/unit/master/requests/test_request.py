"""Requests: as files of the queue, and together as the request of one run."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.master.requests.request import MAX_VALUE_LENGTH, ConvergeRequest, Request, RequestKind


@pytest.mark.parametrize("kind", RequestKind)
def test_request_written_is_read_back(kind):
    """Each kind survives the queue, with any characters in its value."""
    request = Request(kind=kind, value='relay-1 "ä\n')
    assert Request.decode(request.encode()) == request


@pytest.mark.parametrize("text", ["", "{", "\x00" * 10])
def test_request_not_json_asks_for_a_run(text):
    """A power failure left the file; the run finds what the event reported."""
    assert Request.decode(text) == Request(kind=RequestKind.RUN)


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "reboot", "value": "a"},
        {"kind": "hint"},
        {"kind": "hint", "value": 5},
        {"kind": "hint", "value": ["a"]},
        {"kind": "hint", "value": "a" * (MAX_VALUE_LENGTH + 1)},
        {"kind": ["hint"], "value": "a"},
        {"value": "a"},
        ["hints", "a"],
        [],
        "hint",
        None,
        5,
    ],
)
def test_request_unusable_is_dropped_and_logged(raw, caplog):
    """Neither another version nor a forged file makes the run fail, or reaches it."""
    assert Request.decode(json.dumps(raw)) is None
    (record,) = caplog.records
    assert "dropped a queued request" in record.getMessage()
    assert len(record.getMessage()) < 2 * MAX_VALUE_LENGTH


def test_request_with_long_value_is_refused():
    """No caller can fill the queue with large files."""
    assert Request(kind=RequestKind.HINT, value="a" * MAX_VALUE_LENGTH).value
    with pytest.raises(WgmeshError, match="at most 255"):
        Request(kind=RequestKind.HINT, value="a" * (MAX_VALUE_LENGTH + 1))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (RequestKind.RUN, ConvergeRequest()),
        (RequestKind.HINT, ConvergeRequest(hints=frozenset({"a", "b"}))),
        (RequestKind.SUSPECT, ConvergeRequest(suspects=frozenset({"a", "b"}))),
        (RequestKind.STARTED, ConvergeRequest(started=frozenset({"a", "b"}))),
        (RequestKind.DRIFTED, ConvergeRequest(drifted=frozenset({"a", "b"}))),
        (RequestKind.RETRY, ConvergeRequest(retry=frozenset({"a", "b"}))),
        (RequestKind.CONTINUE_TRANSITION, ConvergeRequest(continue_transition=True)),
        (RequestKind.DRAIN, ConvergeRequest(drain=frozenset({"a", "b"}))),
        (RequestKind.UNDRAIN, ConvergeRequest(undrain=frozenset({"a", "b"}))),
        (RequestKind.CONFIRM, ConvergeRequest(confirm=frozenset({"a", "b"}))),
        (RequestKind.REBALANCE, ConvergeRequest(rebalance=True)),
        (RequestKind.ROTATE_KEY, ConvergeRequest(rotate=frozenset({"a", "b"}))),
        (RequestKind.ROTATE_PSK, ConvergeRequest(rotate_psk=frozenset({"a", "b"}))),
    ],
)
def test_requests_of_one_kind_set_one_field(kind, expected):
    """Values of a kind are collected; kinds without a value are flags."""
    assert ConvergeRequest.of([Request(kind=kind, value="a"), Request(kind=kind, value="b")]) == expected


def test_every_kind_is_in_the_test_above():
    """A new kind without a field would be lost silently: each field has its kind, and RUN has none."""
    assert len(RequestKind) == len(fields(ConvergeRequest)) + 1


def test_no_requests_are_the_empty_one():
    """A run without requests has nothing to look at."""
    assert ConvergeRequest.of([]) == ConvergeRequest.EMPTY
    assert not ConvergeRequest.EMPTY.forces_run


@pytest.mark.parametrize("kind", RequestKind)
def test_hints_alone_force_no_run(kind):
    """The survey judges hints; all other kinds are work even if nothing changed."""
    passive = {RequestKind.RUN, RequestKind.HINT, RequestKind.SUSPECT}
    assert ConvergeRequest.of([Request(kind=kind, value="a")]).forces_run == (kind not in passive)
