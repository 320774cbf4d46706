"""One packet, hop by hop, as the kernels and WireGuard on its way would treat it.

At each node: the longest matching prefix chooses the Route; the first neighbour of it whose link is up is the way
out; on that neighbour's interface WireGuard gives the packet to the peer whose allowed-ips hold the destination; at
the other end it drops the packet unless the source is in the allowed-ips of the peer that it came from.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from itertools import chain
from typing import NamedTuple

from saltext_wgmesh.core.index import Index, Node
from saltext_wgmesh.core.lookup import Host, host
from saltext_wgmesh.core.types import Kind, Plan, Route

Down = Collection[str | frozenset[str]]
"""What is dead: nodes by name, links as pairs of names."""

MAX_HOPS = 8
"""A path may have as many links; no plan needs more than five (leaf, entry, detour, first home, second home, leaf)."""


class Outcome(enum.Enum):
    """What became of a packet."""

    DELIVERED = "delivered"
    NO_ROUTE = "no route"
    """The last node has no Route for the destination."""
    UNREACHABLE = "unreachable"
    """None of the neighbours of the Route has a link that is up."""
    NO_PEER = "no peer"
    """The way out leads to an interface on which no peer takes the destination."""
    NO_SESSION = "no session"
    """The two ends of the link don't fit: a key, an endpoint, a missing peer."""
    SOURCE_REFUSED = "source refused"
    """The last node dropped it: its source is not among the allowed-ips of the peer that it came from."""
    NOT_FORWARDING = "not forwarding"
    """The last node got a packet that is not its own, and forwards none such."""
    LOOP = "loop"
    DOWN = "down"
    """The source is dead, or a node sent it over a link that is."""


class Walk(NamedTuple):
    """The way of one packet."""

    hops: tuple[str, ...]
    """All nodes that had it, the source first."""
    outcome: Outcome
    detail: str
    """A sentence on why it ended where it did; empty when delivered."""

    @property
    def delivered(self) -> bool:
        """Whether it arrived."""
        return self.outcome is Outcome.DELIVERED


class Walker:
    """Walks packets over one plan. What does not depend on what is down is looked up once."""

    def __init__(self, plan: Plan, index: Index | None = None) -> None:
        self.index = index or Index(plan)

    def walk(self, source: str, to: Host, sender: Host, down: Down = ()) -> Walk:
        """The way of a packet with source address *sender* that *source* sends to the address *to*."""
        hops, by_trunk, at = [source], False, source
        seen = {(source, False)}
        if source in down:
            return Walk((source,), Outcome.DOWN, f"{source} is down")
        while True:
            node = self.index.node(at)
            if node is None:
                return Walk(tuple(hops), Outcome.NO_SESSION, f"{at} has no view")
            ended = self._local(node, to, len(hops) == 1)
            step = ended or self._step(node, to, sender, by_trunk, down)
            if isinstance(step[0], Outcome):
                return Walk(tuple(hops), step[0], str(step[1]))
            at, by_trunk = step[0], bool(step[1])
            hops.append(at)
            if (at, by_trunk) in seen or len(hops) > MAX_HOPS + 1:
                return Walk(tuple(hops), Outcome.LOOP, f"the packet comes to {at} again or takes over {MAX_HOPS} hops")
            seen.add((at, by_trunk))

    def _local(self, node: Node, to: Host, is_source: bool) -> tuple[Outcome, str] | None:
        """How the packet ends at *node*; None if it goes on."""
        name = node.view.node
        own = node.local.longest(to)
        if own is not None:
            if own in node.subnets and not node.view.forward:
                return Outcome.NOT_FORWARDING, f"{name} does not forward into {own}"
            return Outcome.DELIVERED, ""
        if is_source:
            return None
        if not (node.view.forward and node.member.is_relay):
            return Outcome.NOT_FORWARDING, f"{name} gets packets for {to.prefix}, and does not forward"
        if to.version not in node.families:
            return Outcome.NOT_FORWARDING, f"{name} has no IPv{to.version}"
        return None

    def _step(
        self, node: Node, to: Host, sender: Host, by_trunk: bool, down: Down
    ) -> tuple[str, bool] | tuple[Outcome, str]:
        """The next node, and whether the packet comes there by a trunk; or how it ends."""
        name = node.view.node
        route = node.routes.longest(to)
        if route is None or (by_trunk and route.from_trunk is None):
            return Outcome.NO_ROUTE, f"{name} has no route for {to.prefix}" + (" from a trunk" if by_trunk else "")
        for neighbour in choices(node, route, by_trunk):
            if not is_down(name, neighbour, down):
                return self._cross(node, neighbour, to, sender, down)
        return Outcome.UNREACHABLE, f"{name} has no link left that leads to {to.prefix}"

    def _cross(
        self, node: Node, neighbour: str, to: Host, sender: Host, down: Down
    ) -> tuple[str, bool] | tuple[Outcome, str]:
        """As ``_step``, for the interface that holds *neighbour*."""
        name = node.view.node
        end = node.ends.get(neighbour)
        if end is None:
            return Outcome.NO_PEER, f"{name} routes {to.prefix} to {neighbour}, which is no peer of it"
        interface = end[0]
        peer = node.admission(interface).longest(to)
        if peer is None:
            return Outcome.NO_PEER, f"on {interface.name} of {name} no peer takes {to.prefix}"
        if peer.node != neighbour and is_down(name, peer.node, down):
            return Outcome.DOWN, f"{name} sends to {peer.node}, whose link is down"
        far = self.index.other_end(name, interface, peer)
        if isinstance(far, str):
            return Outcome.NO_SESSION, far
        there, back = far
        receiver = self.index.node(peer.node)
        if receiver is None or receiver.admission(there).longest(sender) is not back:
            return Outcome.SOURCE_REFUSED, f"{peer.node} refuses the source {sender.prefix} from {name}"
        return peer.node, there.kind is Kind.TRUNK


def is_down(node: str, neighbour: str, down: Down) -> bool:
    """Whether *node* sees its link to *neighbour* down: the link is cut, or the node at its other end is dead."""
    return bool(down) and (neighbour in down or frozenset((node, neighbour)) in down)


def choices(node: Node, route: Route, by_trunk: bool) -> Iterable[str]:
    """The neighbours to which *node* may send what *route* matches, in order."""
    if by_trunk:
        return route.from_trunk or ()
    if route.detour:
        return chain(route.via, (t for t in node.trunks if t not in route.via))
    return route.via


def walk(
    plan: Plan, source: str, destination: str, down: Down = frozenset(), source_address: str | None = None
) -> Walk:
    """The way of a packet from *source* to the address *destination* while all of *down* is dead.

    *source_address* is for packets from a subnet behind *source*; without it they come from the node itself.
    ValueError if an address is none; KeyError if *source* is no member.
    """
    return walk_with(Walker(plan), source, destination, down, source_address)


def walk_with(walker: Walker, source: str, destination: str, down: Down, source_address: str | None = None) -> Walk:
    """As ``walk``, for many walks over one plan."""
    to = host(destination)
    own = walker.index.plan.members[source].addresses
    sender = source_address or next((a for a in own if (":" in a) == (to.version == 6)), None)
    if sender is None:
        return Walk((source,), Outcome.NO_ROUTE, f"{source} has no IPv{to.version} address")
    return walker.walk(source, to, host(sender), down)
