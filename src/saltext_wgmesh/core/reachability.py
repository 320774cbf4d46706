"""Does every packet arrive, with nothing down and with each single thing down, and can none go round in circles?

Packets are walked from each relay to one target of each class (``classes``). That stands for all pairs:

- From relays: targets of one class meet the same choices, and ``structure`` found every link sound.
- From leaves: ``nexthops`` found a next hop; a relay treats what comes from a leaf as it treats its own packets.
- From subnets: as from their gateway, since allowed-ips hold both alike.

Only what a packet met can change its way: each node looked at the links of its list up to the first that was up,
and with nothing down that is the first of the list. So of all single failures those of the links and relays on its
way are walked, and each other one leaves the walk as it was.

What is required. With nothing down, everything. With something down, a packet may end only at a node from which
the destination can't be reached any more by living links over living relays. So whoever has a packet must find a way if
there is one from there; but a leaf that has handed its packet to a living relay does not take it back. Hence the one
loss that the design accepts: two relays, the trunk between them cut, and a target that hangs on the other relay
alone; the master's next plan mends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from saltext_wgmesh.core.classes import TargetClass, target_classes
from saltext_wgmesh.core.findings import Findings
from saltext_wgmesh.core.graph import Graph
from saltext_wgmesh.core.index import Index, Node
from saltext_wgmesh.core.lookup import Host, first_host, host
from saltext_wgmesh.core.walker import Down, Outcome, Walk, Walker


def check(index: Index, graph: Graph, found: Findings) -> None:
    """Add to *found* each relay and class of targets between which a packet is lost or can loop."""
    walker = Walker(index.plan, index)
    relays = [node for name, member in index.plan.members.items() if member.is_relay and (node := index.node(name))]
    for group in target_classes(index):
        _no_circle(group, found)
        if group.example.owner is not None:
            to = first_host(group.example.place)
            for relay in relays:
                if relay.view.node != group.example.owner and to.version in relay.families:
                    _delivers(_Trip(walker=walker, graph=graph, relay=relay, group=group, to=to), found)


class _Trip:
    """Packets from one relay to one class of targets."""

    def __init__(self, *, walker: Walker, graph: Graph, relay: Node, group: TargetClass, to: Host) -> None:
        own = next(a for a in relay.view.addresses if (":" in a) == (to.version == 6))
        self.graph, self.relay, self.group = graph, relay, group
        self._walker, self._to, self._sender = walker, to, host(own)

    def walk(self, down: Down) -> Walk:
        return self._walker.walk(self.relay.view.node, self._to, self._sender, down)

    def arrives(self, walk: Walk) -> bool:
        """Whether it came to the owner, or to a node that stands by for the subnet and is in it."""
        last = walk.hops[-1]
        if not walk.delivered or last == self.group.example.owner:
            return walk.delivered
        node = self._walker.index.node(last)
        return node is not None and self.group.example.text in node.member.standby_subnets

    def excused(self, walk: Walk, down: Down) -> bool:
        """Whether no path was left from where it ended."""
        owner = str(self.group.example.owner)
        return walk.outcome is Outcome.UNREACHABLE and not self.graph.connected(walk.hops[-1], owner, down)


def _delivers(trip: _Trip, found: Findings) -> None:
    name = trip.relay.view.node
    nominal = trip.walk(())
    if not trip.arrives(nominal):
        found.add("targets that relays don't reach", f"node {name}", f"{_told(trip, nominal)}, with nothing down")
        return
    for element in _met(nominal):
        down = frozenset({element})
        walk = trip.walk(down)
        if not trip.arrives(walk) and not trip.excused(walk, down):
            what = element if isinstance(element, str) else "--".join(sorted(element))
            found.add("targets lost by one failure", f"node {name}", f"{_told(trip, walk)}, with {what} down")


def _met(walk: Walk) -> Iterator[str | frozenset[str]]:
    """The links and the nodes between its ends that a delivered packet met."""
    yield from walk.hops[1:-1]
    yield from (frozenset(pair) for pair in zip(walk.hops, walk.hops[1:], strict=False))


def _told(trip: _Trip, walk: Walk) -> str:
    example, more = trip.group.example, len(trip.group.targets) - 1
    alike = f" (and for {more} more like it)" if more else ""
    end = walk.detail or f"it is taken in by {walk.hops[-1]}"
    return f"its packets for {example.text} of {example.owner}{alike} go {' > '.join(walk.hops)}: {end}"


def _no_circle(group: TargetClass, found: Findings) -> None:
    """Among relays, "from a trunk, next to" has no circle: then no packet loops, whatever and however much is down.

    A packet is at most once in a relay that it did not reach by a trunk: the first.
    """
    owner = group.example.owner
    onward = {
        relay: [n for n in (choice.from_trunk or ()) if n in group.choices]
        for relay, choice in group.choices.items()
        if choice is not None and relay != owner
    }
    circle = _circle(onward)
    if circle:
        text = f"packets for {group.example.text} that come by a trunk can go {' > '.join(circle)}"
        found.add("circles between relays", f"node {circle[0]}", text)


def _circle(onward: Mapping[str, list[str]]) -> list[str]:
    """A path that ends where it starts; empty if there is none."""
    done: set[str] = set()

    def follow(path: list[str]) -> list[str]:
        for after in onward.get(path[-1], ()):
            if after in path:
                return [*path[path.index(after) :], after]
            if after not in done and (circle := follow([*path, after])):
                return circle
        done.add(path[-1])
        return []

    for start in onward:
        if start not in done and (circle := follow([start])):
            return circle
    return []
