"""One mesh under the watcher's eyes: its links, what is believed of them, and the routes that follow."""

from __future__ import annotations

import json
import logging
import random
import socket
import subprocess
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import groupby
from types import MappingProxyType

from saltext_wgmesh.core import bfd, iptext, names, routes, wanted, wgtext
from saltext_wgmesh.core.device import RouteEntry, family_of
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.holddown import HoldDown
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.core.types import Interface, Kind, Peer, Role, View
from saltext_wgmesh.minion import keys, linkfile, preshared, resting
from saltext_wgmesh.minion.following import Follower
from saltext_wgmesh.minion.host import Host, environment
from saltext_wgmesh.minion.store import Store
from saltext_wgmesh.minion.watched import Watched

log = logging.getLogger("wgmesh.watch")

GRACE = 15.0
"""Seconds in which a link that was never heard is not called down, though not used either: its other end may be about
to apply the view that has it."""
SETTLED = 3.0
"""Seconds that a link must be up before another relay is judged by what it forwards there; and in which a link that an
earlier watcher knew is heard again, or is down."""
RETURNED = 1.0
"""Seconds that a link that was down must be up before it is used: its other end may be adding its peer anew just now,
which ends the session once more."""
RESUMES = 15.0
"""Seconds after its rest in which a link must be heard again: an apply waits for 10, and then takes it back."""
ANEW_AT = (1.0, 5.0, 15.0)
ANEW_EVERY = 30.0
"""Seconds after a link went down at which its peer is added anew, for a fresh handshake."""
QUIET = 15.0
FOLLOW_EVERY = 2.0
"""Seconds between looks at which of two keys a neighbour runs that is quiet for longer than QUIET seconds."""
PROBE_EVERY = 0.2
PROBES = 4
"""Probes in a row that must be lost until a relay is taken for mute: longer than it takes to find a dead trunk."""
TARGETS = 2
"""Other relays to which a relay is probed through."""
PACE = 2_000
"""Microseconds by which each leaf slows a relay's sessions: about 1,000 packets a second in both directions."""


