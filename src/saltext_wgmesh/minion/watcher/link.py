"""One monitored link: its BFD session, and the state that the watcher believes it to be in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.bfd_auth import Authentication, Authenticity
from saltext_wgmesh.core.liveness.hold_down import HoldDown
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.model.view import Interface, Peer
from saltext_wgmesh.minion.watcher.sockets import Received

MAX_FORMER_INTERVAL = 60.0
"""Seconds: the longest interval that a policy may have."""


@dataclass(slots=True, kw_only=True, eq=False)
class MonitoredLink:
    """One link and its session. Times are seconds of the monotonic clock unless a field says otherwise."""

    peer: Peer
    interface: Interface
    session: bfd.Session
    state: LinkState
    since: float
    """When the link took *state*, in seconds since the epoch."""
    grace_until: float
    """Until then a session that never was up is not taken for down."""
    is_relay: bool
    """Whether the neighbour is a relay."""
    resumable_until: float = 0.0
    """Until then the neighbour may go on with the session that it has with the watcher before."""
    hold_down: HoldDown = field(default_factory=HoldDown)
    up_since: float | None = None
    """When the session came up; None while it is not up. A blackhole restarts it."""
    down_since: float = 0.0
    rehandshakes: int = 0
    """How often the peer was removed and added since the link went down."""
    probing_since: float | None = None
    """When probes through the relay began; None: there is no relay to probe, so nothing is known of its forwarding."""
    last_probe_reply: float = 0.0
    last_echo: float = 0.0
    """When an echo of this node came back through the relay."""
    self_reported_blackhole: bool = False
    """Whether the link is a blackhole because the relay said so, and not because probes were lost."""
    no_probe_target: bool = False
    """Whether no probe can prove the relay's forwarding: all other relays say that they are isolated, or none is left
    in the mesh. A blackhole then ends without a probe."""
    admin_down_at: float = 0.0
    """When the session was last seen held down on purpose."""
    admin_down_acknowledged: bool = False
    """Whether this end holds the session down and the neighbour has said that it knows, at the last check."""
    session_up: bool = False
    """Whether the session was up at the last check while the link was still in hold-down."""
    authentication: Authentication = field(default_factory=Authentication)
    addresses: frozenset[str] = frozenset()
    """The neighbour's addresses in the view, from which its packets come."""
    source_port: int = 0
    """The UDP port of the last packet that was accepted."""
    interval: int = 0
    """Milliseconds between two packets, as negotiated at the last check."""
    next_timer: float = float("inf")
    """When the session's next timer is due, as the loop has it in its heap."""

    @property
    def name(self) -> str:
        """The neighbour's name."""
        return self.peer.node

    def await_former_session(self, now: float, interval: float = 0.0) -> None:
        """Send nothing for as long as the neighbour has its session with the watcher before: its next packet shows it.

        A packet in state Down would end that session. *interval*: seconds between two packets as the watcher before had
        negotiated, 0 if that is not known. It may be longer than this node's own: a relay of many leaves sends seldom.
        """
        silence = max(self.session.usual_detection_time, self.session.multiplier * min(interval, MAX_FORMER_INTERVAL))
        self.session.await_remote(now + silence)
        self.grace_until += silence
        self.resumable_until = self.grace_until

    def may_resume(self, now: float) -> bool:
        """Return whether packets of the session with the watcher before count: until the neighbour knows this one."""
        return now < self.resumable_until and (self.session.is_untouched or self.session.state is bfd.BfdState.UP)

    def receive(self, packet: bfd.Packet, now: float) -> bfd.Packet | None:
        """Process *packet* of the neighbour, and return the packet to send at once; None: there is none.

        The neighbour's session with the watcher before goes on: it goes down at neither end.
        """
        own = self.session.discriminator
        if packet.your_discriminator == own:
            self.resumable_until = 0.0
        elif packet.your_discriminator and self.may_resume(now):
            self.session.resume(now)
            packet = replace(packet, your_discriminator=own)
        return self.session.receive(packet, now)

    def accepts(self, received: Received, now: float) -> bool:
        """Return whether *received* counts for the session: a packet of another program on the neighbour does not.

        A genuine packet counts from any address: a node that gets another one may send from it before this node has
        applied a view that has it.
        """
        found = self.authentication.check(received.data, now)
        counts = found is Authenticity.GENUINE or (found is Authenticity.UNSIGNED and self._is_usual(received))
        if counts:
            self.source_port = received.port
        return counts

    def _is_usual(self, received: Received) -> bool:
        """Whether *received* came from where packets without codes come from.

        A neighbour that sends no codes keeps its UDP port as long as the session is up (RFC 5881 section 4). A program
        of another user cannot send from that port.
        """
        is_same = received.port == self.source_port or self.session.state is not bfd.BfdState.UP
        return is_same and received.source in self.addresses

    @property
    def last_forwarded(self) -> float:
        """When the neighbour was last seen to forward a packet."""
        return max(self.last_probe_reply, self.last_echo)

    @property
    def reports_isolated(self) -> bool:
        """Whether the neighbour is a relay that says that it reaches no other relay, if only during a change."""
        beyond = (bfd.Diagnostic.CONCATENATED_DOWN, bfd.Diagnostic.ADMIN_DOWN)
        up = self.session.state is bfd.BfdState.UP
        return self.is_relay and up and self.session.remote_diagnostic in beyond

    @property
    def reports_all_trunks_down(self) -> bool:
        """Whether the neighbour is a relay that says that it has lost all other relays."""
        return self.is_relay and self.session.remote_diagnostic == bfd.Diagnostic.CONCATENATED_DOWN

    @property
    def is_admin_down(self) -> bool:
        """Whether either end holds the session down on purpose (RFC 5880 section 6.8.16)."""
        return bfd.BfdState.ADMIN_DOWN in (self.session.state, self.session.remote_state)
