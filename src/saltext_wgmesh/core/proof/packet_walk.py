"""The way of one packet, hop by hop, as the kernels and WireGuard would treat it.

Each node does three things:

- The longest matching prefix selects the Route, and its first neighbour whose link is up is the next hop.
- On that neighbour's interface, WireGuard gives the packet to the peer whose allowed-ips hold the destination.
- At the other end, WireGuard drops the packet unless its source is in the allowed-ips of the sending peer.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.view import Kind, Route
from saltext_wgmesh.core.proof.forwarding_tables import ForwardingTables, NodeTables
from saltext_wgmesh.core.proof.prefix_table import HostAddress, host

Failures = Collection[str | frozenset[str]]
"""The nodes (by name) and links (as pairs of names) that are down."""

MAX_HOPS = 8
"""Links that a path may have at most. No plan needs more than five: leaf, first relay, detour, two relays, leaf."""


class WalkOutcome(enum.Enum):
    """How the way of a packet ended."""

    DELIVERED = "delivered"
    NO_ROUTE = "no route"
    """The last node has no Route for the destination."""
    UNREACHABLE = "unreachable"
    """None of the neighbours of the Route has a link that is up."""
    NO_PEER = "no peer"
    """On the outgoing interface no peer's allowed-ips hold the destination."""
    NO_SESSION = "no session"
    """The two ends of the link don't fit: a key, an endpoint, a missing peer."""
    SOURCE_REFUSED = "source refused"
    """The last node dropped it: its source is not among the allowed-ips of the sending peer."""
    NOT_FORWARDING = "not forwarding"
    """The last node received a packet that is not its own, and does not forward such packets."""
    LOOP = "loop"
    DOWN = "down"
    """The source is down, or a node sent the packet over a link that is down."""


class Walk(NamedTuple):
    """The way of one packet."""

    hops: tuple[str, ...]
    """All nodes that had it, the source first."""
    outcome: WalkOutcome
    detail: str
    """A sentence on why it ended where it did; empty when delivered."""

    @property
    def delivered(self) -> bool:
        """Whether it arrived."""
        return self.outcome is WalkOutcome.DELIVERED


class Walker:
    """Walks packets over one plan. Lookups that do not depend on failures are made once."""

    def __init__(self, plan: Plan, tables: ForwardingTables | None = None) -> None:
        self.tables = tables or ForwardingTables(plan)

    def walk(self, source: str, to: HostAddress, sender: HostAddress, down: Failures = ()) -> Walk:
        """Return the way of a packet with source address *sender* that *source* sends to the address *to*."""
        hops, by_trunk, at = [source], False, source
        seen = {(source, False)}
        if source in down:
            return Walk((source,), WalkOutcome.DOWN, f"{source} is down")
        while True:
            node = self.tables.node(at)
            if node is None:
                return Walk(tuple(hops), WalkOutcome.NO_SESSION, f"{at} has no view")
            ended = self._end_at(node, to, len(hops) == 1)
            step = ended or self._step(node, to, sender, by_trunk, down)
            if isinstance(step[0], WalkOutcome):
                return Walk(tuple(hops), step[0], str(step[1]))
            at, by_trunk = step[0], bool(step[1])
            hops.append(at)
            # A relay may see a packet twice without a loop: once from a leaf, once from a trunk, by different tables.
            if (at, by_trunk) in seen or len(hops) > MAX_HOPS + 1:
                return Walk(
                    tuple(hops), WalkOutcome.LOOP, f"the packet comes to {at} again or takes over {MAX_HOPS} hops"
                )
            seen.add((at, by_trunk))

    def _end_at(self, node: NodeTables, to: HostAddress, is_source: bool) -> tuple[WalkOutcome, str] | None:
        """Return how the packet ends at *node*; None if the node forwards it."""
        name = node.view.node
        # The own prefixes come first, as the kernel looks at its local table before all others (ip-rule(8)).
        own = node.local.longest(to)
        if own is not None:
            if own in node.subnets and not node.view.forward:
                return WalkOutcome.NOT_FORWARDING, f"{name} does not forward into {own}"
            return WalkOutcome.DELIVERED, ""
        if is_source:
            return None
        if not (node.view.forward and node.member.is_relay):
            return WalkOutcome.NOT_FORWARDING, f"{name} gets packets for {to.prefix}, and does not forward"
        if to.version not in node.families:
            return WalkOutcome.NOT_FORWARDING, f"{name} has no IPv{to.version}"
        return None

    def _step(
        self, node: NodeTables, to: HostAddress, sender: HostAddress, by_trunk: bool, down: Failures
    ) -> tuple[str, bool] | tuple[WalkOutcome, str]:
        """Return the next node, and whether the packet arrives there by a trunk; or how it ends."""
        name = node.view.node
        route = node.routes.longest(to)
        if route is None or (by_trunk and route.from_trunk is None):
            return WalkOutcome.NO_ROUTE, f"{name} has no route for {to.prefix}" + (" from a trunk" if by_trunk else "")
        for neighbour in eligible_next_hops(node, route, by_trunk):
            if not is_down(name, neighbour, down):
                return self._send(node, neighbour, to, sender, down)
        return WalkOutcome.UNREACHABLE, f"{name} has no link left that leads to {to.prefix}"

    def _send(
        self, node: NodeTables, neighbour: str, to: HostAddress, sender: HostAddress, down: Failures
    ) -> tuple[str, bool] | tuple[WalkOutcome, str]:
        """Return what ``_step`` does, for the interface that holds *neighbour*."""
        name = node.view.node
        end = node.ends.get(neighbour)
        if end is None:
            return WalkOutcome.NO_PEER, f"{name} routes {to.prefix} to {neighbour}, which is no peer of it"
        # From here on the kernel has chosen the interface; the peer follows from allowed-ips alone.
        interface = end[0]
        peer = node.cryptokey_table(interface).longest(to)
        if peer is None:
            return WalkOutcome.NO_PEER, f"on {interface.name} of {name} no peer takes {to.prefix}"
        if peer.node != neighbour and is_down(name, peer.node, down):
            return WalkOutcome.DOWN, f"{name} sends to {peer.node}, whose link is down"
        far = self.tables.other_end(name, interface, peer)
        if isinstance(far, str):
            return WalkOutcome.NO_SESSION, far
        there, back = far
        receiver = self.tables.node(peer.node)
        if receiver is None or receiver.cryptokey_table(there).longest(sender) is not back:
            return WalkOutcome.SOURCE_REFUSED, f"{peer.node} refuses the source {sender.prefix} from {name}"
        return peer.node, there.kind is Kind.TRUNK


