"""One monitored mesh: the links of its view, and what is done for them again and again."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Set

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.keys.bfd_keys import link_keys
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.link_report import LinkState, LinkStatus
from saltext_wgmesh.core.model.addresses import address_family, host_prefixes
from saltext_wgmesh.core.model.policy import Bfd, Role
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, View
from saltext_wgmesh.minion.state import admin_down, keys, link_report_file
from saltext_wgmesh.minion.system import peer_keys
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.system.peer_keys import PeerKeyTracker
from saltext_wgmesh.minion.watcher.error_log import ErrorLog
from saltext_wgmesh.minion.watcher.link import MonitoredLink
from saltext_wgmesh.minion.watcher.link_verdict import (
    NEW_LINK_GRACE,
    LinkVerdict,
    link_status,
    recall,
)
from saltext_wgmesh.minion.watcher.rehandshake import Rehandshaker
from saltext_wgmesh.minion.watcher.route_updater import RouteUpdater
from saltext_wgmesh.minion.watcher.slices import Steps, change_aside, finish, groups_of, in_slices, read_aside
from saltext_wgmesh.minion.watcher.sockets import canonical

log = logging.getLogger("wgmesh.watch")

KEY_CHECK_BACKOFF = 15.0
"""Seconds for which the keys of a neighbour that is not up are checked at every call of ``maintain``."""
KEY_CHECK_EVERY = 2.0
"""Seconds between two checks after that."""
PACING_PER_LEAF = 2_000
"""Microseconds by which each leaf slows a relay's sessions: about 1,000 packets a second in both directions."""


