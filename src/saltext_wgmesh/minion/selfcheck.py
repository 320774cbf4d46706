"""Does the node still have, after an apply, what it had before: its links, a way to the relays, and the master?"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from saltext_wgmesh.core.linkstate import LinkState
from saltext_wgmesh.core.types import Kind, Role, View
from saltext_wgmesh.minion import linkfile, resting
from saltext_wgmesh.minion.host import Host

PATIENCE = 10.0
"""Seconds within which all must be there again: WireGuard's next try of a handshake takes 5 s."""
LATE_PATIENCE = 30.0
"""The same for an apply that died: after a reboot all begins anew."""
ANSWERS_WITHIN = 2.0
EVERY = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Master:
    """Where the master is reached."""

    address: str
    port: int
    """TCP: that on which it publishes."""

    @classmethod
    def of(cls, opts: Mapping[str, Any]) -> Master | None:
        """As a minion's options name it; None for a minion without a master."""
        address = str(opts.get("master_ip") or "").strip("[]")
        return cls(address=address, port=int(opts.get("publish_port") or 4505)) if address else None

    def answers(self) -> bool:
        """Whether a connection can be opened within ANSWERS_WITHIN seconds."""
        try:
            socket.create_connection((self.address, self.port), timeout=ANSWERS_WITHIN).close()
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What there was before the apply."""

    up: frozenset[str] = frozenset()
    """The neighbours that were heard."""
    master: Master | None = None
    """None: it was not reached, or is not asked for."""

    def with_master(self, master: Master | None) -> Before:
        """This, and *master* if it is reached now."""
        return replace(self, master=master if master and master.answers() else None)


def look(host: Host, mesh: str) -> Before:
    """What there is now, as far as the watcher can tell."""
    report = linkfile.read(host, mesh)
    links = report.links.items() if report and report.watched else ()
    return Before(up=frozenset(n for n, link in links if link.state is LinkState.UP))


def concerns(master: Master, *views: View | None) -> bool:
    """Whether the way to the master may go by the mesh, in any of *views*."""
    try:
        address = ip_address(master.address)
    except ValueError:
        return True
    prefixes = (p for view in views if view for route in view.routes for p in route.prefixes)
    return any(address in network for network in map(ip_network, prefixes) if network.version == address.version)


def relays(held: View | None, view: View, before: Before, stays: Set[str]) -> frozenset[str]:
    """The relays of *view* one of which must be heard, since one was; none if that is not for this node to bring about.

    The relays of a leaf know it before it knows them; those of another relay learn of it at any time.
    """
    if held is None or held.addresses != view.addresses or not before.up & _relays(held):
        return frozenset()
    return _relays(view) if view.role is Role.LEAF else _relays(view) & stays


def _relays(view: View) -> frozenset[str]:
    kind = Kind.UPLINK if view.role is Role.LEAF else Kind.TRUNK
    return frozenset(p.node for i in view.interfaces if i.kind is kind for p in i.peers)


def missing(
    host: Host,
    view: View,
    before: Before,
    awaited: frozenset[str],
    one_of: Mapping[str, frozenset[str]],
    patience: float,
) -> tuple[str, ...]:
    """What is still not there after *patience* seconds, in words; nothing, and at once, if all is.

    All of *awaited* must be heard, one of each of *one_of* (by the words for none), and the master if it was reached
    *before*.
    """
    deadline = time.monotonic() + patience
    while True:
        lacking = [f"{n} is not heard any more" for n in resting.unheard(host, view.mesh, awaited, 0.0)]
        for nobody, nodes in one_of.items():
            silent = resting.unheard(host, view.mesh, nodes, 0.0)
            if nodes and len(silent) == len(nodes):
                lacking.append(f"{nobody} is heard any more ({', '.join(silent)})")
        if before.master and not before.master.answers():
            lacking.append(f"the master ({before.master.address}, port {before.master.port}) is not reached any more")
        if not lacking or time.monotonic() >= deadline:
            return tuple(lacking)
        time.sleep(EVERY)