class MeshWatch:
    """The links of one view. ``routes`` of the kernel follow what is believed; nothing else on the node is touched."""

    def __init__(self, host: Host, view: View) -> None:
        self.host = host
        self.view = view
        self.links: dict[str, Watched] = {}
        self.indices: dict[str, int] = {}
        """Interface → its index, of those that exist."""
        self.dirty = True
        self.source = view.addresses[0]
        self._entries: dict[tuple[int, str], RouteEntry] = {}
        """As they were set last, by place."""
        self._anew: list[subprocess.Popen[bytes]] = []
        self._follower = Follower(host)
        self._followed_at = 0.0
        told = linkfile.read(host, view.mesh)
        # What the beacon wrote while no watcher ran, it has from counters that know nothing of idle links.
        self._adopt(view, told if told and told.watched else None)

    # -- the view ---------------------------------------------------------------------------------------

    def update(self, view: View) -> None:
        """*view* is the one to watch; links that stay as they were keep their sessions."""
        self.end()
        self.view = view
        self.source = view.addresses[0]
        self._adopt(view, None)
        self._sweep()

    def end(self) -> None:
        """Nothing that was begun by the view goes on: a name that is looked up still may be of a peer that has left."""
        for process in self._anew:
            process.kill()
            process.wait()
        self._anew = []

    def _sweep(self) -> None:
        """No route of an earlier view is left: one that was set while an apply was under way, it did not see."""
        protocol = str(names.ROUTE_PROTOCOL)
        wanted_places = {entry.place for entry in self._wanted()}
        try:
            live = iptext.parse_routes(self.host.run("ip", "-json", "route", "show", "table", "all", "proto", protocol))
            gone = [e for e in live if e.device in self.indices and e.place not in wanted_places]
            for family in {e.family for e in gone}:
                self.host.ip_batch(family, [iptext.route_line("del", e) for e in gone if e.family == family])
        except HostError as error:
            log.warning("%s: %s", self.view.mesh, error)

    def _adopt(self, view: View, told: LinkReport | None) -> None:
        before, self.links = self.links, {}
        leaves = sum(len(i.peers) for i in view.interfaces if i.kind is Kind.ACCESS) if view.forward else 0
        for interface in view.interfaces:
            slow = PACE * leaves if interface.kind is Kind.ACCESS else 0
            interval = max(view.bfd.interval * 1000, slow)
            for peer in interface.peers:
                self.links[peer.node] = self._link(peer, interface, interval, before.get(peer.node), told)
        self._prepared = routes.expand(view)
        self._refresh_indices()
        self.dirty = True
        self.mend()

    def _link(
        self, peer: Peer, interface: Interface, interval: int, old: Watched | None, told: LinkReport | None
    ) -> Watched:
        now = time.monotonic()
        same = old and set(old.peer.keys) & set(peer.keys)
        # To a leaf that was a relay, or is about to be one, a relay has an uplink too.
        is_relay = interface.kind is Kind.TRUNK or (interface.kind is Kind.UPLINK and self.view.role is Role.LEAF)
        if old and same and old.interface.name == interface.name:
            if old.is_relay and not is_relay:
                old.probed, old.said, old.acquitted = None, False, True
            old.peer, old.interface, old.is_relay = peer, interface, is_relay
            old.session.set_interval(interval, now)
            old.session.set_multiplier(self.view.bfd.multiplier)
            return old
        known = told.links.get(peer.node) if told else None
        session = bfd.Session(
            discriminator=random.getrandbits(32) or 1, interval=interval, multiplier=self.view.bfd.multiplier
        )
        return Watched(
            peer=peer,
            interface=interface,
            session=session,
            state=known.state if known else LinkState.NEW,
            since=known.since if known else time.time(),
            grace_until=now + (SETTLED if known else GRACE),
            is_relay=is_relay,
            damping=_remembered(known, now),
            down_since=now,
            rested_at=now,
        )

    def _refresh_indices(self) -> None:
        self.indices = {}
        for interface in self.view.interfaces:
            try:
                self.indices[interface.name] = socket.if_nametoindex(interface.name)
            except OSError:
                continue

    # -- believing --------------------------------------------------------------------------------------

    def judge(self, link: Watched, now: float) -> bool:
        """What is believed of *link* follows from its session and probes; whether that changed."""
        if link.session.state is bfd.State.UP:
            link.good_since = now if link.good_since is None else link.good_since
            return self._judge_up(link, now)
        link.good_since = link.probed = None
        if link.rests:
            link.rested_at = now
            known = link.state in (LinkState.ADMIN_DOWN, LinkState.DOWN, LinkState.MUTE)
            return not known and self._believe(link, LinkState.ADMIN_DOWN, "it rests")
        if link.state is LinkState.ADMIN_DOWN and now - link.rested_at < RESUMES:
            return False
        late = now >= link.grace_until
        if link.state is LinkState.DOWN or (not late and link.session.diagnostic == bfd.Diagnostic.NONE):
            return False
        link.damping = link.damping.went_down(now)
        link.down_since, link.anew = now, 0
        return self._believe(link, LinkState.DOWN, bfd.Diagnostic(link.session.diagnostic).name.lower())

    def _judge_up(self, link: Watched, now: float) -> bool:
        lost = link.probed is not None and now - max(link.echoed, link.probed) > PROBES * PROBE_EVERY
        said = link.is_alone and self._has_better(link)
        if lost or said:
            if link.state is LinkState.MUTE:
                return False
            link.said = said
            link.damping = link.damping.went_down(now)
            link.good_since = now
            why = "it reaches no other relay" if link.said else "what is sent through it does not arrive"
            return self._believe(link, LinkState.MUTE, why)
        unproven = link.probed is None or link.echoed < link.probed
        if link.state is LinkState.MUTE and unproven and not (link.said or link.acquitted):
            return False
        good_for = now - (link.good_since or now)
        hold = self._hold(link)
        if link.state is LinkState.UP or good_for < hold:
            return False
        if link.damping.up_at is None:
            link.damping = link.damping.came_up(now)
        return self._believe(link, LinkState.UP, f"good for {good_for:.1f} s" if hold else "heard")

    def _hold(self, link: Watched) -> float:
        """Seconds that *link* must be good before it is used: none after a rest, and while it is the only way to
        anywhere."""
        others = (other for other in self.links.values() if other is not link)
        if link.state is LinkState.ADMIN_DOWN or not any(o.state is LinkState.UP and o.is_relay for o in others):
            return 0.0
        return max(link.damping.hold, RETURNED) if link.state is LinkState.DOWN else link.damping.hold

    def _has_better(self, link: Watched) -> bool:
        """Whether another relay is used, or may be, that reaches others: else the others may be dead, and *link* all
        there is. One that is heard since a moment does not count: it may not reach anybody yet either."""
        relays = (other for other in self.links.values() if other.is_relay and other is not link)
        return any(other.state is LinkState.UP and not other.is_cut_off for other in relays)

    def _believe(self, link: Watched, state: LinkState, why: str) -> bool:
        log.info("%s: %s by %s is %s (%s)", self.view.mesh, link.name, link.interface.name, state.value, why)
        link.state, link.since = state, time.time()
        self.dirty = True
        return True

    def report(self) -> LinkReport:
        """All that is believed."""
        return LinkReport(
            mesh=self.view.mesh,
            watched=True,
            links=MappingProxyType(
                {
                    name: Link(
                        neighbour=name,
                        interface=link.interface.name,
                        state=link.state,
                        since=link.since,
                        hold=link.damping.hold,
                        interval=link.interval,
                        heeded=link.heeded,
                        heard=link.heard,
                    )
                    for name, link in sorted(self.links.items())
                }
            ),
        )

    # -- routes -----------------------------------------------------------------------------------------

    def _wanted(self) -> Iterator[RouteEntry]:
        report = self.report()
        families = {4, 6} if self.host.has_ipv6 else {4}
        for route in routes.select(self._prepared, report.down, report.mute):
            if family_of(route.prefix) in families:
                yield wanted.route_entry(self.view.mesh, route, self.view.addresses)

    def steer(self) -> None:
        """The routes that follow from what is believed are the kernel's: those that differ from the ones set last."""
        self._tell_leaves()
        self._replace(e for e in self._wanted() if self._entries.get(e.place) != e)

    def _tell_leaves(self) -> None:
        """A relay that has lost all its trunks says so to those who would send through it: they can't find out by
        probes which of two relays it is that has lost the other. So does one whose trunks rest: nobody shall leave it
        for that, nor judge another by what it forwards to it."""
        trunks = {link.state for link in self.links.values() if link.interface.kind is Kind.TRUNK}
        beyond = bfd.Diagnostic.NONE
        if trunks and trunks <= {LinkState.DOWN, LinkState.ADMIN_DOWN}:
            lost = LinkState.DOWN in trunks
            beyond = bfd.Diagnostic.CONCATENATED_DOWN if lost else bfd.Diagnostic.ADMIN_DOWN
        for link in self.links.values():
            if trunks and not link.is_relay:
                link.session.concatenated(beyond)

    def mend(self) -> None:
        """The same, against what the kernel holds now: somebody else may have changed it, an apply above all."""
        protocol = str(names.ROUTE_PROTOCOL)
        try:
            text = self.host.run("ip", "-json", "route", "show", "table", "all", "proto", protocol)
        except HostError as error:
            log.warning("%s: %s", self.view.mesh, error)
            return
        live = {entry.place: entry for entry in iptext.parse_routes(text)}
        self._entries = {e.place: live[e.place] for e in self._wanted() if e.place in live}
        self.steer()

    def _replace(self, entries: Iterable[RouteEntry]) -> None:
        changed = [e for e in entries if e.device is None or e.device in self.indices]
        for family, group in groupby(sorted(changed, key=lambda e: (e.family, e.place)), key=lambda e: e.family):
            listed = list(group)
            try:
                self.host.ip_batch(family, [iptext.route_line("replace", e) for e in listed])
            except HostError as error:
                # The view may be about to change under us; the next look at the kernel mends what is left.
                log.warning("%s: %s", self.view.mesh, error)
                continue
            self._entries |= {e.place: e for e in listed}

    # -- what is due now and then -----------------------------------------------------------------------

    def rest(self, now: float) -> bool:
        """The links that an apply wants at rest are, and those that it let go come up; whether any was told so now."""
        wanted_at_rest = resting.wanted(self.host, self.view.mesh)
        changed = False
        for link in self.links.values():
            rests = link.session.state is bfd.State.ADMIN_DOWN
            if rests != (link.name in wanted_at_rest):
                (link.session.enable if rests else link.session.admin_down)(now)
                changed = True
        return changed

    def tend(self, now: float) -> None:
        """Graces and holds end, dead peers get a fresh handshake, the file says what is believed."""
        indices = dict(self.indices)
        self._refresh_indices()
        self._follow_keys(now)
        changed = [self.judge(link, now) for link in self.links.values()]
        changed += [self._note_heard(link) for link in self.links.values()]
        # Sessions that came up since the last belief changed have not been told.
        self._tell_leaves()
        if any(changed):
            self.steer()
        elif indices != self.indices:
            self.mend()
        for link in self.links.values():
            interval = round(link.session.transmit_interval * 1000)
            if interval != link.interval:
                link.interval, self.dirty = interval, True
            if link.heeded != link.session.heeded:
                link.heeded, self.dirty = link.session.heeded, True
            # A new link too: its first handshake may have come before the other end knew of it.
            waits = link.state in (LinkState.DOWN, LinkState.NEW) and link.session.state is not bfd.State.UP
            if waits and now - link.down_since >= self._anew_due(link):
                self._add_anew(link)
        self._anew = [process for process in self._anew if process.poll() is None]
        if self.dirty:
            try:
                linkfile.write(self.host, self.report())
                self.dirty = False
            except OSError as error:
                log.warning("%s: the file of links can't be written: %s", self.view.mesh, error)

    def _note_heard(self, link: Watched) -> bool:
        heard = link.state is LinkState.DOWN and link.session.state is bfd.State.UP
        changed = heard != link.heard
        link.heard, self.dirty = heard, self.dirty or changed
        return changed

    def _follow_keys(self, now: float) -> None:
        """Who turned to its other key is taken by that one. Who is heard has not turned; who is quiet for long is
        looked at now and then."""
        quiet = [k for k in self.links.values() if k.peer.next_key and k.session.state is not bfd.State.UP]
        since = max((max(link.down_since, link.rested_at) for link in quiet), default=now)
        if not quiet or (now - since > QUIET and now - self._followed_at < FOLLOW_EVERY):
            return
        self._followed_at = now
        try:
            self._follower.look((link.interface.name, link.peer) for link in quiet)
        except HostError as error:
            log.warning("%s: %s", self.view.mesh, error)

    def _anew_due(self, link: Watched) -> float:
        extra = link.anew - len(ANEW_AT)
        return ANEW_AT[link.anew] if extra < 0 else ANEW_AT[-1] + ANEW_EVERY * (extra + 1)

    def _add_anew(self, link: Watched) -> None:
        """The peer is removed and added: its next packet starts a handshake, whatever state both ends are in. Who only
        answers gets the preshared key that is tried now.

        Not waited for: a name in the endpoint may take long to be looked up.
        """
        link.anew += 1
        try:
            words = self._anew_words(link)
            if words and link.interface.name in self.indices:
                self._anew.append(
                    subprocess.Popen(
                        ("wg", "set", link.interface.name, *words),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        env=environment(),
                    )
                )
        except (HostError, OSError) as error:
            log.warning("%s: %s can't be added anew: %s", self.view.mesh, link.name, error)

    def _anew_words(self, link: Watched) -> tuple[str, ...]:
        """Arguments of ``wg set``; empty if there is nothing to try."""
        peer, store = link.peer, Store(host=self.host, mesh=self.view.mesh)
        folder = store.secrets.preshared
        own = keys.chosen(self.host, self.view.turn_to) or ""
        turning = bool(peer.next_key and peer.endpoint)
        key = self._follower.try_other(link.interface.name, peer) if turning else peer.public_key
        known = preshared.to_try(store, self.view, peer, (own, key))
        # Chance, since both ends may have two.
        name = random.choice(known) if link.anew > 1 else known[0]
        words: tuple[str, ...] = ()
        for config in wanted.peer_configs(peer, key):
            chosen = replace(config, preshared=name)
            if config.public_key != key:
                words = (*words, "peer", config.public_key, "persistent-keepalive", "0")
            elif peer.endpoint is None:
                return wgtext.set_preshared(chosen, folder) if len(known) > 1 else ()
            else:
                words = (*words, *wgtext.remove_peer(key), *wgtext.add_peer(chosen, folder))
                words += ("endpoint", peer.endpoint) if wgtext.is_name(peer.endpoint) else ()
        return words

    # -- probes -----------------------------------------------------------------------------------------

    def probes(self, now: float) -> Iterator[tuple[Watched, Watched]]:
        """Pairs of a relay to be probed through and the relay that should answer."""
        relays = [link for link in self.links.values() if link.is_relay and link.session.state is bfd.State.UP]
        for i, link in enumerate(relays):
            if link.name in self.view.drained:
                # Nobody depends on it; and whether it still forwards shows when it may be stopped.
                link.probed = None
                continue
            others = [*relays[i + 1 :], *relays[:i]]
            witnesses = [t for t in others if not t.is_cut_off][:TARGETS]
            # Where the mesh has no other relay any more, nobody can ever answer, and nobody need.
            link.acquitted = not witnesses and (bool(others) or sum(x.is_relay for x in self.links.values()) == 1)
            # A target that came up just now may not answer yet.
            targets = [t for t in witnesses if t.good_since is not None and now - t.good_since > SETTLED]
            if not targets:
                link.probed = None
                continue
            link.probed = now if link.probed is None else link.probed
            yield from ((link, target) for target in targets)


def _remembered(known: Link | None, now: float) -> HoldDown:
    """The damping of a link of which an earlier watcher said what is *known*."""
    if known is None:
        return HoldDown()
    up_at = now - max(0.0, time.time() - known.since) if known.state is LinkState.UP else None
    return HoldDown(hold=known.hold, up_at=up_at)


def discriminator(address: str) -> int:
    """By which the reflector at *address* is known (RFC 7880 section 4): for IPv4 the address itself."""
    return int(IPv4Address(address)) if family_of(address) == 4 else zlib.crc32(address.encode()) or 1


def read_view(text: str) -> View:
    """The view in a file; ViewError or ValueError if there is none."""
    return View.from_dict(json.loads(text))
