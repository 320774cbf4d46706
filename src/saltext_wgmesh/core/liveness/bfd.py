"""Bidirectional Forwarding Detection: asynchronous mode (RFC 5880) and the reflector of seamless BFD (RFC 7880).

A ``Session`` is a state machine without sockets or a clock: packets and the time go in, packets and the time of the
next call come out. Packets are authenticated outside of it (``bfd_auth``). Neither echo nor a demand mode of its own is
implemented. Times are seconds on any clock that only runs forward. Intervals in packets are microseconds,
as on the wire.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, replace

BFD_VERSION = 1
PACKET_LENGTH = 24
"""Bytes of a control packet without authentication (RFC 5880 section 4.1)."""
SLOW_INTERVAL = 1_000_000
"""Microseconds: the shortest interval between packets while a session is not up (section 6.8.3)."""
_FORMAT = struct.Struct("!BBBBIIIII")
_POLL, _FINAL, _AUTHENTICATED, _DEMAND, _MULTIPOINT = 0x20, 0x10, 0x04, 0x02, 0x01


class BfdError(ValueError):
    """A packet must be discarded; the message says why."""


class BfdState(enum.IntEnum):
    """The state of a session (section 4.1, Sta)."""

    ADMIN_DOWN = 0
    DOWN = 1
    INIT = 2
    UP = 3


class Diagnostic(enum.IntEnum):
    """Why a session last left the state Up (section 4.1, Diag)."""

    NONE = 0
    TIME_EXPIRED = 1
    ECHO_FAILED = 2
    NEIGHBOUR_DOWN = 3
    FORWARDING_RESET = 4
    PATH_DOWN = 5
    CONCATENATED_DOWN = 6
    ADMIN_DOWN = 7
    REVERSE_DOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A control packet (section 4.1)."""

    state: BfdState
    diagnostic: int = Diagnostic.NONE
    """Five bits; values without a name in ``Diagnostic`` are legal."""
    poll: bool = False
    final: bool = False
    demand: bool = False
    multiplier: int
    my_discriminator: int
    your_discriminator: int
    desired_min_tx: int
    required_min_rx: int
    required_min_echo_rx: int = 0

    def encode(self) -> bytes:
        """Return the packet as on the wire: 24 bytes."""
        flags = _POLL * self.poll | _FINAL * self.final | _DEMAND * self.demand
        return _FORMAT.pack(
            BFD_VERSION << 5 | self.diagnostic,
            self.state << 6 | flags,
            self.multiplier,
            PACKET_LENGTH,
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        )


def decode(data: bytes) -> Packet:
    """Return the packet in *data*.

    Raises BfdError for each packet that section 6.8.6 discards without regard to the session.
    """
    if len(data) < PACKET_LENGTH:
        raise BfdError(f"{len(data)} bytes are no control packet")
    first, second, multiplier, length, mine, yours, tx, rx, echo = _FORMAT.unpack_from(data)
    state = BfdState(second >> 6)
    if first >> 5 != BFD_VERSION:
        raise BfdError(f"version {first >> 5}, not {BFD_VERSION}")
    if not PACKET_LENGTH <= length <= len(data):
        raise BfdError(f"its length says {length} of {len(data)} bytes")
    if second & _AUTHENTICATED:
        raise BfdError("it is authenticated, and no authentication is in use")
    if not multiplier or second & _MULTIPOINT or not mine:
        raise BfdError("detect mult or my discriminator is zero, or the multipoint bit is set")
    if not yours and state not in (BfdState.DOWN, BfdState.ADMIN_DOWN):
        raise BfdError(f"your discriminator is zero in state {state.name}")
    return Packet(
        state=state,
        diagnostic=first & 0x1F,
        poll=bool(second & _POLL),
        final=bool(second & _FINAL),
        demand=bool(second & _DEMAND),
        multiplier=multiplier,
        my_discriminator=mine,
        your_discriminator=yours,
        desired_min_tx=tx,
        required_min_rx=rx,
        required_min_echo_rx=echo,
    )


def reflect(packet: Packet) -> Packet:
    """Return the answer of a reflector to a probe (RFC 7880 section 7.2.2).

    The answer is in state Up and has the discriminators exchanged, so that it reaches the sender's session.
    """
    return replace(
        packet,
        state=BfdState.UP,
        diagnostic=Diagnostic.NONE,
        poll=False,
        final=packet.poll,
        demand=False,
        my_discriminator=packet.your_discriminator,
        your_discriminator=packet.my_discriminator,
    )


