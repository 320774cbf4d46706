"""The state of each link of one mesh, as its BFD session, its probes and the time tell it.

Nothing here reads a clock, a file or the kernel: times come in as arguments, and states go out.
"""

from __future__ import annotations

import zlib
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import MappingProxyType

from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.hold_down import HOLD_CEILING, HoldDown
from saltext_wgmesh.core.liveness.link_report import DownLink, DownLinks, LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.stored_time import plausible
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
MAX_HOLD_OF_LEAF = 1.0
"""Seconds for which a leaf that flaps is at most not used while this node has no other relay: it is reached by no other
path."""
ADMIN_DOWN_RECOVERY = 15.0
"""Seconds after an administrative down in which a link must come up: an apply waits for 10, and then rolls back."""
PROBE_EVERY = 0.2
"""Seconds between two probes through a relay."""
PROBES = 4
"""Probes in a row that must be lost until a relay is a blackhole: longer than it takes to find a dead trunk."""
ECHO_AFTER = 1.5 * PROBE_EVERY
"""Seconds without a reply to a probe after which echoes are sent too."""
ONE_WAY_AFTER = 10.0
"""Seconds for which all probes must be lost, while echoes return, until the report says so: longer than a trunk takes
to come back."""
PROBE_TARGETS = 2
"""Other relays to which a relay is probed through, at most."""


