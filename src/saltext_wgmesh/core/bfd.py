"""Bidirectional Forwarding Detection, asynchronous mode (RFC 5880), and the reflector of its seamless kind (RFC 7880).

A ``Session`` is a state machine without sockets or a clock: packets and the time go in, packets and the time of the
next call come out. No authentication (the link is a WireGuard tunnel), no echo, no demand mode of our own. Times are
seconds on any clock that only runs forward; intervals in packets are microseconds, as on the wire.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, replace

VERSION = 1
LENGTH = 24
"""Bytes of a control packet without authentication (RFC 5880 section 4.1)."""
SLOW = 1_000_000
"""Microseconds that packets are at least apart while a session is not up (section 6.8.3)."""
_FORMAT = struct.Struct("!BBBBIIIII")
_POLL, _FINAL, _AUTHENTICATED, _DEMAND, _MULTIPOINT = 0x20, 0x10, 0x04, 0x02, 0x01


class BfdError(ValueError):
    """A packet that must be discarded, and why."""


class State(enum.IntEnum):
    """Of a session (section 4.1, Sta)."""

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

    state: State
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
        """The packet as on the wire: 24 bytes."""
        flags = _POLL * self.poll | _FINAL * self.final | _DEMAND * self.demand
        return _FORMAT.pack(
            VERSION << 5 | self.diagnostic,
            self.state << 6 | flags,
            self.multiplier,
            LENGTH,
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        )


def decode(data: bytes) -> Packet:
    """The packet in *data*; BfdError for all that section 6.8.6 discards whatever the session."""
    if len(data) < LENGTH:
        raise BfdError(f"{len(data)} bytes are no control packet")
    first, second, multiplier, length, mine, yours, tx, rx, echo = _FORMAT.unpack_from(data)
    state = State(second >> 6)
    if first >> 5 != VERSION:
        raise BfdError(f"version {first >> 5}, not {VERSION}")
    if not LENGTH <= length <= len(data):
        raise BfdError(f"its length says {length} of {len(data)} bytes")
    if second & _AUTHENTICATED:
        raise BfdError("it is authenticated, and no authentication is in use")
    if not multiplier or second & _MULTIPOINT or not mine:
        raise BfdError("detect mult or my discriminator is zero, or the multipoint bit is set")
    if not yours and state not in (State.DOWN, State.ADMIN_DOWN):
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
    """The answer of a reflector to a probe (RFC 7880 section 7.2.2): up, and to the sender's discriminator."""
    return replace(
        packet,
        state=State.UP,
        diagnostic=Diagnostic.NONE,
        poll=False,
        final=packet.poll,
        demand=False,
        my_discriminator=packet.your_discriminator,
        your_discriminator=packet.my_discriminator,
    )