class MeshMonitor:
    """The links of one view. Nothing of the node changes but the routes and, for a handshake, the peers of the view."""

    def __init__(self, host: Host, view: View, *, load: bool = True) -> None:
        """Monitor *view*; *load* False: not before the ``load_steps`` were taken and the monitor has begun."""
        self.host = host
        self.links: dict[str, MonitoredLink] = {}
        """Keyed by neighbour."""
        self.indices: dict[str, int] = {}
        """Interface → its index, of those that exist."""
        self.is_report_due = True
        """Whether the report on disk is to be written again."""
        self.changed_links: set[str] = set()
        """The neighbours whose links changed since routes last followed them."""
        self.is_stopped = False
        self._is_out_of_step = False
        """Whether routes have to be compared with the kernel's."""
        self._faults: tuple[str, ...] = ()
        self._peer_keys = PeerKeyTracker(host)
        self._keys_checked_at = 0.0
        self._errors = ErrorLog(log)
        self._install(view, {}, RouteUpdater(host, view, load=False))
        if load:
            finish(self.load_steps(view))
            self.begin()
            finish(self.reconcile_steps())

    def source_for(self, address: str) -> str:
        """Return the node's address from which it sends to *address*: its first one of that family."""
        family = address_family(address)
        return next((own for own in self.view.addresses if address_family(own) == family), self.source)

    # -- the view ---------------------------------------------------------------------------------------

    def update(self, view: View) -> None:
        """Take the ``update_steps`` at once."""
        finish(self.update_steps(view))

    def update_steps(self, view: View) -> Steps[None]:
        """Monitor *view* from now on. Links that stay as they were keep their sessions."""
        yield from self._rehandshaker.stop_steps()
        yield from self.load_steps(view)
        yield from self.reconcile_steps(delete_stale=True)

    def stop_steps(self) -> Steps[None]:
        """End what was begun for the view. The mesh is monitored no longer, and writes no report."""
        self.is_stopped = True
        yield from self._rehandshaker.stop_steps()

    def begin(self, *, is_successor: bool = False) -> None:
        """Go on from the states that the watcher before has reported, if one ran. Routes follow in the next round.

        *is_successor*: it ran until this moment, and the links go on with its sessions. Sockets do not wait for routes:
        those of the kernel are still as the watcher before has set them.
        """
        reported = link_report_file.read_report(self.host, self.view.mesh)
        # A report that the beacon wrote while no watcher ran comes from counters, which tell nothing of idle links.
        known = reported.links if reported and reported.from_watcher else {}
        now, wall_clock = time.monotonic(), time.time()
        for name in known.keys() & self.links.keys():
            recall(self.links[name], known[name], now, wall_clock)
        if is_successor:
            # Also where no report tells of the link: on a full disk the watcher before wrote none.
            for name, link in self.links.items():
                link.await_former_session(now, _former_interval(known.get(name)))
        self.verdict = self._new_verdict(self.view, self.links)
        self._is_out_of_step = True

    def load_steps(self, view: View) -> Steps[None]:
        """Take up the links of *view*. Nothing of the node changes.

        Until the links and routes of the view are complete, those of the view before are in use.
        """
        routes = RouteUpdater(self.host, view, load=False)
        yield from routes.load_steps()
        links = yield from self._links_steps(view)
        self._install(view, links, routes)

    def _install(self, view: View, links: dict[str, MonitoredLink], routes: RouteUpdater) -> None:
        self.view, self.links, self.routes = view, links, routes
        self.source = view.addresses[0]
        self.verdict = self._new_verdict(view, links)
        self._rehandshaker = Rehandshaker(self.host, view, self._peer_keys)
        self._held = {name for name, link in links.items() if link.session.state is bfd.BfdState.ADMIN_DOWN}
        self._with_two_keys = tuple(link for link in links.values() if link.peer.next_key)
        self._refresh_indices()
        self.is_report_due = True

    def _new_verdict(self, view: View, links: dict[str, MonitoredLink]) -> LinkVerdict:
        return LinkVerdict(mesh=view.mesh, links=links, drained_relays=frozenset(view.drained_relays))

    def _links_steps(self, view: View) -> Steps[dict[str, MonitoredLink]]:
        own_keys = self._own_keys()
        leaves = sum(len(i.peers) for i in view.interfaces if i.kind is Kind.ACCESS) if view.forward else 0
        links: dict[str, MonitoredLink] = {}
        for interface in view.interfaces:
            pacing = PACING_PER_LEAF * leaves if interface.kind is Kind.ACCESS else 0
            interval = max(view.bfd.interval * 1000, pacing)
            is_relay = _leads_to_relay(view, interface)
            for group in groups_of(interface.peers):
                for peer in group:
                    old = self.links.get(peer.node)
                    # The session of a link that stays goes on: a new one would have to come up first.
                    if old is None or not _is_same_link(old, peer, interface):
                        old = _new_link(view.bfd, peer, interface, interval)
                    links[peer.node] = old
                    _reconfigure(old, peer, interface, is_relay)
                    old.session.set_interval(interval, time.monotonic())
                    old.session.set_multiplier(view.bfd.multiplier)
                    old.authentication.set_keys(link_keys(own_keys, peer.keys))
                yield None
        return links

    def _own_keys(self) -> tuple[bytes, ...]:
        """The private keys of this node, for use within this method's caller only; none while they cannot be read."""
        try:
            return keys.private_keys(self.host)
        except (HostError, OSError) as error:
            self._errors.failed("%s cannot be read, and BFD packets are not authenticated", self.host.key_file, error)
            return ()

    def _refresh_indices(self) -> None:
        self.indices = {}
        for interface in self.view.interfaces:
            try:
                self.indices[interface.name] = socket.if_nametoindex(interface.name)
            except OSError:
                continue

    # -- states and routes ------------------------------------------------------------------------------

    def evaluate(self, link: MonitoredLink, now: float) -> bool:
        """Set the state of *link* that follows from its session and probes; return whether it changed."""
        why = self.verdict.evaluate(link, now, time.time())
        if why is None:
            return False
        log.info("%s: %s by %s is %s (%s)", self.view.mesh, link.name, link.interface.name, link.state.value, why)
        self.is_report_due = True
        self.changed_links.add(link.name)
        return True

    def route_steps(self) -> Steps[None]:
        """Have the kernel's routes, and the sessions to leaves, follow the links that changed."""
        changed, self.changed_links = self.changed_links, set()
        self.verdict.announce_path_state()
        routes = self.routes
        for waits_for in routes.update_steps(self.verdict, self.indices.keys(), changed):
            yield waits_for
            if routes is not self.routes:
                # Another view was taken up, with all of its routes.
                return

    def reconcile_steps(self, *, delete_stale: bool = False) -> Steps[None]:
        """The same for all links, compared with the routes that the kernel has now instead of those set last."""
        self._is_out_of_step = False
        self.verdict.announce_path_state()
        yield from self.routes.reconcile_steps(self.verdict, self.indices.keys(), delete_stale=delete_stale)

    def reconcile_rules_steps(self) -> Steps[None]:
        """Restore rules that another program has deleted. An apply deletes some itself, and is left alone."""
        yield from self.routes.reconcile_rules_steps(self.indices.keys())

    # -- now and then -----------------------------------------------------------------------------------

    def apply_admin_down(self, now: float) -> Set[str]:
        """Hold down the sessions that an apply has requested, and enable those it has released.

        Returns the neighbours whose sessions changed.
        """
        requested = admin_down.requested(self.host, self.view.mesh) & self.links.keys()
        changed = requested ^ self._held
        for name in changed:
            session = self.links[name].session
            (session.admin_down if name in requested else session.enable)(now)
        self._held = set(requested)
        return changed

    def maintain(self, now: float) -> None:
        """Take the ``maintain_steps`` at once."""
        finish(self.maintain_steps(now))

    def maintain_steps(self, now: float) -> Steps[None]:
        """Do what is due by time: end graces and hold-downs, retry links that are down, write the report.

        No program is waited for: one that hangs would have links look dead that are probed or reported no longer.
        """
        indices = dict(self.indices)
        self._refresh_indices()
        # A device that was made again has lost its routes.
        self._is_out_of_step |= indices != self.indices
        yield from in_slices(self.links.values(), lambda link: self._maintain_link(link, now))
        # A session may have come up without any change of state; its neighbour knows nothing yet.
        self.verdict.announce_path_state()
        self._rehandshaker.reap()
        if self.is_report_due:
            yield from self._report_steps()

    def follow_kernel_steps(self, now: float) -> Steps[None]:
        """Do what is due by time and waits for programs: move keys of neighbours, restore lost routes."""
        yield from self._track_keys_steps(now)
        if self._is_out_of_step:
            yield from self.reconcile_steps()

    def _maintain_link(self, link: MonitoredLink, now: float) -> None:
        self.evaluate(link, now)
        if self._note_session_up(link):
            self.changed_links.add(link.name)
        self._note_session(link)
        self._rehandshaker.maintain(link, now, self.indices.keys())

    def note_faults(self, faults: tuple[str, ...]) -> None:
        """Have the report name *faults* of this node."""
        if faults != self._faults:
            self._faults, self.is_report_due = faults, True

    def _note_session_up(self, link: MonitoredLink) -> bool:
        """Note whether *link* is up but in hold-down; return whether that changed.

        Such a link is preferred to one that is down.
        """
        session_up = link.state is LinkState.DOWN and link.session.state is bfd.BfdState.UP
        changed = session_up != link.session_up
        link.session_up, self.is_report_due = session_up, self.is_report_due or changed
        return changed

    def _note_session(self, link: MonitoredLink) -> None:
        """Note what the report says of the session besides the link's state."""
        interval = round(link.session.transmit_interval * 1000)
        if interval != link.interval:
            link.interval, self.is_report_due = interval, True
        if link.admin_down_acknowledged != link.session.admin_down_acknowledged:
            link.admin_down_acknowledged, self.is_report_due = link.session.admin_down_acknowledged, True

    def _report_steps(self) -> Steps[None]:
        """Write the report. A link that changes in the meantime makes another one due."""
        self.is_report_due = False
        report: dict[str, dict[str, object]] = {}
        links = self.links
        for group in groups_of(sorted(links)):
            report |= {name: link_status(links[name]).as_dict() for name in group}
            yield None
        # The mesh may have been removed between two slices, and its report with it.
        if self.is_stopped:
            return
        path = link_report_file.report_path(self.host, self.view.mesh)
        try:
            link_report_file.write_links(self.host, self.view.mesh, report, self._faults)
        except OSError as error:
            self.is_report_due = True
            self._errors.failed("%s: the link report cannot be written", path, error)
        else:
            self._errors.succeeded("%s: the link report is written again", path)

    def _track_keys_steps(self, now: float) -> Steps[None]:
        """Give the allowed-ips of a neighbour with two keys to the one that it runs.

        A neighbour whose session is up still runs the same key. One that has been down for long is checked seldom.
        """
        silent = [link for link in self._with_two_keys if link.session.state is not bfd.BfdState.UP]
        since = max((max(link.down_since, link.admin_down_at) for link in silent), default=now)
        if not silent or (now - since > KEY_CHECK_BACKOFF and now - self._keys_checked_at < KEY_CHECK_EVERY):
            return
        self._keys_checked_at = now
        listed = [(link.interface.name, link.peer) for link in silent]
        try:
            dump = yield from read_aside(self.host.run, *peer_keys.DUMP)
            for command in self._peer_keys.moves(listed, dump):
                yield from change_aside(self.host.run, *command)
        except HostError as error:
            self._errors.failed("%s: the keys of neighbours cannot be checked", self.view.mesh, error)