@dataclass(slots=True, kw_only=True)
class LinkVerdict:
    """Decides the state of the links of one view of one mesh.

    It is asked for each packet, so no answer about one link looks at all others: their states are counted as they
    change.
    """

    mesh: str
    links: Mapping[str, MonitoredLink]
    """Keyed by neighbour."""
    drained_relays: Set[str] = frozenset()
    """Relays that no route needs: they are not probed."""
    relays: tuple[MonitoredLink, ...] = field(init=False)
    """The links to relays."""
    _used_relays: set[str] = field(init=False)
    """The relays whose links are up."""
    _trunks: Counter[LinkState] = field(init=False)
    """State → how many trunks are in it."""
    _announced: bfd.Diagnostic | None = field(init=False, default=None)
    """The path diagnostic that all sessions to leaves have; None: it is not known yet."""

    def __post_init__(self) -> None:
        self.relays = tuple(link for link in self.links.values() if link.is_relay)
        self._used_relays = {link.name for link in self.relays if link.state is LinkState.UP}
        self._trunks = Counter(link.state for link in self.links.values() if link.interface.kind is Kind.TRUNK)

    @property
    def down(self) -> DownLinks:
        """The links that routes must avoid at this moment; always the present states, also of a kept value."""
        return _Down(self.links)

    @property
    def blackholed(self) -> Set[str]:
        """The relays that are up and forward nothing."""
        return {link.name for link in self.relays if link.state is LinkState.BLACKHOLE}

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
            if link.state in (LinkState.ADMIN_DOWN, LinkState.DOWN, LinkState.BLACKHOLE):
                return None
            is_ours = link.session.state is bfd.BfdState.ADMIN_DOWN
            if is_ours or link.hold_down.may_be_held(now):
                link.hold_down = link.hold_down if is_ours else link.hold_down.was_held(now)
                return self._set_state(link, LinkState.ADMIN_DOWN, wall_clock, "held down on purpose")
            link.hold_down = link.hold_down.went_down(now)
            link.down_since, link.rehandshakes = now, 0
            return self._set_state(link, LinkState.DOWN, wall_clock, "held down too often")
        if link.state is LinkState.ADMIN_DOWN and now - link.admin_down_at < ADMIN_DOWN_RECOVERY:
            return None
        in_grace = now < link.grace_until
        # During its grace only a session that was up can go down: until then its diagnostic is NONE.
        if link.state is LinkState.DOWN or (in_grace and link.session.diagnostic == bfd.Diagnostic.NONE):
            return None
        link.hold_down = link.hold_down.went_down(now)
        link.down_since, link.rehandshakes = now, 0
        return self._set_state(link, LinkState.DOWN, wall_clock, bfd.Diagnostic(link.session.diagnostic).name.lower())

    def _evaluate_up(self, link: MonitoredLink, now: float, wall_clock: float) -> str | None:
        """The same for a link whose session is up: it is a blackhole, or used, or still in hold-down."""
        probing_since = link.probing_since
        lost = probing_since is not None and now - max(link.last_forwarded, probing_since) > PROBES * PROBE_EVERY
        self_reported = link.reports_all_trunks_down and self._has_better_relay(link)
        # Before the hold-down: a session that is up says nothing of what the relay forwards.
        if lost or self_reported:
            if link.state is LinkState.BLACKHOLE:
                return None
            link.self_reported_blackhole = self_reported
            link.hold_down = link.hold_down.went_down(now)
            link.up_since = now
            why = (
                "the relay reaches no other relay" if self_reported else "probes and echoes through the relay are lost"
            )
            return self._set_state(link, LinkState.BLACKHOLE, wall_clock, why)
        unproven = probing_since is None or link.last_forwarded < probing_since
        # The finding of a lost probe only a probe or an echo can refute, unless there is nothing left to probe.
        if (
            link.state is LinkState.BLACKHOLE
            and unproven
            and not (link.self_reported_blackhole or link.no_probe_target)
        ):
            return None
        if link.state is LinkState.UP:
            return None
        up_for = now - (link.up_since or now)
        hold = self._hold(link)
        if up_for < hold:
            return None
        if link.hold_down.up_at is None:
            link.hold_down = link.hold_down.came_up(now)
        return self._set_state(link, LinkState.UP, wall_clock, f"good for {up_for:.1f} s" if hold else "session up")

    def _hold(self, link: MonitoredLink) -> float:
        """Seconds that *link* must be up before it is used.

        None after an administrative down, and none while no other relay is up: waiting would cut the node off.
        """
        if link.state is LinkState.ADMIN_DOWN:
            return 0.0
        if len(self._used_relays) <= (link.name in self._used_relays):
            # A leaf that flaps often would have its relay log, report and set routes for each of its packets.
            return 0.0 if link.is_relay else min(link.hold_down.hold, MAX_HOLD_OF_LEAF)
        return max(link.hold_down.hold, MIN_UP_AFTER_DOWN) if link.state is LinkState.DOWN else link.hold_down.hold

    def _has_better_relay(self, link: MonitoredLink) -> bool:
        """Whether another relay is used, or may be, that reaches further relays.

        Without one all other relays may be dead, and *link* the only way. A relay whose link is not used yet does not
        count: it may have just started, and reach no relay either.
        """
        return any(name != link.name and not self.links[name].reports_isolated for name in self._used_relays)

    def report(self) -> LinkReport:
        """The states of all links, sorted by neighbour."""
        links = {name: link_status(link) for name, link in sorted(self.links.items())}
        return LinkReport(mesh=self.mesh, from_watcher=True, links=MappingProxyType(links))

    def announce_path_state(self) -> None:
        """Have the sessions to leaves say whether this relay reaches any other relay (RFC 5880 section 6.8.17).

        A leaf cannot find out by probes which of two relays has lost the other. A relay whose trunks are all held down
        on purpose says that instead: a leaf then keeps it, and takes no lost probe to it for a blackhole.
        """
        beyond = bfd.Diagnostic.NONE
        used = self._trunks.total() - self._trunks[LinkState.DOWN] - self._trunks[LinkState.ADMIN_DOWN]
        if self._trunks.total() and not used:
            lost = self._trunks[LinkState.DOWN]
            beyond = bfd.Diagnostic.CONCATENATED_DOWN if lost else bfd.Diagnostic.ADMIN_DOWN
        if beyond is not self._announced:
            self._announced = beyond
            for link in self.links.values():
                if not link.is_relay:
                    link.session.set_path_diagnostic(beyond)

    def probes(self, now: float) -> Iterator[tuple[MonitoredLink, MonitoredLink]]:
        """Pairs of a relay to probe through and the relay that should answer, at *now* of the monotonic clock.

        Each link's ``probing_since`` and ``no_probe_target`` follow.
        """
        # The session counts, not the state: only a probe can show that a blackholed relay forwards again.
        relays = [link for link in self.relays if link.session.state is bfd.BfdState.UP]
        # If this is the only relay of the mesh, no relay can answer and none has to.
        any_other = len(relays) > 1 or len(self.relays) == 1
        # The ring of relays twice, so that the successors of each are one slice.
        ring = [i for i, link in enumerate(relays) if not link.reports_isolated]
        ring += [i + len(relays) for i in ring]
        for i, link in enumerate(relays):
            if link.name in self.drained_relays:
                # No node depends on it, and whether it still forwards shows the operator when it may be stopped.
                link.probing_since = None
                continue
            # Each relay begins with its successor, so that probes spread over all.
            first = bisect(ring, i)
            others = [place for place in ring[first : first + PROBE_TARGETS] if place < i + len(relays)]
            candidates = [relays[place % len(relays)] for place in others]
            link.no_probe_target = not candidates and any_other
            # A target that has just come up may not answer yet.
            targets = [t for t in candidates if t.up_since is not None and now - t.up_since > STABLE_AFTER]
            if not targets:
                link.probing_since = None
                continue
            link.probing_since = now if link.probing_since is None else link.probing_since
            yield from ((link, target) for target in targets)

    def echoes(self, now: float) -> Iterator[MonitoredLink]:
        """The links through which an echo is to be sent at *now* of the monotonic clock.

        A lost probe says nothing of which relay lost it: the one that it went through, or the one that was to answer.
        So a relay is a blackhole only if it does not return an echo either.
        """
        for link in self.relays:
            since = link.probing_since
            if since is not None and now - max(link.last_probe_reply, since) > ECHO_AFTER:
                yield link

    def path_faults(self, now: float) -> tuple[str, ...]:
        """Return in words the relays that return echoes, and through which probes have long been lost, at *now*.

        A firewall that passes one direction between two interfaces does that: an echo enters and leaves by the same
        one. A relay that answers no probe looks alike, so such a relay stays in use.
        """
        return tuple(
            f"packets through {link.name} to another relay and back are lost, and those to itself return: a firewall "
            f"on {link.name} may pass one direction only (see its relay_faults), or the other relay answers no probe"
            for link in self.relays
            if link.state is LinkState.UP
            and link.probing_since is not None
            and not link.reports_isolated
            and now - max(link.last_probe_reply, link.probing_since) > ONE_WAY_AFTER
        )

    def _set_state(self, link: MonitoredLink, state: LinkState, wall_clock: float, why: str) -> str:
        """Have *link* be in *state* since *wall_clock*, and count it there; return *why*."""
        if link.interface.kind is Kind.TRUNK:
            self._trunks[link.state] -= 1
            self._trunks[state] += 1
        if link.is_relay:
            (self._used_relays.add if state is LinkState.UP else self._used_relays.discard)(link.name)
        link.state, link.since = state, wall_clock
        return why


