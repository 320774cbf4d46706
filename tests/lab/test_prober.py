"""The prober's evaluation of answers, without sending packets."""

from __future__ import annotations

from . import prober


def probing(sent: list[tuple[str, int, float]], answers: dict[int, tuple[str, bool, float]]) -> prober.Probing:
    """Requests (address, hops, time) and the answers to some of them (sender, arrived, time)."""
    made = prober.Probing([])
    made.sent, made.answers = sent, answers
    return made


def test_checksum_follows_rfc_1071():
    """The example of the RFC's section 3: the sum ddf2, complemented."""
    assert prober.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


def test_path_ends_at_target():
    """The path ends with the first answer of the target. Plain requests give the round trip."""
    sent = [("t", 1, 0.0), ("t", 2, 0.0), ("t", 3, 0.0), ("t", 64, 1.0), ("t", 64, 2.0)]
    answers = {0: ("r1", False, 0.1), 1: ("t", True, 0.1), 2: ("t", True, 0.1), 3: ("t", True, 1.004)}
    assert prober._result(probing(sent, answers), "t", 3) == {"rtt_ms": [4.0], "path": ["r1", "t"]}


def test_silent_router_is_null_in_path():
    """A router that does not answer is None in the path."""
    sent = [("t", 1, 0.0), ("t", 2, 0.0), ("t", 3, 0.0)]
    answers = {0: ("r1", False, 0.1), 2: ("t", True, 0.1)}
    assert prober._result(probing(sent, answers), "t", 3) == {"rtt_ms": [], "path": ["r1", None, "t"]}


def test_round_trips_count_replies_only():
    """An error message in answer to a plain request is no round trip."""
    sent = [("t", 64, 0.0), ("t", 64, 0.0)]
    answers = {0: ("r1", False, 0.1), 1: ("t", True, 0.002)}
    assert prober._result(probing(sent, answers), "t", 0)["rtt_ms"] == [2.0]


def test_gap_ends_at_next_answered_request():
    """A gap lasts until the next answered request. A gap of the last request has no length."""
    sent = [("t", 64, 10.0 + n / 10) for n in range(6)]
    answers = dict.fromkeys((0, 3, 4), ("t", True, 11.0))
    assert prober._loss(probing(sent, answers), "t", 10.0) == {
        "sent": 6,
        "lost": 3,
        "gaps": [[0.1, 0.2], [0.5, 0.0]],
    }


def test_streams_are_counted_separately():
    """Lost requests are counted for each address."""
    sent = [("a", 64, 0.0), ("b", 64, 0.0), ("a", 64, 0.1), ("b", 64, 0.1)]
    answers = {0: ("a", True, 0.1), 1: ("b", True, 0.1), 2: ("a", True, 0.2)}
    lost = {address: prober._loss(probing(sent, answers), address, 0.0)["lost"] for address in ("a", "b")}
    assert lost == {"a": 0, "b": 1}