def _former_interval(reported: LinkStatus | None) -> float:
    """Seconds between two packets of the session that is *reported* as up; 0 if none is."""
    # A session that is not up is slow, and there is none to wait for.
    is_up = reported is not None and (reported.state in (LinkState.UP, LinkState.BLACKHOLE) or reported.session_up)
    return reported.interval / 1000 if reported is not None and is_up else 0.0


def _is_same_link(link: MonitoredLink, peer: Peer, interface: Interface) -> bool:
    """Whether *peer* on *interface* is the neighbour of *link* still: by one of its keys, on the same interface."""
    return bool(set(link.peer.keys) & set(peer.keys)) and link.interface.name == interface.name


def _leads_to_relay(view: View, interface: Interface) -> bool:
    """Whether the neighbours behind *interface* are relays.

    During a role change a relay has an uplink too, to a leaf that was a relay or is about to become one.
    """
    return interface.kind is Kind.TRUNK or (interface.kind is Kind.UPLINK and view.role is Role.LEAF)


def _new_link(timing: Bfd, peer: Peer, interface: Interface, interval: int) -> MonitoredLink:
    """A link with a new session; *interval* is in microseconds."""
    now = time.monotonic()
    session = bfd.Session(discriminator=new_discriminator(), interval=interval, multiplier=timing.multiplier)
    return MonitoredLink(
        peer=peer,
        interface=interface,
        session=session,
        state=LinkState.NEW,
        since=time.time(),
        grace_until=now + NEW_LINK_GRACE,
        is_relay=False,
        down_since=now,
        admin_down_at=now,
    )


def new_discriminator() -> int:
    """Return a discriminator that no neighbour can guess from those that it knows.

    It is random also since the neighbour must take no packet of an earlier session for one of this (RFC 5880 section
    6.3).
    """
    return secrets.randbits(32) or 1


def _addresses(peer: Peer) -> frozenset[str]:
    """The addresses of *peer* itself: two of a family while it is renumbered."""
    addresses = [prefix.rpartition("/")[0] for prefix in peer.allowed_ips]
    hosts = zip(addresses, peer.allowed_ips, host_prefixes(addresses), strict=True)
    listed = map(canonical, (peer.address, *peer.other_addresses))
    return frozenset((*listed, *(address for address, prefix, host in hosts if prefix == host)))


def _reconfigure(link: MonitoredLink, peer: Peer, interface: Interface, is_relay: bool) -> None:
    """Have *link* follow another view. Its session goes on."""
    if link.is_relay and not is_relay:
        # A leaf forwards nothing, so no probe could end its blackhole.
        link.probing_since, link.self_reported_blackhole, link.no_probe_target = None, False, True
    link.addresses = _addresses(peer)
    link.peer, link.interface, link.is_relay = peer, interface, is_relay