class Session:
    """One BFD session, with the state variables of section 6.8.1 that asynchronous mode needs."""

    __slots__ = (
        "_agreed_rx",
        "_expires_at",
        "_interval",
        "_multiplier",
        "_next_tx",
        "_path_diagnostic",
        "_poll",
        "_remote_demand",
        "_remote_min_rx",
        "_remote_min_tx",
        "_remote_multiplier",
        "_tx_interval",
        "diagnostic",
        "discriminator",
        "remote_diagnostic",
        "remote_discriminator",
        "remote_state",
        "state",
    )

    def __init__(self, *, discriminator: int, interval: int, multiplier: int) -> None:
        """Create a session in state Down that sends its first packet at the first ``tick``.

        *interval* is in microseconds; *multiplier* is the number of packets in a row that must be missing.
        """
        self.discriminator = discriminator
        self.state = BfdState.DOWN
        self.diagnostic: int = Diagnostic.NONE
        self.remote_state = BfdState.DOWN
        self.remote_diagnostic: int = Diagnostic.NONE
        self.remote_discriminator = 0
        self._interval = interval
        self._multiplier = multiplier
        self._remote_min_rx = 1
        self._remote_min_tx = 0
        self._remote_multiplier = 0
        self._remote_demand = False
        self._poll = False
        self._path_diagnostic: int = Diagnostic.NONE
        self._tx_interval = self._desired_min_tx
        self._agreed_rx = interval
        self._next_tx = 0.0
        self._expires_at = float("inf")

    # -- present state ----------------------------------------------------------------------------------

    @property
    def transmit_interval(self) -> float:
        """Seconds between two sent packets, before jitter: the longer of both ends' intervals."""
        return max(self._tx_interval, self._remote_min_rx) / 1e6

    @property
    def detection_time(self) -> float:
        """Seconds without a packet after which the session goes down (section 6.8.4); 0: no packet has arrived yet."""
        return self._remote_multiplier * max(self._agreed_rx, self._remote_min_tx) / 1e6

    @property
    def admin_down_acknowledged(self) -> bool:
        """Whether this end holds the session down, and the remote end knows it."""
        return self.state is BfdState.ADMIN_DOWN and self.remote_state in (BfdState.DOWN, BfdState.ADMIN_DOWN)

    def next_at(self) -> float:
        """Return when ``tick`` must be called next; infinity: only a packet can change the session."""
        return min(self._expires_at, self._next_tx if self._sends else float("inf"))

    @property
    def usual_detection_time(self) -> float:
        """Seconds in which the remote end finds this one down, if both ends have the same interval and multiplier."""
        return self._multiplier * self._interval / 1e6

    @property
    def multiplier(self) -> int:
        """The number of packets in a row that the remote end must miss."""
        return self._multiplier

    def set_multiplier(self, multiplier: int) -> None:
        """Announce *multiplier* in all packets from now on; this needs no poll (section 6.8.3)."""
        self._multiplier = multiplier

    @property
    def is_untouched(self) -> bool:
        """Whether the session is in state Down, and has received no packet since it was created or timed out."""
        return self.state is BfdState.DOWN and not self.remote_discriminator and self.diagnostic == Diagnostic.NONE

    # -- events -----------------------------------------------------------------------------------------

    def await_remote(self, until: float) -> None:
        """Send nothing before *until*, unless a packet arrives.

        A packet in state Down would end a session that the remote end has with an earlier process (section 6.8.6).
        """
        self._next_tx = until

    def resume(self, now: float) -> None:
        """Be up, in place of the session that an earlier process had with the remote end.

        The remote end is up and learns the new discriminator from the next packet. A discriminator may change while a
        session is up (section 6.3).
        """
        if self.is_untouched:
            self._go(BfdState.UP, Diagnostic.NONE, now)

    def receive(self, packet: Packet, now: float) -> Packet | None:
        """Process *packet*, and return the packet to send at once; None: there is none.

        Only a poll has an answer. A packet for another session is ignored.
        """
        if packet.your_discriminator not in (0, self.discriminator):
            return None
        self.remote_discriminator = packet.my_discriminator
        self.remote_state = packet.state
        self.remote_diagnostic = packet.diagnostic
        self._remote_demand = packet.demand
        self._remote_min_rx = packet.required_min_rx
        self._remote_min_tx = packet.desired_min_tx
        self._remote_multiplier = packet.multiplier
        if packet.final and self._poll:
            self._poll = False
            self._apply_intervals()
        if self.state is BfdState.ADMIN_DOWN:
            if packet.state in (BfdState.INIT, BfdState.UP):
                # The remote end does not know it yet. Each of its packets is answered, since one a second may be lost.
                self._next_tx = min(self._next_tx, now)
            return None
        self._follow(packet.state, now)
        # After the transition, which may apply the interval that the detection time follows from.
        if self.detection_time:
            self._expires_at = now + self.detection_time
        # A faster rate that the remote end asks for takes effect at once, not after the present interval (6.8.3).
        self._next_tx = min(self._next_tx, now + self.transmit_interval)
        return self._packet(final=True) if packet.poll else None

    def tick(self, now: float, jitter: float) -> Packet | None:
        """Process the timers that are due at *now*, and return the packet to send; None: no packet is due.

        *jitter* in [0, 1) selects how much the next interval is shortened (section 6.8.7).
        """
        if now >= self._expires_at:
            self._expire(now)
        if not self._sends or now < self._next_tx:
            return None
        # At most a quarter shorter. With a multiplier of 1 at least a tenth, so that one late packet is no loss.
        share = 0.75 + 0.25 * jitter if self._multiplier > 1 else 0.75 + 0.15 * jitter
        self._next_tx = now + self.transmit_interval * share
        return self._packet()

    def set_interval(self, interval: int, now: float) -> None:
        """Use *interval* (microseconds) between packets in both directions.

        A session that is up needs a poll, so that both ends change at the same time.
        """
        if interval == self._interval:
            return
        self._interval = interval
        if self.state is BfdState.UP:
            self._poll = True
            self._next_tx = now
            # Slower sending and faster detection wait for the final bit, or an end would detect a loss (6.8.3).
            self._tx_interval = min(self._tx_interval, self._desired_min_tx)
            self._agreed_rx = max(self._agreed_rx, interval)
        else:
            self._apply_intervals()

    def set_path_diagnostic(self, diagnostic: Diagnostic) -> None:
        """Send *diagnostic* for the path behind this link in all packets of states Init and Up (section 6.8.17).

        CONCATENATED_DOWN: the path is down; ADMIN_DOWN: it is held down on purpose; NONE: it is up.
        """
        self._path_diagnostic = diagnostic

    def admin_down(self, now: float) -> None:
        """Hold the session down, and send that to the remote end (section 6.8.16)."""
        self._go(BfdState.ADMIN_DOWN, Diagnostic.ADMIN_DOWN, now)
        self._expires_at = float("inf")

    def enable(self, now: float) -> None:
        """Let a session that was held down come up again."""
        if self.state is BfdState.ADMIN_DOWN:
            self._go(BfdState.DOWN, Diagnostic.NONE, now)

    # -- internals --------------------------------------------------------------------------------------

    @property
    def _sends(self) -> bool:
        """Whether packets are sent (section 6.8.7): not if the remote end can't receive, nor in its demand mode."""
        quiet = (
            self._remote_demand and self.state is BfdState.UP and self.remote_state is BfdState.UP and not self._poll
        )
        return bool(self._remote_min_rx) and not quiet

    @property
    def _desired_min_tx(self) -> int:
        return self._interval if self.state is BfdState.UP else max(SLOW_INTERVAL, self._interval)

    def _apply_intervals(self) -> None:
        self._tx_interval = self._desired_min_tx
        self._agreed_rx = self._interval

    def _follow(self, remote: BfdState, now: float) -> None:
        """Take the transition of section 6.8.6 for the state *remote*."""
        if remote is BfdState.ADMIN_DOWN:
            if self.state is not BfdState.DOWN:
                self._go(BfdState.DOWN, Diagnostic.NEIGHBOUR_DOWN, now)
        elif self.state is BfdState.DOWN:
            if remote is BfdState.DOWN:
                self._go(BfdState.INIT, self.diagnostic, now)
            elif remote is BfdState.INIT:
                self._go(BfdState.UP, Diagnostic.NONE, now)
        elif self.state is BfdState.INIT:
            if remote in (BfdState.INIT, BfdState.UP):
                self._go(BfdState.UP, Diagnostic.NONE, now)
        elif remote is BfdState.DOWN:
            self._go(BfdState.DOWN, Diagnostic.NEIGHBOUR_DOWN, now)

    def _expire(self, now: float) -> None:
        """Bring the session down (section 6.8.4), and forget the remote end's variables (section 6.8.1)."""
        self._expires_at = float("inf")
        self.remote_discriminator = 0
        self.remote_state = BfdState.DOWN
        self.remote_diagnostic = Diagnostic.NONE
        self._remote_demand = False
        self._remote_min_rx = 1
        if self.state in (BfdState.INIT, BfdState.UP):
            self._go(BfdState.DOWN, Diagnostic.TIME_EXPIRED, now)

    def _go(self, state: BfdState, diagnostic: int, now: float) -> None:
        """Enter *state* and send it at once, so that the handshake takes round trips and not slow intervals."""
        self.state = state
        self.diagnostic = diagnostic
        # A session that comes up changes from the slow rate to its interval, which needs a poll (6.8.3).
        self._poll = state is BfdState.UP
        self._apply_intervals()
        self._next_tx = now

    def _packet(self, *, final: bool = False) -> Packet:
        carries = self.state in (BfdState.INIT, BfdState.UP)
        return Packet(
            state=self.state,
            diagnostic=self._path_diagnostic if carries and self._path_diagnostic else self.diagnostic,
            poll=self._poll and not final,
            final=final,
            multiplier=self._multiplier,
            my_discriminator=self.discriminator,
            your_discriminator=self.remote_discriminator,
            desired_min_tx=self._desired_min_tx,
            required_min_rx=self._interval,
        )