def is_down(node: str, neighbour: str, down: Failures) -> bool:
    """Return whether *node* sees its link to *neighbour* down: the link itself is, or the node at its other end."""
    return bool(down) and (neighbour in down or frozenset((node, neighbour)) in down)


def eligible_next_hops(node: NodeTables, route: Route, by_trunk: bool) -> Iterable[str]:
    """Return the neighbours to which *node* may send the packets of *route*, in order of preference."""
    if by_trunk:
        return route.from_trunk or ()
    if route.detour:
        return chain(route.via, (t for t in node.trunks if t not in route.via))
    return route.via


def walk(
    plan: Plan, source: str, destination: str, down: Failures = frozenset(), source_address: str | None = None
) -> Walk:
    """Return the way of a packet from *source* to the address *destination* while all of *down* is down.

    *source_address* is for packets from a subnet behind *source*; by default the node's own address is used.
    ValueError for a malformed address; KeyError if *source* is not a member.
    """
    return walk_with(Walker(plan), source, destination, down, source_address)


def walk_with(walker: Walker, source: str, destination: str, down: Failures, source_address: str | None = None) -> Walk:
    """Return what ``walk`` does, for many walks over one plan."""
    to = host(destination)
    own = walker.tables.plan.members[source].addresses
    sender = source_address or next((a for a in own if address_family(a) == to.version), None)
    if sender is None:
        return Walk((source,), WalkOutcome.NO_ROUTE, f"{source} has no IPv{to.version} address")
    return walker.walk(source, to, host(sender), down)


def all_paths(plan: Plan, family: int | None = None) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return source → destination → the nodes on the way, both ends included, for meshes small enough to read.

    Each pair is walked in *family*, 4 or 6, or in the first family that both have. A pair is left out if it has none,
    or if its packets don't arrive.
    """
    walker = Walker(plan)
    return {source: dict(_paths_from(plan, walker, source, family)) for source in plan.members}


def _paths_from(plan: Plan, walker: Walker, source: str, family: int | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    for destination in plan.members:
        address = shared_address(plan, source, destination, family)
        if destination != source and address is not None:
            way = walk_with(walker, source, address, ())
            if way.delivered:
                yield destination, way.hops


def shared_address(plan: Plan, source: str, destination: str, family: int | None = None) -> str | None:
    """Return the destination's first address in a family that both nodes have; None if they have none in common.

    *family*, if it is not None, is the only one that counts.
    """
    families = {address_family(a) for a in plan.members[source].addresses if family in (None, address_family(a))}
    return next((a for a in plan.members[destination].addresses if address_family(a) in families), None)
