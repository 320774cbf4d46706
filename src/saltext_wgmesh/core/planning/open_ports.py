"""The UDP ports that firewalls must open, and for which nodes: all that others call by a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from saltext_wgmesh.core.model.plan import Member, Plan
from saltext_wgmesh.core.model.view import Peer


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class OpenPort:
    """A port of one node that some of its neighbours call."""

    port: int
    """The node listens on it."""
    endpoint: str
    """Under this address and port it is called; the port differs from *port* if a router forwards it."""
    callers: tuple[str, ...]
    """The nodes that call, sorted."""


def open_ports(plan: Plan) -> Mapping[str, tuple[OpenPort, ...]]:
    """Return node → its ports that others call, sorted. Nodes that no other calls are left out."""
    callers: dict[str, dict[tuple[int, str], set[str]]] = {}
    listening = {
        (node, peer.node): interface.listen_port
        for node, view in plan.views.items()
        for interface in view.interfaces
        for peer in interface.peers
    }
    for caller, peer in _peers(plan):
        port = listening.get((peer.node, caller))
        if peer.endpoint and port:
            callers.setdefault(peer.node, {}).setdefault((port, peer.endpoint), set()).add(caller)
    return {
        node: tuple(
            OpenPort(port=port, endpoint=endpoint, callers=tuple(sorted(nodes)))
            for (port, endpoint), nodes in sorted(found.items())
        )
        for node, found in sorted(callers.items())
    }


def describe_caller(member: Member) -> str:
    """Return the node, and the addresses from which its packets come; any address if it is behind NAT."""
    source = "any address, by NAT" if member.nat else ", ".join(member.underlay) or "any address"
    return f"{member.node} ({source})"


def _peers(plan: Plan) -> Iterator[tuple[str, Peer]]:
    return ((node, peer) for node, view in plan.views.items() for i in view.interfaces for peer in i.peers)
