"""One monitored mesh: the links of its view, and what is done for them again and again."""

from __future__ import annotations

import logging
import random
import socket
import time
from collections.abc import Mapping

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState
from saltext_wgmesh.core.model.policy import Role
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, View
from saltext_wgmesh.minion.state import admin_down, link_report_file
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.system.peer_keys import PeerKeyTracker
from saltext_wgmesh.minion.watcher.link import MonitoredLink
from saltext_wgmesh.minion.watcher.link_verdict import NEW_LINK_GRACE, STABLE_AFTER, LinkVerdict, remembered_hold_down
from saltext_wgmesh.minion.watcher.rehandshake import Rehandshaker
from saltext_wgmesh.minion.watcher.route_updater import RouteUpdater

log = logging.getLogger("wgmesh.watch")

KEY_CHECK_BACKOFF = 15.0
"""Seconds for which the keys of a neighbour that is not up are checked at every call of ``maintain``."""
KEY_CHECK_EVERY = 2.0
"""Seconds between two checks after that."""
PACING_PER_LEAF = 2_000
"""Microseconds by which each leaf slows a relay's sessions: about 1,000 packets a second in both directions."""


class MeshMonitor:
    """The links of one view. Nothing of the node changes but the routes and, for a handshake, the peers of the view."""

    def __init__(self, host: Host, view: View) -> None:
        self.host = host
        self.links: dict[str, MonitoredLink] = {}
        """Keyed by neighbour."""
        self.indices: dict[str, int] = {}
        """Interface → its index, of those that exist."""
        self.is_report_due = True
        """Whether the report on disk is to be written again."""
        self._peer_keys = PeerKeyTracker(host)
        self._keys_checked_at = 0.0
        reported = link_report_file.read_report(host, view.mesh)
        # A report that the beacon wrote while no watcher ran comes from counters, which tell nothing of idle links.
        self._load_view(view, reported if reported and reported.from_watcher else None)

    # -- the view ---------------------------------------------------------------------------------------

    def update(self, view: View) -> None:
        """Monitor *view* from now on. Links that stay as they were keep their sessions."""
        self.stop()
        self._load_view(view, None)
        self.routes.delete_stale_routes(self.verdict.report(), self.indices.keys())

    def stop(self) -> None:
        """End what was begun for the view: a peer that the next view does not have must not be added any longer."""
        self._rehandshaker.stop()

    def _load_view(self, view: View, reported: LinkReport | None) -> None:
        """Take up the links of *view*; *reported* is what an earlier watcher said of them, if one ran."""
        self.view = view
        self.source = view.addresses[0]
        self.links = self._links_of(view, self.links, reported)
        self.verdict = LinkVerdict(mesh=view.mesh, links=self.links, drained_relays=frozenset(view.drained_relays))
        self.routes = RouteUpdater(self.host, view)
        self._rehandshaker = Rehandshaker(self.host, view, self._peer_keys)
        self._refresh_indices()
        self.is_report_due = True
        self.reconcile_routes()

    def _links_of(
        self, view: View, before: Mapping[str, MonitoredLink], reported: LinkReport | None
    ) -> dict[str, MonitoredLink]:
        leaves = sum(len(i.peers) for i in view.interfaces if i.kind is Kind.ACCESS) if view.forward else 0
        links = {}
        for interface in view.interfaces:
            pacing = PACING_PER_LEAF * leaves if interface.kind is Kind.ACCESS else 0
            interval = max(view.bfd.interval * 1000, pacing)
            for peer in interface.peers:
                old = before.get(peer.node)
                if old is None or not _is_same_link(old, peer, interface):
                    links[peer.node] = self._new_link(peer, interface, interval, reported)
                else:
                    self._reconfigure(old, peer, interface, interval)
                    links[peer.node] = old
        return links

    def _reconfigure(self, link: MonitoredLink, peer: Peer, interface: Interface, interval: int) -> None:
        """Have *link* follow the present view. Its session goes on; *interval* is in microseconds."""
        is_relay = self._leads_to_relay(interface)
        if link.is_relay and not is_relay:
            # A leaf forwards nothing, so no probe could end its blackhole.
            link.probing_since, link.self_reported_blackhole, link.no_probe_target = None, False, True
        link.peer, link.interface, link.is_relay = peer, interface, is_relay
        link.session.set_interval(interval, time.monotonic())
        link.session.set_multiplier(self.view.bfd.multiplier)

    def _new_link(self, peer: Peer, interface: Interface, interval: int, reported: LinkReport | None) -> MonitoredLink:
        """A link with a new session; *interval* is in microseconds, *reported* is of an earlier watcher."""
        now, wall_clock = time.monotonic(), time.time()
        known = reported.links.get(peer.node) if reported else None
        # Random, so that the neighbour takes no packet of an earlier session for one of this (RFC 5880 section 6.3).
        session = bfd.Session(
            discriminator=random.getrandbits(32) or 1, interval=interval, multiplier=self.view.bfd.multiplier
        )
        return MonitoredLink(
            peer=peer,
            interface=interface,
            session=session,
            state=known.state if known else LinkState.NEW,
            since=known.since if known else wall_clock,
            grace_until=now + (STABLE_AFTER if known else NEW_LINK_GRACE),
            is_relay=self._leads_to_relay(interface),
            hold_down=remembered_hold_down(known, now, wall_clock),
            down_since=now,
            admin_down_at=now,
        )

    def _leads_to_relay(self, interface: Interface) -> bool:
        """Whether the neighbours behind *interface* are relays.

        During a role change a relay has an uplink too, to a leaf that was a relay or is about to become one.
        """
        return interface.kind is Kind.TRUNK or (interface.kind is Kind.UPLINK and self.view.role is Role.LEAF)

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
        return True

    def update_routes(self) -> None:
        """Have the kernel's routes, and the sessions to leaves, follow the states of the links."""
        self.verdict.announce_path_state()
        self.routes.update_routes(self.verdict.report(), self.indices.keys())

    def reconcile_routes(self) -> None:
        """The same, compared with the routes that the kernel has now instead of those set last."""
        self.verdict.announce_path_state()
        self.routes.reconcile_routes(self.verdict.report(), self.indices.keys())

    # -- now and then -----------------------------------------------------------------------------------

    def apply_admin_down(self, now: float) -> bool:
        """Hold down the sessions that an apply has requested, and enable those it has released.

        Returns whether any session changed.
        """
        requested = admin_down.requested(self.host, self.view.mesh)
        changed = False
        for link in self.links.values():
            is_held = link.session.state is bfd.BfdState.ADMIN_DOWN
            if is_held != (link.name in requested):
                (link.session.enable if is_held else link.session.admin_down)(now)
                changed = True
        return changed

    def maintain(self, now: float) -> None:
        """Do what is due by time: end graces and hold-downs, retry links that are down, write the report."""
        indices = dict(self.indices)
        self._refresh_indices()
        self._track_keys(now)
        changed = [self.evaluate(link, now) for link in self.links.values()]
        changed += [self._note_session_up(link) for link in self.links.values()]
        # A session may have come up without any change of state; its neighbour knows nothing yet.
        self.verdict.announce_path_state()
        if any(changed):
            self.update_routes()
        elif indices != self.indices:
            # A device that was made again has lost its routes.
            self.reconcile_routes()
        for link in self.links.values():
            self._note_session(link)
            self._rehandshaker.maintain(link, now, self.indices.keys())
        self._rehandshaker.reap()
        if self.is_report_due:
            self._write_report()

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

    def _write_report(self) -> None:
        try:
            link_report_file.write_report(self.host, self.verdict.report())
            self.is_report_due = False
        except OSError as error:
            log.warning("%s: the link report cannot be written: %s", self.view.mesh, error)

    def _track_keys(self, now: float) -> None:
        """Give the allowed-ips of a neighbour with two keys to the one that it runs.

        A neighbour whose session is up still runs the same key. One that has been down for long is checked seldom.
        """
        silent = [k for k in self.links.values() if k.peer.next_key and k.session.state is not bfd.BfdState.UP]
        since = max((max(link.down_since, link.admin_down_at) for link in silent), default=now)
        if not silent or (now - since > KEY_CHECK_BACKOFF and now - self._keys_checked_at < KEY_CHECK_EVERY):
            return
        self._keys_checked_at = now
        try:
            self._peer_keys.update((link.interface.name, link.peer) for link in silent)
        except HostError as error:
            log.warning("%s: the keys of neighbours cannot be checked: %s", self.view.mesh, error)


def _is_same_link(link: MonitoredLink, peer: Peer, interface: Interface) -> bool:
    """Whether *peer* on *interface* is the neighbour of *link* still: by one of its keys, on the same interface."""
    return bool(set(link.peer.keys) & set(peer.keys)) and link.interface.name == interface.name
