"""BFD as a state machine: the table of RFC 5880 section 6.8.6, its timers, and two ends over a bad network."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.bfd import BfdError, BfdState, Diagnostic, Packet, Session, decode, reflect

ADMIN, DOWN, INIT, UP = BfdState.ADMIN_DOWN, BfdState.DOWN, BfdState.INIT, BfdState.UP
BASE = Packet(
    state=DOWN,
    multiplier=3,
    my_discriminator=7,
    your_discriminator=0,
    desired_min_tx=100_000,
    required_min_rx=100_000,
)
HALF_A_SECOND = 500_000


def session(interval=100_000, multiplier=3):
    return Session(discriminator=1, interval=interval, multiplier=multiplier)


def in_state(state):
    """A session that came to *state* by packets of its remote end."""
    made = session()
    if state is ADMIN:
        made.admin_down(0.0)
    if state in (INIT, UP):
        made.receive(BASE, 0.0)
    if state is UP:
        made.receive(replace(BASE, state=INIT, your_discriminator=1), 0.0)
    assert made.state is state
    return made


# --- packets -------------------------------------------------------------------------------------------


def test_encode_packet_has_layout_of_section_4_1():
    """Version 1, diagnostic 3; state Init with poll; multiplier 5, 24 bytes; then the five words."""
    packet = Packet(
        state=INIT,
        diagnostic=Diagnostic.NEIGHBOUR_DOWN,
        poll=True,
        multiplier=5,
        my_discriminator=0x01020304,
        your_discriminator=0x0A0B0C0D,
        desired_min_tx=1_000_000,
        required_min_rx=100_000,
    )
    assert packet.encode().hex() == "23a00518" + "01020304" + "0a0b0c0d" + "000f4240" + "000186a0" + "00000000"


packets = st.builds(
    Packet,
    state=st.sampled_from(BfdState),
    diagnostic=st.integers(0, 31),
    poll=st.booleans(),
    final=st.booleans(),
    demand=st.booleans(),
    multiplier=st.integers(1, 255),
    my_discriminator=st.integers(1, 2**32 - 1),
    your_discriminator=st.integers(1, 2**32 - 1),
    desired_min_tx=st.integers(0, 2**32 - 1),
    required_min_rx=st.integers(0, 2**32 - 1),
    required_min_echo_rx=st.integers(0, 2**32 - 1),
)


@given(packets)
def test_decode_encoded_packet_is_the_packet(packet):
    """``decode`` is the inverse of ``encode``."""
    assert decode(packet.encode()) == packet


@given(st.binary(max_size=40))
def test_decode_arbitrary_bytes_raises_only_bfd_error(data):
    """No bytes raise anything but BfdError."""
    with contextlib.suppress(BfdError):
        decode(data)


GOOD = BASE.encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GOOD[:23], "23 bytes"),
        (b"\x40" + GOOD[1:], "version 2"),
        (GOOD[:3] + b"\x17" + GOOD[4:], "its length says 23"),
        (GOOD[:3] + b"\x19" + GOOD[4:], "its length says 25"),
        (GOOD[:1] + b"\x44" + GOOD[2:], "authenticated"),
        (GOOD[:2] + b"\x00" + GOOD[3:], "detect mult"),
        (GOOD[:1] + b"\x41" + GOOD[2:], "multipoint"),
        (GOOD[:4] + bytes(4) + GOOD[8:], "my discriminator"),
        (GOOD[:1] + b"\xc0" + GOOD[2:], "zero in state UP"),
        (GOOD[:1] + b"\x80" + GOOD[2:], "zero in state INIT"),
    ],
)
def test_decode_packet_of_section_6_8_6_raises(data, why):
    """Each reason of section 6.8.6 to discard a packet has its own message."""
    with pytest.raises(BfdError, match=why):
        decode(data)


def test_reflect_probe_answers_up_to_sender():
    """RFC 7880: the discriminators are exchanged; neither demand nor poll comes back."""
    answer = reflect(replace(BASE, demand=True, poll=True, your_discriminator=9))
    assert (answer.my_discriminator, answer.your_discriminator) == (9, 7)
    assert (answer.state, answer.demand, answer.poll, answer.final) == (UP, False, False, True)


# --- states --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local", "remote", "then"),
    [
        (DOWN, ADMIN, DOWN),
        (DOWN, DOWN, INIT),
        (DOWN, INIT, UP),
        (DOWN, UP, DOWN),
        (INIT, ADMIN, DOWN),
        (INIT, DOWN, INIT),
        (INIT, INIT, UP),
        (INIT, UP, UP),
        (UP, ADMIN, DOWN),
        (UP, DOWN, DOWN),
        (UP, INIT, UP),
        (UP, UP, UP),
        *((ADMIN, remote, ADMIN) for remote in BfdState),
    ],
)
def test_receive_each_state_follows_the_table(local, remote, then):
    """RFC 5880 section 6.8.6, all sixteen cases."""
    made = in_state(local)
    made.receive(replace(BASE, state=remote, your_discriminator=1), 1.0)
    assert made.state is then
    if local is UP and then is DOWN:
        assert made.diagnostic == Diagnostic.NEIGHBOUR_DOWN


def test_receive_packet_of_other_session_changes_nothing():
    """A discriminator of another session has no effect."""
    made = in_state(UP)
    made.receive(replace(BASE, your_discriminator=2), 1.0)
    assert made.state is UP


def test_session_without_packets_goes_down_after_detection():
    """Three times 100 ms after the last packet, and not before."""
    made = in_state(UP)
    made.receive(replace(BASE, state=UP, your_discriminator=1), 1.0)
    assert made.detection_time == pytest.approx(0.3)
    made.tick(1.2999, 0.5)
    assert made.state is UP
    made.tick(1.3001, 0.5)
    assert (made.state, made.diagnostic, made.remote_discriminator) == (DOWN, Diagnostic.TIME_EXPIRED, 0)


def test_admin_down_is_sent_and_outlasts_silence():
    """The remote end learns of it, and only ``enable`` ends it."""
    made = in_state(UP)
    made.admin_down(1.0)
    packet = made.tick(1.0, 0.5)
    assert packet
    assert (packet.state, packet.diagnostic) == (ADMIN, Diagnostic.ADMIN_DOWN)
    made.tick(100.0, 0.5)
    assert made.state is ADMIN
    made.enable(101.0)
    assert made.state is DOWN


# --- timers --------------------------------------------------------------------------------------------


@given(st.integers(10_000, 2_000_000), st.integers(10_000, 2_000_000), st.floats(0, 1, exclude_max=True))
def test_transmit_interval_is_the_slower_less_jitter(ours, theirs, jitter):
    """Section 6.8.7: 75 to 100 % of the longer of this end's interval and the remote end's need."""
    made = Session(discriminator=1, interval=ours, multiplier=3)
    made.receive(replace(BASE, multiplier=255, required_min_rx=theirs), 0.0)
    made.receive(replace(BASE, multiplier=255, required_min_rx=theirs, state=INIT, your_discriminator=1), 0.0)
    made.tick(0.0, jitter)
    assert made.transmit_interval == max(ours, theirs) / 1e6
    assert 0.7499 <= made.next_at() / made.transmit_interval <= 1.0


@given(st.floats(0, 1, exclude_max=True))
def test_multiplier_of_one_shortens_interval_a_tenth(jitter):
    """Section 6.8.7: at most 90 % of the interval, so that one late packet is no loss."""
    made = Session(discriminator=1, interval=100_000, multiplier=1)
    made.tick(0.0, jitter)
    assert 0.7499 <= made.next_at() / made.transmit_interval <= 0.9


def test_session_not_up_sends_once_a_second():
    """Section 6.8.3; but a change of state is sent at once."""
    made = session()
    assert made.tick(0.0, 0.0)
    assert made.next_at() == pytest.approx(0.75)
    made.receive(BASE, 0.1)
    assert made.tick(0.1, 0.0).state is INIT


def test_remote_without_receive_or_in_demand_gets_nothing():
    """A required min rx of zero; and demand mode, while both are up and no poll is in progress."""
    made = in_state(UP)
    made.receive(replace(BASE, state=UP, your_discriminator=1, required_min_rx=0), 1.0)
    assert made.tick(1.1, 0.5) is None
    made.receive(replace(BASE, state=UP, your_discriminator=1, final=True, demand=True), 1.2)
    assert made.tick(1.25, 0.5) is None


def test_poll_is_answered_and_final_ends_poll():
    """Section 6.5; the answer has no poll bit, even while this end polls too."""
    made = in_state(UP)
    assert made.tick(0.0, 0.5).poll
    answer = made.receive(replace(BASE, state=UP, your_discriminator=1, poll=True), 0.1)
    assert answer
    assert (answer.final, answer.poll) == (True, False)
    made.receive(replace(BASE, state=UP, your_discriminator=1, final=True), 0.2)
    assert not made.tick(0.3, 0.5).poll


def test_path_diagnostic_is_sent_only_while_up():
    """Section 6.8.17; a session that is down sends why it is down instead."""
    made, other = in_state(UP), in_state(UP)
    made.set_path_diagnostic(Diagnostic.CONCATENATED_DOWN)
    other.receive(replace(made.tick(0.0, 0.5), your_discriminator=1), 0.0)
    assert (other.state, other.remote_diagnostic) == (UP, Diagnostic.CONCATENATED_DOWN)
    made.set_path_diagnostic(Diagnostic.NONE)
    other.receive(replace(made.tick(0.1, 0.5), your_discriminator=1), 0.1)
    assert (other.state, other.remote_diagnostic) == (UP, Diagnostic.NONE)
    made.set_path_diagnostic(Diagnostic.CONCATENATED_DOWN)
    other.receive(replace(made.tick(0.2, 0.5), your_discriminator=1), 0.2)
    other.tick(9.0, 0.5)
    assert (other.state, other.remote_diagnostic) == (DOWN, Diagnostic.NONE)
    other.set_path_diagnostic(Diagnostic.CONCATENATED_DOWN)
    assert other.diagnostic == Diagnostic.TIME_EXPIRED


def test_path_diagnostic_is_sent_already_in_init():
    """Otherwise the remote end would use the path for a moment. A session that is down sends why it is down."""
    made = in_state(DOWN)
    made.set_path_diagnostic(Diagnostic.ADMIN_DOWN)
    assert made.tick(0.0, 0.5).diagnostic == Diagnostic.NONE
    made.receive(BASE, 1.0)
    packet = made.tick(1.0, 0.5)
    assert (packet.state, packet.diagnostic) == (INIT, Diagnostic.ADMIN_DOWN)
    made.receive(replace(BASE, state=INIT, your_discriminator=1), 1.1)
    packet = made.tick(1.1, 0.5)
    assert (packet.state, packet.diagnostic) == (UP, Diagnostic.ADMIN_DOWN)


def test_slower_interval_waits_for_final_to_send():
    """Slow sending before the remote end agreed would look like a dead link; detection is lenient at once."""
    made = in_state(UP)
    made.receive(replace(BASE, state=UP, your_discriminator=1, final=True), 1.0)
    made.set_interval(HALF_A_SECOND, 1.0)
    assert made.transmit_interval == pytest.approx(0.1)
    assert made.detection_time == pytest.approx(1.5)
    polled = made.tick(1.0, 0.5)
    assert polled
    assert (polled.poll, polled.desired_min_tx, polled.required_min_rx) == (True, 500_000, 500_000)
    made.receive(replace(BASE, state=UP, your_discriminator=1, final=True), 1.1)
    assert made.transmit_interval == pytest.approx(0.5)


def test_faster_interval_waits_for_final_to_detect():
    """Sending is faster at once; faster detection before the remote end agreed would look like a dead link."""
    made = Session(discriminator=1, interval=HALF_A_SECOND, multiplier=3)
    made.receive(BASE, 0.0)
    made.receive(replace(BASE, state=UP, your_discriminator=1, final=True), 0.0)
    made.receive(replace(BASE, state=UP, your_discriminator=1, final=True), 0.0)
    made.set_interval(100_000, 0.0)
    assert (made.transmit_interval, made.detection_time) == (pytest.approx(0.1), pytest.approx(1.5))
    made.receive(replace(BASE, state=UP, your_discriminator=1, final=True), 0.1)
    assert made.detection_time == pytest.approx(0.3)


# --- two ends ------------------------------------------------------------------------------------------


class Wire:
    """Two sessions and a network between them with loss and delay; time runs in steps of 5 ms."""

    STEP = 0.005

    def __init__(self, intervals=(100_000, 100_000), multipliers=(3, 3)):
        ends = zip((11, 22), intervals, multipliers, strict=True)
        self.ends = [Session(discriminator=d, interval=i, multiplier=m) for d, i, m in ends]
        self.now = 0.0
        self.flying = []

    def run(self, seconds, lost=(0.0, 0.0), delay=0.01, random=lambda: 0.5):
        """Run for some seconds. *lost* is the share of packets lost from the first end, and from the second."""
        until = self.now + seconds
        while self.now < until:
            self.now += self.STEP
            arrived = [entry for entry in self.flying if entry[0] <= self.now]
            self.flying = [entry for entry in self.flying if entry[0] > self.now]
            sent = [(1 - i, self.ends[i].tick(self.now, random())) for i in (0, 1)]
            sent += [(1 - to, self.ends[to].receive(decode(data), self.now)) for _, to, data in arrived]
            for to, packet in sent:
                if packet and random() >= lost[1 - to]:
                    self.flying.append((self.now + delay, to, packet.encode()))

    @property
    def states(self):
        return tuple(end.state for end in self.ends)


def test_two_ends_come_up_within_round_trips():
    """A tenth of a second with a delay of 10 ms."""
    wire = Wire()
    wire.run(0.1)
    assert wire.states == (UP, UP)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.sampled_from([50_000, 100_000, 300_000]), st.sampled_from([50_000, 100_000, 300_000])),
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    st.sampled_from([(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]),
    st.floats(0, 0.02),
    st.integers(0, 2**32).map(Random),
)
def test_loss_brings_both_down_then_both_return(intervals, multipliers, lost, delay, random):
    """Within the sum of both detection times; and up again within little more than the slow second of section 6.8.3."""
    wire = Wire(intervals, multipliers)
    wire.run(1.5, delay=delay, random=random.random)
    assert wire.states == (UP, UP)
    patience = sum(end.detection_time for end in wire.ends) + 3 * wire.STEP + delay
    assert max(end.detection_time for end in wire.ends) <= max(intervals) * max(multipliers) / 1e6 + 1e-9
    wire.run(patience, lost=lost, random=random.random)
    assert UP not in wire.states
    wire.run(1.2 + 10 * delay, delay=delay, random=random.random)
    assert wire.states == (UP, UP)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32).map(Random))
def test_loss_of_two_percent_keeps_link_up(random):
    """With a multiplier of five: five packets in a row would have to be lost."""
    wire = Wire(multipliers=(5, 5))
    wire.run(1.0)
    for _ in range(100):
        wire.run(0.05, lost=(0.02, 0.02), random=random.random)
        assert wire.states == (UP, UP)


def test_restarted_end_is_noticed_at_first_packet():
    """Its new session is down and knows no discriminator; the remote end goes down, and both come up again."""
    wire = Wire()
    wire.run(0.5)
    wire.ends[1] = Session(discriminator=33, interval=100_000, multiplier=3)
    wire.run(0.05)
    wire.run(1.2)
    assert wire.states == (UP, UP)
    assert wire.ends[0].remote_discriminator == 33


def test_slower_interval_of_relay_causes_no_flap():
    """A relay with many sessions asks for a longer interval, and both ends adopt it."""
    wire = Wire()
    wire.run(0.5)
    wire.ends[1].set_interval(1_000_000, wire.now)
    for _ in range(100):
        wire.run(0.05)
        assert wire.states == (UP, UP)
    assert [round(end.transmit_interval, 3) for end in wire.ends] == [1.0, 1.0]
    assert [round(end.detection_time, 3) for end in wire.ends] == [3.0, 3.0]
    assert bfd.SLOW_INTERVAL == 1_000_000


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 0.5), st.integers(0, 2**32).map(Random))
def test_admin_down_is_acknowledged_despite_loss(lost, random):
    """The end repeats itself with each packet of the remote end, and not only each second."""
    wire = Wire(multipliers=(255, 255))
    wire.run(0.5)
    wire.ends[0].admin_down(wire.now)
    assert not wire.ends[0].admin_down_acknowledged
    wire.run(3.0, lost=(lost, 0.0), random=random.random)
    assert wire.states == (ADMIN, DOWN)
    assert (wire.ends[0].admin_down_acknowledged, wire.ends[1].remote_state) == (True, ADMIN)
    assert wire.ends[0].transmit_interval == 1.0


def test_enable_after_admin_down_comes_up_at_once():
    """Both ends are up within a few round trips."""
    wire = Wire()
    wire.run(0.5)
    wire.ends[0].admin_down(wire.now)
    wire.run(0.05)
    assert wire.ends[0].admin_down_acknowledged
    wire.run(3.0)
    wire.ends[0].enable(wire.now)
    wire.run(0.1)
    assert (wire.states, wire.ends[0].admin_down_acknowledged) == ((UP, UP), False)
