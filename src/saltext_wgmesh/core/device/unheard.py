"""Whether a node hears any neighbour of a mesh, and in words why it does not, from reports and WireGuard's counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saltext_wgmesh.core.device.state import PeerStats
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState
from saltext_wgmesh.core.model.view import Interface, Peer, View

MAX_NEIGHBOURS_SHOWN = 3
"""Neighbours whose silence is explained; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """One neighbour as a peer of an interface, with the counters of all its keys."""

    interface: Interface
    peer: Peer
    stats: tuple[PeerStats, ...]
    """Empty if the kernel has no such peer."""

    @property
    def received(self) -> int:
        """Bytes."""
        return sum(s.received for s in self.stats)

    @property
    def sent(self) -> int:
        """Bytes."""
        return sum(s.sent for s in self.stats)

    @property
    def had_handshake(self) -> bool:
        """Whether a handshake was completed since the peer was set."""
        return any(s.handshake_at is not None for s in self.stats)

    @property
    def endpoint(self) -> str | None:
        """Where packets to the neighbour go; None: the neighbour must call first."""
        return next((s.endpoint for s in self.stats if s.endpoint), None) or self.peer.endpoint


def tunnels(view: View, stats: Sequence[PeerStats]) -> tuple[Tunnel, ...]:
    """Return all neighbours of *view*, with those of *stats* that are theirs."""
    by_key = {(s.device, s.public_key): s for s in stats}
    return tuple(
        Tunnel(interface=i, peer=p, stats=tuple(by_key[i.name, k] for k in p.keys if (i.name, k) in by_key))
        for i in view.interfaces
        for p in i.peers
    )


def hears_any(found: Sequence[Tunnel], report: LinkReport | None) -> bool:
    """Return whether one of the neighbours is heard. A node without neighbours has none to hear, which is True.

    The watcher's *report* decides. Without a watcher, a completed handshake counts, unless the link has gone stale.
    """
    return not found or any(_is_heard(tunnel, report) for tunnel in found)


def _is_heard(tunnel: Tunnel, report: LinkReport | None) -> bool:
    link = report.links.get(tunnel.peer.node) if report else None
    if report is None or not report.from_watcher:
        return tunnel.had_handshake and not (link and link.state is LinkState.DOWN)
    # A link in hold-down carries packets, and one that is held down on purpose has no fault.
    return link is not None and (link.state in (LinkState.UP, LinkState.ADMIN_DOWN) or link.session_up)


def explain_silence(view: View, found: Sequence[Tunnel]) -> str:
    """Return for an operator that none of the neighbours is heard, with the cause as far as the counters show it."""
    more = len(found) - MAX_NEIGHBOURS_SHOWN
    shown = [_cause(tunnel) for tunnel in found[:MAX_NEIGHBOURS_SHOWN]] + ([f"and {more} more"] if more > 0 else [])
    return f"{view.mesh}: 0 of {len(found)} links up: {'; '.join(shown)}"


def _cause(tunnel: Tunnel) -> str:
    name = f"{tunnel.peer.node} ({tunnel.endpoint})" if tunnel.endpoint else tunnel.peer.node
    counted = f"{tunnel.sent} bytes sent, {tunnel.received} bytes received"
    if not tunnel.stats:
        return f"{name} is no peer of {tunnel.interface.name}: run 'salt-call wgmesh.apply'"
    if tunnel.had_handshake:
        inside = f"do firewalls drop packets on {tunnel.interface.name}, here or there?"
        return f"{name} answers WireGuard, but no link is up inside the tunnel ({counted}); {inside}"
    if tunnel.received:
        return f"{name} completed no handshake ({counted}); {'; '.join(_ports(tunnel))}"
    if tunnel.endpoint is None:
        return f"{name} did not call ({counted}); is UDP {tunnel.interface.listen_port} open here?"
    if not tunnel.sent:
        return f"{name} got no packet ({counted}); is there a route to it, and does the watcher run?"
    return f"{name} did not answer {tunnel.sent} bytes sent; {next(_ports(tunnel))}"


def _ports(tunnel: Tunnel) -> Iterator[str]:
    """Yield the UDP ports that both ends need, first that of the other end."""
    if tunnel.endpoint:
        yield f"is UDP {tunnel.endpoint.rpartition(':')[2]} open there?"
    if tunnel.interface.listen_port:
        yield f"is UDP {tunnel.interface.listen_port} open here?"
