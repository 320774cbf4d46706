"""What the prober makes of answers, without sending any."""

from __future__ import annotations

from . import prober


def probing(sent: list[tuple[str, int, float]], answers: dict[int, tuple[str, bool, float]]) -> prober.Probing:
    """Requests (address, hops, time) and the answers to some of them (sender, arrived, time)."""
    made = prober.Probing([])
    made.sent, made.answers = sent, answers
    return made


def test_the_checksum_is_that_of_rfc_1071():
    """The example of the RFC's section 3: the sum ddf2, complemented."""
    assert prober.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


def test_a_path_ends_where_the_target_answered():
    sent = [("t", 1, 0.0), ("t", 2, 0.0), ("t", 3, 0.0), ("t", 64, 1.0), ("t", 64, 2.0)]
    answers = {0: ("r1", False, 0.1), 1: ("t", True, 0.1), 2: ("t", True, 0.1), 3: ("t", True, 1.004)}
    assert prober._result(probing(sent, answers), "t", 3) == {"rtt_ms": [4.0], "path": ["r1", "t"]}


def test_a_silent_router_leaves_a_hole():
    sent = [("t", 1, 0.0), ("t", 2, 0.0), ("t", 3, 0.0)]
    answers = {0: ("r1", False, 0.1), 2: ("t", True, 0.1)}
    assert prober._result(probing(sent, answers), "t", 3) == {"rtt_ms": [], "path": ["r1", None, "t"]}


def test_round_trips_count_replies_only():
    """An error that comes back for a plain request is no arrival."""
    sent = [("t", 64, 0.0), ("t", 64, 0.0)]
    answers = {0: ("r1", False, 0.1), 1: ("t", True, 0.002)}
    assert prober._result(probing(sent, answers), "t", 0)["rtt_ms"] == [2.0]


def test_a_gap_lasts_until_the_next_answered_request():
    sent = [("t", 64, 10.0 + n / 10) for n in range(6)]
    answers = dict.fromkeys((0, 3, 4), ("t", True, 11.0))
    assert prober._loss(probing(sent, answers), "t", 10.0) == {
        "sent": 6,
        "lost": 3,
        "gaps": [[0.1, 0.2], [0.5, 0.0]],
    }


def test_streams_are_told_apart():
    sent = [("a", 64, 0.0), ("b", 64, 0.0), ("a", 64, 0.1), ("b", 64, 0.1)]
    answers = {0: ("a", True, 0.1), 1: ("b", True, 0.1), 2: ("a", True, 0.2)}
    lost = {address: prober._loss(probing(sent, answers), address, 0.0)["lost"] for address in ("a", "b")}
    assert lost == {"a": 0, "b": 1}
