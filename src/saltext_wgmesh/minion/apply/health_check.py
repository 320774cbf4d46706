"""Check after an apply whether the node still has what it had before: its links, a relay, and the master."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.model.policy import Role
from saltext_wgmesh.core.model.view import Kind, View
from saltext_wgmesh.minion.apply.comparison import NodeMesh
from saltext_wgmesh.minion.state import admin_down, link_report_file

CONNECT_TIMEOUT = 2.0
"""Seconds."""
HEALTH_POLL_INTERVAL = 0.2
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Master:
    """Where this node reaches the master."""

    address: str
    port: int
    """The TCP port on which the master publishes."""

    @classmethod
    def of(cls, opts: Mapping[str, Any]) -> Master | None:
        """Return the master in the minion options *opts*; None for a minion without a master."""
        address = str(opts.get("master_ip") or "").strip("[]")
        return cls(address=address, port=int(opts.get("publish_port") or 4505)) if address else None

    def answers(self) -> bool:
        """Return whether a connection can be opened within CONNECT_TIMEOUT."""
        try:
            socket.create_connection((self.address, self.port), timeout=CONNECT_TIMEOUT).close()
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The links and the master that the node could reach before an apply."""

    links_up: frozenset[str] = frozenset()
    """The neighbours whose links were up."""
    master: Master | None = None
    """None: the master did not answer, or the apply can't affect it."""

    def with_master(self, master: Master | None) -> Baseline:
        """Return this baseline with *master*, if the master answers now."""
        return replace(self, master=master if master and master.answers() else None)


def baseline(node: NodeMesh) -> Baseline:
    """Return the links that are up now; none where no watcher runs."""
    report = link_report_file.read_report(node.host, node.mesh)
    links = report.links.items() if report and report.from_watcher else ()
    return Baseline(links_up=frozenset(n for n, link in links if link.state is LinkState.UP))


def may_route_master(master: Master, *views: View | None) -> bool:
    """Return whether, in one of *views*, the path to the master may lead through the mesh."""
    try:
        address = ip_address(master.address)
    except ValueError:
        return True
    prefixes = (p for view in views if view for route in view.routes for p in route.prefixes)
    return any(address in network for network in map(ip_network, prefixes) if network.version == address.version)


def required_relays(old_view: View | None, view: View, before: Baseline, lasting: Set[str]) -> frozenset[str]:
    """Return the relays of *view* of which one must be up after the apply; empty if that does not depend on this node.

    One is required if a relay was up *before*. A leaf's relays learn of the leaf before the leaf learns of them, so all
    of them count. Another relay may learn of this one at any time, so only *lasting* links count for a relay.
    """
    if old_view is None or old_view.addresses != view.addresses or not before.links_up & _relays(old_view):
        return frozenset()
    return _relays(view) if view.role is Role.LEAF else _relays(view) & lasting


def _relays(view: View) -> frozenset[str]:
    kind = Kind.UPLINK if view.role is Role.LEAF else Kind.TRUNK
    return frozenset(p.node for i in view.interfaces if i.kind is kind for p in i.peers)


def lost_since(
    node: NodeMesh,
    before: Baseline,
    required: frozenset[str],
    required_any: Mapping[str, frozenset[str]],
    timeout: float,
) -> tuple[str, ...]:
    """Return in words what the node has lost since *before*; empty as soon as nothing is missing.

    Missing are links of *required* that are not up, groups of *required_any* of which no link is up, and a master that
    answered before and does not answer now. Whatever is still missing after *timeout* seconds is lost.
    """
    deadline = time.monotonic() + timeout
    while True:
        lost = [f"{n} is no longer reachable" for n in admin_down.wait_for_links(node.host, node.mesh, required, 0.0)]
        for group, neighbours in required_any.items():
            missing = admin_down.wait_for_links(node.host, node.mesh, neighbours, 0.0)
            if neighbours and len(missing) == len(neighbours):
                lost.append(f"no {group} is reachable any longer ({', '.join(missing)})")
        if before.master and not before.master.answers():
            lost.append(f"the master ({before.master.address}, port {before.master.port}) is no longer reachable")
        # All is checked in each round: a link may go down again while another one is awaited.
        if not lost or time.monotonic() >= deadline:
            return tuple(lost)
        time.sleep(HEALTH_POLL_INTERVAL)
