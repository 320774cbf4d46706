"""Evaluation of received numbers and sessions, and conversations over the loopback."""

from __future__ import annotations

import errno
import os
import socket
import threading
from itertools import permutations

import pytest

from . import caster, talker
from .exchange import Delivery, Flow, delivery
from .lossless import flows
from .sessions import Entry, Session, Sessions, disturbed

FLOW = Flow(source="a", target="b", address="10.0.0.2")


def test_ranges_need_no_order():
    """Numbers in any order, with duplicates, become sorted ranges."""
    assert caster.ranges([3, 0, 1, 7, 8, 1]) == [[0, 1], [3, 3], [7, 8]]


def test_gaps_lie_between_ranges():
    """Gaps are the numbers before, between and after the received ranges, each with its time and length."""
    cast = {"began": 1000.0, "turns": [n / 10 for n in range(10)]}
    found = delivery(FLOW, cast, [[1, 3], [6, 8]])
    assert found == Delivery(flow=FLOW, began=1000.0, sent=10, gaps=((0.0, 1), (0.4, 2), (0.9, 1)))
    assert found.lost == 4


def test_flow_without_arrivals_is_one_gap():
    """A flow of which nothing arrived is one gap over all numbers."""
    assert delivery(FLOW, {"began": 0.0, "turns": [0.0, 0.1]}, []).gaps == ((0.0, 2),)


def test_complete_flow_has_no_gap():
    """A flow that arrived completely has lost nothing."""
    assert delivery(FLOW, {"began": 0.0, "turns": [0.0, 0.1]}, [[0, 1]]).lost == 0


def test_longest_silence_is_between_two_lines():
    """The longest silence has its length and its start. Lines may arrive in pieces, and a skipped number is wrong."""
    hearing = talker.Hearing()
    for at, data in ((5.0, b"0\n1"), (5.5, b"\n"), (7.0, b"2\n"), (7.1, b"4\n")):
        hearing.take(data, at)
    assert (hearing.heard, hearing.wrong, hearing.longest, hearing.at) == (4, 1, 1.5, 0.5)


def test_early_close_breaks_conversation(monkeypatch):
    """An end that is left before standard input ends reports that, and the number of lines that it heard."""
    ours, theirs = _pair()
    reader, writer = socket.socketpair()
    monkeypatch.setattr(talker.sys, "stdin", reader.makefile())
    monkeypatch.setattr(talker, "FAREWELL", 0.5)
    theirs.sendall(b"0\n1\n")
    theirs.shutdown(socket.SHUT_WR)
    report = talker.talk(ours)
    writer.close()
    assert report["broke"] == "the other end closed the connection"
    assert (report["heard"], report["wrong"]) == (2, 0)


def test_lines_before_reset_are_counted(monkeypatch):
    """Lines that arrived before a reset count, though the reset is found by sending."""
    ours, theirs = _pair()
    reader, writer = socket.socketpair()
    monkeypatch.setattr(talker.sys, "stdin", reader.makefile())
    ours.sendall(b"never read, so that closing is a reset\n")
    theirs.sendall(b"0\n1\n")
    theirs.close()
    report = talker.talk(ours)
    writer.close()
    assert os.strerror(errno.ECONNRESET) in report["broke"]
    assert (report["heard"], report["wrong"]) == (2, 0)


def test_both_ends_hear_all_lines(monkeypatch):
    """Each of two ends hears all lines of the other, and the connection does not break."""
    ours, theirs = _pair()
    reader, writer = socket.socketpair()
    monkeypatch.setattr(talker.sys, "stdin", reader.makefile())
    # Both ends share this standard input here. On machines of their own, one of them ends a little later.
    threading.Timer(0.4, writer.close).start()
    reports: list[dict[str, object]] = []
    other = threading.Thread(target=lambda: reports.append(talker.talk(theirs)))
    other.start()
    reports.append(talker.talk(ours))
    other.join()
    assert all(one["broke"] is None and one["sent"] == other["heard"] for one, other in (reports, reports[::-1]))
    assert reports[0]["sent"] > 4


def test_ordered_close_breaks_nothing(monkeypatch):
    """An end whose peer finishes first goes on until its own standard input ends. Nothing is broken or lost."""
    ours, theirs = _pair()
    reader, writer = socket.socketpair()
    monkeypatch.setattr(talker.sys, "stdin", reader.makefile())
    theirs.sendall(b"0\n")
    theirs.shutdown(socket.SHUT_WR)
    threading.Timer(0.4, writer.close).start()
    report = talker.talk(ours)
    assert (report["broke"], report["heard"]) == (None, 1)
    assert report["sent"] == theirs.recv(65536).count(b"\n") > 4


RING = {("a", "b"), ("b", "a"), ("b", "c"), ("c", "b"), ("c", "d"), ("d", "c"), ("a", "d"), ("d", "a")}


@pytest.mark.parametrize(("all_pairs", "by_ipv4"), [(True, set(permutations("abcd", 2))), (False, RING)])
def test_neighbours_have_flows_both_ways(all_pairs, by_ipv4):
    """Neighbours have flows of both families, in each direction. On request every pair has them by IPv4."""
    overlay = {name: (f"10.0.0.{n}", f"fd00::{n}") for n, name in enumerate("abcd", 1)}
    found = flows(overlay, list("abcd"), all_pairs=all_pairs)
    assert {(f.source, f.target) for f in found if ":" not in f.address} == by_ipv4
    assert {(f.source, f.target) for f in found if ":" in f.address} == RING


SESSION = Session("key", 1000, 500, 500)


def test_continued_session_is_not_disturbed():
    """A session with growing counters is not disturbed, also if it is renewed after its ordinary lifetime."""
    assert _disturbed(Session("key", 1000, 600, 600)) == []
    assert _disturbed(Session("key", 1120, 600, 600)) == []


def test_ended_session_is_named():
    """A session is named if its peer is gone, has another key, restarted, or was renewed too early."""
    assert _disturbed(None) == ["a: b on wg0: gone"]
    assert _disturbed(Session("other", 1000, 600, 600)) == ["a: b on wg0: another key"]
    assert _disturbed(Session("key", 1000, 10, 600)) == ["a: b on wg0: started again"]
    assert _disturbed(Session("key", 0, 0, 0)) == ["a: b on wg0: started again"]
    assert _disturbed(Session("key", 1030, 600, 600)) == ["a: b on wg0: a new session 30 s after the last"]


def test_session_of_concerned_node_may_end():
    """A session of a concerned node, at either end, is not named."""
    assert _disturbed(None, {"a"}) == _disturbed(None, {"b"}) == []


def test_interface_with_other_number_is_named():
    """An interface with another ifindex was recreated, and is named."""
    before, after = (Sessions({}, {("a", "wg0"): number}) for number in (4, 7))
    assert disturbed(before, after, ()) == ["a: wg0 was recreated"]


def _disturbed(after: Session | None, concerned: set[str] | None = None) -> list[str]:
    entry = Entry("a", "wg0", "b")
    numbers = {("a", "wg0"): 4}
    return disturbed(
        Sessions({entry: SESSION}, numbers), Sessions({entry: after} if after else {}, numbers), concerned or ()
    )


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]
