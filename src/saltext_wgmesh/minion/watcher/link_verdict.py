"""The state of each link of one mesh, as its BFD session, its probes and the time tell it.

Nothing here reads a clock, a file or the kernel: times come in as arguments, and states go out.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import MappingProxyType

from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.hold_down import HoldDown
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.view import Kind
from saltext_wgmesh.minion.watcher.link import MonitoredLink

NEW_LINK_GRACE = 15.0
"""Seconds in which a link that never was up is neither down nor used: its other end may be about to apply the view that
has it."""
STABLE_AFTER = 3.0
"""Seconds that a link must be up before probes are sent to it. A link that an earlier watcher reported has as long to
come up again."""
MIN_UP_AFTER_DOWN = 1.0
"""Seconds that a link that was down must be up before it is used. Its other end may be about to remove and add its
peer, which ends the session once more."""
ADMIN_DOWN_RECOVERY = 15.0
"""Seconds after an administrative down in which a link must come up: an apply waits for 10, and then rolls back."""
PROBE_EVERY = 0.2
"""Seconds between two probes through a relay."""
PROBES = 4
"""Probes in a row that must be lost until a relay is a blackhole: longer than it takes to find a dead trunk."""
PROBE_TARGETS = 2
"""Other relays to which a relay is probed through, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkVerdict:
    """Decides the state of the links of one view of one mesh."""

    mesh: str
    links: Mapping[str, MonitoredLink]
    """Keyed by neighbour."""
    drained_relays: Set[str] = frozenset()
    """Relays that no route needs: they are not probed."""

    def evaluate(self, link: MonitoredLink, now: float, wall_clock: float) -> str | None:
        """Set the state that follows from the session and the probes of *link*; return why, or None if it is unchanged.

        *now* is of the monotonic clock, *wall_clock* in seconds since the epoch; it becomes ``link.since``.
        """
        if link.session.state is bfd.BfdState.UP:
            link.up_since = now if link.up_since is None else link.up_since
            return self._evaluate_up(link, now, wall_clock)
        link.up_since = link.probing_since = None
        if link.is_admin_down:
            link.admin_down_at = now
            # A link that was not usable before keeps its state, and with it its hold-down.
            unusable = link.state in (LinkState.ADMIN_DOWN, LinkState.DOWN, LinkState.BLACKHOLE)
            return None if unusable else _set_state(link, LinkState.ADMIN_DOWN, wall_clock, "held down on purpose")
        if link.state is LinkState.ADMIN_DOWN and now - link.admin_down_at < ADMIN_DOWN_RECOVERY:
            return None
        in_grace = now < link.grace_until
        # During its grace only a session that was up can go down: until then its diagnostic is NONE.
        if link.state is LinkState.DOWN or (in_grace and link.session.diagnostic == bfd.Diagnostic.NONE):
            return None
        link.hold_down = link.hold_down.went_down(now)
        link.down_since, link.rehandshakes = now, 0
        return _set_state(link, LinkState.DOWN, wall_clock, bfd.Diagnostic(link.session.diagnostic).name.lower())

    def _evaluate_up(self, link: MonitoredLink, now: float, wall_clock: float) -> str | None:
        """The same for a link whose session is up: it is a blackhole, or used, or still in hold-down."""
        probing_since = link.probing_since
        lost = probing_since is not None and now - max(link.last_probe_reply, probing_since) > PROBES * PROBE_EVERY
        self_reported = link.reports_all_trunks_down and self._has_better_relay(link)
        if lost or self_reported:
            if link.state is LinkState.BLACKHOLE:
                return None
            link.self_reported_blackhole = self_reported
            link.hold_down = link.hold_down.went_down(now)
            link.up_since = now
            why = "the relay reaches no other relay" if self_reported else "probes through the relay are lost"
            return _set_state(link, LinkState.BLACKHOLE, wall_clock, why)
        unproven = probing_since is None or link.last_probe_reply < probing_since
        # The finding of a lost probe only a probe can refute, unless there is nothing left to probe.
        if (
            link.state is LinkState.BLACKHOLE
            and unproven
            and not (link.self_reported_blackhole or link.no_probe_target)
        ):
            return None
        up_for = now - (link.up_since or now)
        hold = self._hold(link)
        if link.state is LinkState.UP or up_for < hold:
            return None
        if link.hold_down.up_at is None:
            link.hold_down = link.hold_down.came_up(now)
        return _set_state(link, LinkState.UP, wall_clock, f"good for {up_for:.1f} s" if hold else "session up")

    def _hold(self, link: MonitoredLink) -> float:
        """Seconds that *link* must be up before it is used.

        None after an administrative down, and none while no other relay is up: waiting would cut the node off.
        """
        others = (other for other in self.links.values() if other is not link)
        if link.state is LinkState.ADMIN_DOWN or not any(o.state is LinkState.UP and o.is_relay for o in others):
            return 0.0
        return max(link.hold_down.hold, MIN_UP_AFTER_DOWN) if link.state is LinkState.DOWN else link.hold_down.hold

    def _has_better_relay(self, link: MonitoredLink) -> bool:
        """Whether another relay is used, or may be, that reaches further relays.

        Without one all other relays may be dead, and *link* the only way. A relay whose link is not used yet does not
        count: it may have just started, and reach no relay either.
        """
        relays = (other for other in self.links.values() if other.is_relay and other is not link)
        return any(other.state is LinkState.UP and not other.reports_isolated for other in relays)

    def report(self) -> LinkReport:
        """The states of all links, sorted by neighbour."""
        links = {name: _reported(link) for name, link in sorted(self.links.items())}
        return LinkReport(mesh=self.mesh, from_watcher=True, links=MappingProxyType(links))

    def announce_path_state(self) -> None:
        """Have the sessions to leaves say whether this relay reaches any other relay (RFC 5880 section 6.8.17).

        A leaf cannot find out by probes which of two relays has lost the other. A relay whose trunks are all held down
        on purpose says that instead: a leaf then keeps it, and takes no lost probe to it for a blackhole.
        """
        trunks = {link.state for link in self.links.values() if link.interface.kind is Kind.TRUNK}
        beyond = bfd.Diagnostic.NONE
        if trunks and trunks <= {LinkState.DOWN, LinkState.ADMIN_DOWN}:
            lost = LinkState.DOWN in trunks
            beyond = bfd.Diagnostic.CONCATENATED_DOWN if lost else bfd.Diagnostic.ADMIN_DOWN
        for link in self.links.values():
            if trunks and not link.is_relay:
                link.session.set_path_diagnostic(beyond)

    def probes(self, now: float) -> Iterator[tuple[MonitoredLink, MonitoredLink]]:
        """Pairs of a relay to probe through and the relay that should answer, at *now* of the monotonic clock.

        Each link's ``probing_since`` and ``no_probe_target`` follow.
        """
        relays = [link for link in self.links.values() if link.is_relay and link.session.state is bfd.BfdState.UP]
        for i, link in enumerate(relays):
            if link.name in self.drained_relays:
                # No node depends on it, and whether it still forwards shows the operator when it may be stopped.
                link.probing_since = None
                continue
            # Each relay begins with its successor, so that probes spread over all.
            others = [*relays[i + 1 :], *relays[:i]]
            candidates = [other for other in others if not other.reports_isolated][:PROBE_TARGETS]
            # If this is the only relay of the mesh, no relay can answer and none has to.
            is_only_relay = sum(other.is_relay for other in self.links.values()) == 1
            link.no_probe_target = not candidates and (bool(others) or is_only_relay)
            # A target that has just come up may not answer yet.
            targets = [t for t in candidates if t.up_since is not None and now - t.up_since > STABLE_AFTER]
            if not targets:
                link.probing_since = None
                continue
            link.probing_since = now if link.probing_since is None else link.probing_since
            yield from ((link, target) for target in targets)


def remembered_hold_down(reported: LinkStatus | None, now: float, wall_clock: float) -> HoldDown:
    """The hold-down of a link that an earlier watcher *reported*; None: it reported none.

    *now* is of the monotonic clock, *wall_clock* in seconds since the epoch, as ``reported.since`` is.
    """
    if reported is None:
        return HoldDown()
    up_at = now - max(0.0, wall_clock - reported.since) if reported.state is LinkState.UP else None
    return HoldDown(hold=reported.hold, up_at=up_at)


def discriminator(address: str) -> int:
    """The discriminator of the reflector at *address* (RFC 7880 section 4): for IPv4 the address itself."""
    return int(IPv4Address(address)) if address_family(address) == 4 else zlib.crc32(address.encode()) or 1


def _set_state(link: MonitoredLink, state: LinkState, wall_clock: float, why: str) -> str:
    link.state, link.since = state, wall_clock
    return why


def _reported(link: MonitoredLink) -> LinkStatus:
    return LinkStatus(
        neighbour=link.name,
        interface=link.interface.name,
        state=link.state,
        since=link.since,
        hold=link.hold_down.hold,
        interval=link.interval,
        admin_down_acknowledged=link.admin_down_acknowledged,
        session_up=link.session_up,
    )