class Session:
    """One session (the state variables of section 6.8.1 that asynchronous mode needs)."""

    __slots__ = (
        "_agreed_rx",
        "_beyond",
        "_expires_at",
        "_interval",
        "_multiplier",
        "_next_tx",
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
        """A session in state Down that sends its first packet at the first ``tick``; *interval* in microseconds."""
        self.discriminator = discriminator
        self.state = State.DOWN
        self.diagnostic: int = Diagnostic.NONE
        self.remote_state = State.DOWN
        self.remote_diagnostic: int = Diagnostic.NONE
        self.remote_discriminator = 0
        self._interval = interval
        self._multiplier = multiplier
        self._remote_min_rx = 1
        self._remote_min_tx = 0
        self._remote_multiplier = 0
        self._remote_demand = False
        self._poll = False
        self._beyond: int = Diagnostic.NONE
        self._tx_interval = self._desired_min_tx
        self._agreed_rx = interval
        self._next_tx = 0.0
        self._expires_at = float("inf")

    # -- what holds now ---------------------------------------------------------------------------------

    @property
    def transmit_interval(self) -> float:
        """Seconds between two packets sent, before jitter: the slower of what we wish and the other can take."""
        return max(self._tx_interval, self._remote_min_rx) / 1e6

    @property
    def detection_time(self) -> float:
        """Seconds without a packet after which the session is down (section 6.8.4); 0: none was heard yet."""
        return self._remote_multiplier * max(self._agreed_rx, self._remote_min_tx) / 1e6

    @property
    def heeded(self) -> bool:
        """Whether the session is held down, and the other end has heard it."""
        return self.state is State.ADMIN_DOWN and self.remote_state in (State.DOWN, State.ADMIN_DOWN)

    def next_at(self) -> float:
        """When ``tick`` must be called next; infinity: only a packet can change anything."""
        return min(self._expires_at, self._next_tx if self._sends else float("inf"))

    def set_multiplier(self, multiplier: int) -> None:
        """Our packets say from now on that so many of them must be missing; it needs no poll (section 6.8.3)."""
        self._multiplier = multiplier

    # -- what happens -----------------------------------------------------------------------------------

    def receive(self, packet: Packet, now: float) -> Packet | None:
        """Heed *packet*, which ``decode`` let through and which is for this session; the answer, if it polls."""
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
        if self.state is State.ADMIN_DOWN:
            if packet.state in (State.INIT, State.UP):
                # It has not heard it yet: it is told again, as often as it speaks, and not only each slow second.
                self._next_tx = min(self._next_tx, now)
            return None
        self._follow(packet.state, now)
        if self.detection_time:
            self._expires_at = now + self.detection_time
        # A faster rate that the other asks for holds at once, and not only after the present pause (6.8.3).
        self._next_tx = min(self._next_tx, now + self.transmit_interval)
        return self._packet(final=True) if packet.poll else None

    def tick(self, now: float, jitter: float) -> Packet | None:
        """What is due at *now* happens; the packet to send, if one is due. *jitter* in [0, 1) picks how much earlier
        than the interval the next one is (section 6.8.7)."""
        if now >= self._expires_at:
            self._expire(now)
        if not self._sends or now < self._next_tx:
            return None
        # At most a quarter earlier; with a multiplier of 1 at least a tenth, so that one late packet is no loss.
        share = 0.75 + 0.25 * jitter if self._multiplier > 1 else 0.75 + 0.15 * jitter
        self._next_tx = now + self.transmit_interval * share
        return self._packet()

    def set_interval(self, interval: int, now: float) -> None:
        """Packets are to be *interval* microseconds apart in both directions; by a poll if the session is up."""
        if interval == self._interval:
            return
        self._interval = interval
        if self.state is State.UP:
            self._poll = True
            self._next_tx = now
            # Slower sending and faster receiving wait for the other's word (6.8.3); the rest holds at once.
            self._tx_interval = min(self._tx_interval, self._desired_min_tx)
            self._agreed_rx = max(self._agreed_rx, interval)
        else:
            self._apply_intervals()

    def concatenated(self, beyond: Diagnostic) -> None:
        """While the session is up, and already as it comes up, its packets say how that is to which this path leads on
        (section 6.8.17): CONCATENATED_DOWN, ADMIN_DOWN if it is held down on purpose, or NONE."""
        self._beyond = beyond

    def admin_down(self, now: float) -> None:
        """The session is held down, and tells the other (section 6.8.16)."""
        self._go(State.ADMIN_DOWN, Diagnostic.ADMIN_DOWN, now)
        self._expires_at = float("inf")

    def enable(self, now: float) -> None:
        """A session that was held down tries to come up."""
        if self.state is State.ADMIN_DOWN:
            self._go(State.DOWN, Diagnostic.NONE, now)

    # -- inside -----------------------------------------------------------------------------------------

    @property
    def _sends(self) -> bool:
        """Section 6.8.7: not if the other can't receive, or both are up and it demands silence."""
        quiet = self._remote_demand and self.state is State.UP and self.remote_state is State.UP and not self._poll
        return bool(self._remote_min_rx) and not quiet

    @property
    def _desired_min_tx(self) -> int:
        return self._interval if self.state is State.UP else max(SLOW, self._interval)

    def _apply_intervals(self) -> None:
        self._tx_interval = self._desired_min_tx
        self._agreed_rx = self._interval

    def _follow(self, remote: State, now: float) -> None:
        """The state machine of section 6.8.6."""
        if remote is State.ADMIN_DOWN:
            if self.state is not State.DOWN:
                self._go(State.DOWN, Diagnostic.NEIGHBOUR_DOWN, now)
        elif self.state is State.DOWN:
            if remote is State.DOWN:
                self._go(State.INIT, self.diagnostic, now)
            elif remote is State.INIT:
                self._go(State.UP, Diagnostic.NONE, now)
        elif self.state is State.INIT:
            if remote in (State.INIT, State.UP):
                self._go(State.UP, Diagnostic.NONE, now)
        elif remote is State.DOWN:
            self._go(State.DOWN, Diagnostic.NEIGHBOUR_DOWN, now)

    def _expire(self, now: float) -> None:
        """Section 6.8.4, and 6.8.1 for what is forgotten of an end that is not heard."""
        self._expires_at = float("inf")
        self.remote_discriminator = 0
        self.remote_state = State.DOWN
        self.remote_diagnostic = Diagnostic.NONE
        self._remote_demand = False
        self._remote_min_rx = 1
        if self.state in (State.INIT, State.UP):
            self._go(State.DOWN, Diagnostic.TIME_EXPIRED, now)

    def _go(self, state: State, diagnostic: int, now: float) -> None:
        """Be in *state*, and say so at once: so the three-way handshake takes round trips and not slow intervals."""
        self.state = state
        self.diagnostic = diagnostic
        # The change between the slow and the wanted rate is agreed on by a poll (6.8.3): it is begun on coming up.
        self._poll = state is State.UP
        self._apply_intervals()
        self._next_tx = now

    def _packet(self, *, final: bool = False) -> Packet:
        carries = self.state in (State.INIT, State.UP)
        return Packet(
            state=self.state,
            diagnostic=self._beyond if carries and self._beyond else self.diagnostic,
            poll=self._poll and not final,
            final=final,
            multiplier=self._multiplier,
            my_discriminator=self.discriminator,
            your_discriminator=self.remote_discriminator,
            desired_min_tx=self._desired_min_tx,
            required_min_rx=self._interval,
        )