class _Down(Mapping[str, DownLink]):
    """Neighbour → its link, of those that are down at the moment of each look."""

    def __init__(self, links: Mapping[str, MonitoredLink]) -> None:
        self._links = links

    def __getitem__(self, neighbour: str) -> DownLink:
        found = link_status(self._links[neighbour]).down_link
        if found is None:
            raise KeyError(neighbour)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._links if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def recall(link: MonitoredLink, reported: LinkStatus, now: float, wall_clock: float) -> None:
    """Have *link*, which is new, go on from the state that an earlier watcher *reported*; the times are as below."""
    link.state, link.since = reported.state, plausible(reported.since, wall_clock)
    link.grace_until = now + STABLE_AFTER
    link.hold_down = remembered_hold_down(reported, now, wall_clock)


def remembered_hold_down(reported: LinkStatus, now: float, wall_clock: float) -> HoldDown:
    """The hold-down of a link that an earlier watcher *reported*.

    *now* is of the monotonic clock, *wall_clock* in seconds since the epoch, as ``reported.since`` is.
    """
    up_at = now - max(0.0, wall_clock - reported.since) if reported.state is LinkState.UP else None
    return HoldDown(hold=min(reported.hold, HOLD_CEILING), up_at=up_at)


def discriminator(address: str) -> int:
    """The discriminator of the reflector at *address* (RFC 7880 section 4): for IPv4 the address itself."""
    return int(IPv4Address(address)) if address_family(address) == 4 else zlib.crc32(address.encode()) or 1


def link_status(link: MonitoredLink) -> LinkStatus:
    """The state of *link* as the report has it."""
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
