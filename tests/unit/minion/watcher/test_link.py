"""A link whose watcher is replaced: the neighbour's session goes on, and takes the new one for the one before."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness.bfd import BfdState, Diagnostic, Packet, Session, decode
from saltext_wgmesh.core.liveness.link_report import LinkState, LinkStatus
from saltext_wgmesh.minion.watcher.link import MonitoredLink
from saltext_wgmesh.minion.watcher.link_verdict import recall
from tests.unit.harness.watcher import EPOCH, Links, uplink

STEP = 0.002
"""Seconds."""
REPORTED = LinkStatus(neighbour="n1", interface="wg0-1", state=LinkState.UP, since=EPOCH - 100)


def new_watchers_link(now: float, discriminator: int, interval: int = 100_000, former: float = 0.0) -> MonitoredLink:
    """The link of a watcher that begins at second *now* and reads the report of one before.

    *interval* is this end's own, in microseconds; *former* is the one that was negotiated, in seconds.
    """
    link = uplink(1)
    link.session = Session(discriminator=discriminator, interval=interval, multiplier=3)
    recall(link, REPORTED, now, EPOCH + now)
    link.await_former_session(now, former)
    return link


@dataclass
class Pair:
    """The two ends of one link, each with the verdict of its watcher; None: no watcher runs there."""

    intervals: tuple[int, int]
    """Of each end, in microseconds. A relay of many leaves has a longer one than they."""
    delay: float
    random: Random
    ends: list[Links | None] = field(init=False)
    now: float = 0.0
    flying: list[tuple[float, int, bytes]] = field(default_factory=list)
    downs: list[str] = field(default_factory=list)
    begun: int = 0
    negotiated: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Seconds between two packets of each end, as its last watcher reported."""

    def __post_init__(self) -> None:
        self.ends = [self._begin(0), self._begin(1)]

    def _begin(self, i: int) -> Links:
        self.begun += 1
        return Links.of(new_watchers_link(self.now, 10 + self.begun, self.intervals[i], self.negotiated[i]))

    def end(self, i: int) -> None:
        self.negotiated[i] = self.ends[i].links["n1"].session.transmit_interval
        self.ends[i] = None

    def begin(self, i: int) -> None:
        self.ends[i] = self._begin(i)

    def run_until(self, until: float) -> None:
        """Packets are late by the delay, and none is lost but those to an end without a watcher."""
        while self.now < until:
            self.now += STEP
            arrived = [each for each in self.flying if each[0] <= self.now]
            self.flying = [each for each in self.flying if each[0] > self.now]
            for _, to, data in arrived:
                self._handle(to, decode(data))
            for i, end in enumerate(self.ends):
                if end is not None:
                    self._send(i, end.links["n1"].session.tick(self.now, self.random.random()))
                    self._note(end)

    def _handle(self, to: int, packet: Packet) -> None:
        end = self.ends[to]
        if end is not None:
            self._send(to, end.links["n1"].receive(packet, self.now))
            self._note(end)

    def _send(self, i: int, packet: Packet | None) -> None:
        if packet is not None:
            self.flying.append((self.now + self.delay, 1 - i, packet.encode()))

    def _note(self, end: Links) -> None:
        end.evaluate(self.now)
        link = end.links["n1"]
        if link.state is not LinkState.UP or link.session.diagnostic != Diagnostic.NONE:
            self.downs.append(f"{self.now:.3f} {link.state} {link.session.diagnostic}")


@settings(max_examples=60, deadline=None)
@given(
    intervals=st.tuples(*[st.sampled_from([50_000, 100_000, 400_000])] * 2),
    share=st.floats(0.0, 0.85),
    first=st.floats(0.0, 1.0),
    second=st.none() | st.floats(0.0, 1.0),
    random=st.integers(0, 2**32).map(Random),
)
def test_replaced_watcher_takes_no_link_down(intervals, share, first, second, random):
    """At neither end, nor if both are replaced, also at once. A watcher is away for less than one interval."""
    seconds = max(intervals) / 1e6
    pair = Pair(intervals=intervals, delay=seconds / 20, random=random)
    pair.run_until(3.0)
    assert not pair.downs
    starts = [(first * 5 * seconds, 0), *([] if second is None else [(second * 5 * seconds, 1)])]
    events = [(3.0 + at, pair.end, i) for at, i in starts]
    events += [(3.0 + at + share * seconds, pair.begin, i) for at, i in starts]
    for at, happen, i in sorted(events, key=lambda event: event[0]):
        pair.run_until(at)
        happen(i)
    pair.run_until(9.0)
    assert pair.downs == []
    assert [end.links["n1"].session.state for end in pair.ends] == [BfdState.UP, BfdState.UP]


def packet(state: BfdState, your_discriminator: int) -> Packet:
    """A packet of the neighbour, whose discriminator is 7."""
    return Packet(
        state=state,
        multiplier=3,
        my_discriminator=7,
        your_discriminator=your_discriminator,
        desired_min_tx=100_000,
        required_min_rx=100_000,
    )


def test_new_watcher_answers_former_session_at_once():
    """Up, with both discriminators: the neighbour learns the new one (RFC 5880 section 6.3)."""
    link = new_watchers_link(5.0, discriminator=2)
    assert link.session.tick(5.0, 0.5) is None
    link.receive(packet(BfdState.UP, your_discriminator=1), 5.1)
    sent = link.session.tick(5.1, 0.5)
    assert (sent.state, sent.my_discriminator, sent.your_discriminator) == (BfdState.UP, 2, 7)


@pytest.mark.parametrize(
    ("now", "heard", "down_before"),
    [(20.0, False, False), (5.1, True, False), (5.1, False, True)],
    ids=["too late", "neighbour knows the new one", "session went down"],
)
def test_former_session_is_not_resumed(now, heard, down_before):
    """Later a packet with the former discriminator is one of another session (RFC 5880 section 6.8.6)."""
    link = new_watchers_link(5.0, discriminator=2)
    if heard:
        link.receive(packet(BfdState.DOWN, your_discriminator=2), 5.0)
    if down_before:
        link.session.diagnostic = Diagnostic.NEIGHBOUR_DOWN
    link.receive(packet(BfdState.UP, your_discriminator=1), now)
    assert link.session.state is not BfdState.UP
    assert not link.may_resume(now)


def test_link_of_first_watcher_resumes_nothing():
    """No watcher ran until this moment, and the first packet is sent at once, also if one has left a report."""
    link = uplink(1)
    recall(link, REPORTED, 5.0, EPOCH)
    link.receive(packet(BfdState.UP, your_discriminator=1), 5.0)
    assert link.session.state is BfdState.DOWN
    assert link.session.tick(5.0, 0.5).state is BfdState.DOWN


def test_silent_neighbour_hears_of_new_session():
    """It is asked after a detection time, in which a session of its own would have been heard."""
    link = new_watchers_link(5.0, discriminator=2)
    assert link.session.tick(5.29, 0.5) is None
    assert link.session.tick(5.31, 0.5).state is BfdState.DOWN
