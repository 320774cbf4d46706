"""One link under the watcher's eyes: its BFD session, and what is believed of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from saltext_wgmesh.core import bfd
from saltext_wgmesh.core.holddown import HoldDown
from saltext_wgmesh.core.linkstate import LinkState
from saltext_wgmesh.core.types import Interface, Peer


@dataclass(slots=True, kw_only=True, eq=False)
class Watched:
    """One link: its session and what is believed of it. Times are of the monotonic clock unless they say otherwise."""

    peer: Peer
    interface: Interface
    session: bfd.Session
    state: LinkState
    since: float
    """Seconds since the epoch."""
    grace_until: float
    is_relay: bool
    """Whether the neighbour is a relay."""
    damping: HoldDown = field(default_factory=HoldDown)
    good_since: float | None = None
    """Since when the session is up."""
    down_since: float = 0.0
    anew: int = 0
    """How often the peer was added anew since it went down."""
    probed: float | None = None
    """When a relay's forwarding was found worth probing; None: it can't be judged."""
    echoed: float = 0.0
    """When a probe through it last came back."""
    said: bool = False
    """Whether it is mute by its own word."""
    acquitted: bool = False
    """Whether no relay is left that could bear witness against it: all others are cut off by their own word."""
    rested_at: float = 0.0
    """When it was last seen at rest."""
    heeded: bool = False
    """Whether this end lets it rest, and the other knew when it was last looked at."""
    heard: bool = False
    """Whether it was up again, though not used yet, when it was last looked at."""
    interval: int = 0
    """Milliseconds between packets, as negotiated when it was last looked at."""
    scheduled: float = float("inf")

    @property
    def name(self) -> str:
        """The neighbour."""
        return self.peer.node

    @property
    def is_cut_off(self) -> bool:
        """Whether it is a relay that says that it reaches no other relay, be it only for the time of a change."""
        beyond = (bfd.Diagnostic.CONCATENATED_DOWN, bfd.Diagnostic.ADMIN_DOWN)
        up = self.session.state is bfd.State.UP
        return self.is_relay and up and self.session.remote_diagnostic in beyond

    @property
    def is_alone(self) -> bool:
        """Whether it is a relay that says that it has lost all others."""
        return self.is_relay and self.session.remote_diagnostic == bfd.Diagnostic.CONCATENATED_DOWN

    @property
    def rests(self) -> bool:
        """Whether either end holds it down on purpose."""
        return bfd.State.ADMIN_DOWN in (self.session.state, self.session.remote_state)
