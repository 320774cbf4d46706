"""Checks that every packet arrives, with nothing down and with each single thing down, and that none can loop.

Packets are walked from each relay to one destination of each class (``equivalence_classes``). That stands for all
pairs:

- From relays: destinations of one class meet the same next hops, and ``structure`` proves that every link is sound.
- From leaves: ``next_hops`` proves a next hop; a relay treats packets from a leaf as it treats its own.
- From subnets: as from their gateway, since allowed-ips hold both alike.

Only a failure that the packet meets can change its way. Each node tries the next hops of its list up to the first
whose link is up, and with nothing down that is the first. So of all single failures only those of links and relays on
the way are walked; any other leaves the walk as it was.

The requirement with nothing down: every packet arrives. The requirement with something down: a packet may end only
at a node from which no path of links and relays that are up leads to the destination. A leaf that has handed its
packet to a relay that is up does not take it back. Hence the one loss that the design accepts: two relays, the trunk
between them down, and a destination whose only relay is the other one. The master's next plan repairs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.proof.equivalence_classes import DestinationClass, destination_classes
from saltext_wgmesh.core.proof.findings import Findings
from saltext_wgmesh.core.proof.forwarding_tables import ForwardingTables, NodeTables
from saltext_wgmesh.core.proof.link_graph import LinkGraph
from saltext_wgmesh.core.proof.packet_walk import Failures, Walk, Walker, WalkOutcome
from saltext_wgmesh.core.proof.prefix_table import HostAddress, first_host, host


def check_reachability(tables: ForwardingTables, graph: LinkGraph, findings: Findings) -> None:
    """Add to *findings* each relay and class of destinations between which a packet is lost or can loop."""
    walker = Walker(tables.plan, tables)
    relays = [node for name, member in tables.plan.members.items() if member.is_relay and (node := tables.node(name))]
    for group in destination_classes(tables):
        _check_loops(group, findings)
        # A prefix that no member has needs no delivery; its packets must only not loop.
        if group.example.owner is not None:
            to = first_host(group.example.prefix)
            for relay in relays:
                if relay.view.node != group.example.owner and to.version in relay.families:
                    _check_delivery(_Flow(walker=walker, graph=graph, relay=relay, group=group, to=to), findings)


class _Flow:
    """The packets from one relay to one class of destinations."""

    def __init__(
        self, *, walker: Walker, graph: LinkGraph, relay: NodeTables, group: DestinationClass, to: HostAddress
    ) -> None:
        own = next(a for a in relay.view.addresses if address_family(a) == to.version)
        self.graph, self.relay, self.group = graph, relay, group
        self._walker, self._to, self._sender = walker, to, host(own)

    def walk(self, down: Failures) -> Walk:
        return self._walker.walk(self.relay.view.node, self._to, self._sender, down)

    def arrives(self, walk: Walk) -> bool:
        """Return whether the packet came to the owner, or to a standby gateway of the subnet."""
        last = walk.hops[-1]
        if not walk.delivered or last == self.group.example.owner:
            return walk.delivered
        node = self._walker.tables.node(last)
        return node is not None and self.group.example.text in node.member.standby_subnets

    def is_excused(self, walk: Walk, down: Failures) -> bool:
        """Return whether no path was left from where the packet ended."""
        owner = str(self.group.example.owner)
        return walk.outcome is WalkOutcome.UNREACHABLE and not self.graph.connected(walk.hops[-1], owner, down)


def _check_delivery(flow: _Flow, findings: Findings) -> None:
    path = f"node {flow.relay.view.node}"
    # Only what lies on this way can change it, so the failures to try are few, and not all of the mesh.
    nominal = flow.walk(())
    if not flow.arrives(nominal):
        message = f"{_described(flow, nominal)}, with nothing down"
        findings.add("destinations that relays don't reach", path, message)
        return
    for element in _elements(nominal):
        down = frozenset({element})
        walk = flow.walk(down)
        if not flow.arrives(walk) and not flow.is_excused(walk, down):
            failed = element if isinstance(element, str) else "--".join(sorted(element))
            message = f"{_described(flow, walk)}, with {failed} down"
            findings.add("destinations lost by one failure", path, message)


def _elements(walk: Walk) -> Iterator[str | frozenset[str]]:
    """Yield the nodes between the ends of a delivered packet's way, and its links."""
    yield from walk.hops[1:-1]
    yield from (frozenset(pair) for pair in zip(walk.hops, walk.hops[1:], strict=False))


def _described(flow: _Flow, walk: Walk) -> str:
    example, more = flow.group.example, len(flow.group.destinations) - 1
    alike = f" (and for {more} more like it)" if more else ""
    end = walk.detail or f"it is taken in by {walk.hops[-1]}"
    return f"its packets for {example.text} of {example.owner}{alike} go {' > '.join(walk.hops)}: {end}"


def _check_loops(group: DestinationClass, findings: Findings) -> None:
    """The next hops for packets from trunks have no cycle: then no packet loops, however much is down.

    A packet is at most once in a relay that it did not reach by a trunk: the first.
    """
    owner = group.example.owner
    onward = {
        relay: [n for n in (hops.from_trunk or ()) if n in group.next_hops]
        for relay, hops in group.next_hops.items()
        if hops is not None and relay != owner
    }
    cycle = _find_cycle(onward)
    if cycle:
        message = f"packets for {group.example.text} that come by a trunk can go {' > '.join(cycle)}"
        findings.add("loops between relays", f"node {cycle[0]}", message)


def _find_cycle(onward: Mapping[str, list[str]]) -> list[str]:
    """Return a path that ends where it starts; empty if there is none."""
    done: set[str] = set()

    def follow(path: list[str]) -> list[str]:
        for after in onward.get(path[-1], ()):
            if after in path:
                return [*path[path.index(after) :], after]
            if after not in done and (cycle := follow([*path, after])):
                return cycle
        done.add(path[-1])
        return []

    for start in onward:
        if start not in done and (cycle := follow([start])):
            return cycle
    return []
