"""What is made of the numbers that were heard, and one exchange and one conversation by way of the loopback."""

from __future__ import annotations

import errno
import os
import socket
import threading

from . import caster, talker
from .calm import flows
from .exchange import Delivery, Flow, delivery
from .sessions import Entry, Session, Sessions, disturbed

FLOW = Flow(source="a", target="b", address="10.0.0.2")


def test_ranges_of_numbers_need_no_order():
    assert caster.ranges([3, 0, 1, 7, 8, 1]) == [[0, 1], [3, 3], [7, 8]]


def test_gaps_are_what_lies_between_the_ranges():
    """At the beginning and at the end too."""
    cast = {"began": 1000.0, "turns": [n / 10 for n in range(10)]}
    found = delivery(FLOW, cast, [[1, 3], [6, 8]])
    assert found == Delivery(flow=FLOW, began=1000.0, sent=10, gaps=((0.0, 1), (0.4, 2), (0.9, 1)))
    assert found.lost == 4


def test_a_flow_of_which_nothing_was_heard_is_one_gap():
    assert delivery(FLOW, {"began": 0.0, "turns": [0.0, 0.1]}, []).gaps == ((0.0, 2),)


def test_a_flow_that_was_heard_has_no_gap():
    assert delivery(FLOW, {"began": 0.0, "turns": [0.0, 0.1]}, [[0, 1]]).lost == 0


def test_a_silence_is_the_longest_time_between_two_lines():
    """Lines may come in pieces, and a number that is not the next one counts as wrong."""
    hearing = talker.Hearing()
    for at, data in ((5.0, b"0\n1"), (5.5, b"\n"), (7.0, b"2\n"), (7.1, b"4\n")):
        hearing.take(data, at)
    assert (hearing.heard, hearing.wrong, hearing.longest, hearing.at) == (4, 1, 1.5, 0.5)


def test_a_conversation_that_the_other_end_leaves_is_broken(monkeypatch):
    """The one that was left says so, and how much it has heard."""
    ours, theirs = _pair()
    reader, writer = socket.socketpair()
    monkeypatch.setattr(talker.sys, "stdin", reader.makefile())
    monkeypatch.setattr(talker, "FAREWELL", 0.5)
    theirs.sendall(b"0\n1\n")
    theirs.shutdown(socket.SHUT_WR)
    said = talker.talk(ours)
    writer.close()
    assert said["broke"] == "the other end closed the connection"
    assert (said["heard"], said["wrong"]) == (2, 0)


def test_what_came_before_a_reset_is_heard(monkeypatch):
    """Though it is sending, not hearing, that meets the reset first."""
    ours, theirs = _pair()
    reader, writer = socket.socketpair()
    monkeypatch.setattr(talker.sys, "stdin", reader.makefile())
    ours.sendall(b"never read, so that closing is a reset\n")
    theirs.sendall(b"0\n1\n")
    theirs.close()
    said = talker.talk(ours)
    writer.close()
    assert os.strerror(errno.ECONNRESET) in said["broke"]
    assert (said["heard"], said["wrong"]) == (2, 0)


def test_two_that_talk_hear_all(monkeypatch):
    ours, theirs = _pair()
    reader, writer = socket.socketpair()
    monkeypatch.setattr(talker.sys, "stdin", reader.makefile())
    # Both ends have this standard input here; on machines of their own, one of them ends a little later.
    threading.Timer(0.4, writer.close).start()
    told: list[dict[str, object]] = []
    other = threading.Thread(target=lambda: told.append(talker.talk(theirs)))
    other.start()
    told.append(talker.talk(ours))
    other.join()
    assert all(one["broke"] is None and one["sent"] == other["heard"] for one, other in (told, told[::-1]))
    assert told[0]["sent"] > 4


def test_who_ends_first_breaks_nothing(monkeypatch):
    """The other goes on to talk until its own end comes, and is heard out."""
    ours, theirs = _pair()
    reader, writer = socket.socketpair()
    monkeypatch.setattr(talker.sys, "stdin", reader.makefile())
    theirs.sendall(b"0\n")
    theirs.shutdown(socket.SHUT_WR)
    threading.Timer(0.4, writer.close).start()
    said = talker.talk(ours)
    assert (said["broke"], said["heard"]) == (None, 1)
    assert said["sent"] == theirs.recv(65536).count(b"\n") > 4


def test_every_pair_is_a_flow_in_each_direction():
    """By IPv6 only with neighbours."""
    overlay = {name: (f"10.0.0.{n}", f"fd00::{n}") for n, name in enumerate("abcd", 1)}
    found = flows(overlay, list("abcd"))
    assert sum(":" not in flow.address for flow in found) == 12
    assert {(f.source, f.target) for f in found if ":" in f.address} == {
        ("a", "b"), ("b", "a"), ("b", "c"), ("c", "b"), ("c", "d"), ("d", "c"), ("a", "d"), ("d", "a"),
    }  # fmt: skip


SESSION = Session("key", 1000, 500, 500)


def test_a_session_that_goes_on_is_not_disturbed():
    """It may be renewed when its time has come."""
    assert _disturbed(Session("key", 1000, 600, 600)) == []
    assert _disturbed(Session("key", 1120, 600, 600)) == []


def test_sessions_that_do_not_go_on_are_named():
    assert _disturbed(None) == ["a: b on wg0: gone"]
    assert _disturbed(Session("other", 1000, 600, 600)) == ["a: b on wg0: another key"]
    assert _disturbed(Session("key", 1000, 10, 600)) == ["a: b on wg0: began anew"]
    assert _disturbed(Session("key", 0, 0, 0)) == ["a: b on wg0: began anew"]
    assert _disturbed(Session("key", 1030, 600, 600)) == ["a: b on wg0: a new session 30 s after the last"]


def test_nodes_that_are_concerned_may_begin_anew():
    assert _disturbed(None, {"a"}) == _disturbed(None, {"b"}) == []


def test_an_interface_with_another_number_was_made_anew():
    before, after = (Sessions({}, {("a", "wg0"): number}) for number in (4, 7))
    assert disturbed(before, after, ()) == ["a: wg0 was made anew"]


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
