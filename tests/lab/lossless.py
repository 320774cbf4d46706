"""Change a mesh under traffic between all pairs, and check that no packet, connection or session is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import permutations

from .conversation import Conversation, Heard
from .disruption import steady
from .exchange import Delivery, Exchange, Flow
from .mesh import Mesh
from .planned import status
from .sessions import Concerned, disturbed, sessions


@dataclass(slots=True, kw_only=True)
class Noticed:
    """The effects of a change on traffic and sessions. Filled when the change is over."""

    deliveries: list[Delivery] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    took: float = 0.0
    """Seconds from before the change until it was over."""

    @property
    def lost(self) -> int:
        """The number of lost datagrams of all flows."""
        return sum(one.lost for one in self.deliveries)

    @property
    def longest(self) -> float:
        """The longest time without a datagram in any flow, in seconds."""
        return max((count for one in self.deliveries for _, count in one.gaps), default=0) / RATE

    def complaints(self, allowed: float = 0.0) -> list[str]:
        """Return a line for each flow with a gap of over *allowed* seconds, broken conversation and ended session."""
        losing = [one for one in self.deliveries if any(count / RATE > allowed for _, count in one.gaps)]
        broken = [one for one in self.heard if not one.stood]
        return [*map(lost_in, losing), *map(heard_in, broken), *self.sessions]

    def text(self, name: str) -> str:
        """Return a report for people. Flows and sessions without losses are only counted."""
        sent = sum(one.sent for one in self.deliveries)
        silence = max((one.longest for one in self.heard), default=0.0)
        head = (
            f"{name}: {self.took:.0f} s; {self.lost} of {sent} datagrams of {len(self.deliveries)} flows lost, "
            f"longest gap {self.longest:.2f} s; {sum(one.stood for one in self.heard)} of {len(self.heard)} ends of "
            f"conversations whole, longest silence {silence:.2f} s; {len(self.sessions)} sessions disturbed"
        )
        return "\n  ".join([head, *self.complaints()])


RATE = 100.0
"""Datagrams a second of each flow."""
ALL_PAIRS = bool(os.environ.get("WGMESH_LAB_ALL"))


def planned_uplinks(mesh: Mesh) -> set[frozenset[str]]:
    """Return the links of leaves to relays in the plan."""
    nodes = status(mesh.lab.salt, mesh.name)["nodes"]
    return {frozenset((leaf, relay)) for leaf, row in nodes.items() for relay in row["relays"]}


Uplinks = Callable[[Mesh], set[frozenset[str]]]


@contextmanager
def undisturbed(
    mesh: Mesh,
    name: str,
    *,
    talks: Mapping[str, str],
    leaves: Iterable[str] | None = None,
    concerned: Concerned = (),
    allowed: float = 0.0,
    uplinks: Uplinks = planned_uplinks,
) -> Iterator[Noticed]:
    """Run traffic around a block that changes the mesh, and print its effects. AssertionError if there were any.

    - UDP flows both ways between all pairs of *leaves* (all leaves of the mesh, if None). No datagram is lost. If the
      mesh has no second path, gaps of up to *allowed* seconds are accepted.
    - TCP connections between the *talks* (caller → listener) do not break.
    - Sessions and interfaces survive, except those of *concerned* nodes and links, and links of leaves to relays that
      the plan no longer has.

    *uplinks* returns the links of leaves to relays, for a caller whose master runs another version.
    """
    if leaves is None:
        leaves = [node for node, row in status(mesh.lab.salt, mesh.name)["nodes"].items() if row["role"] == "leaf"]
    noticed = Noticed()
    try:
        with _watched(mesh, noticed, sorted(leaves), talks, concerned, uplinks):
            yield noticed
            steady(mesh, talks)
    finally:
        print(noticed.text(name), flush=True)
    found = noticed.complaints(allowed)
    assert not found, f"{name}: " + "\n".join(found)


@contextmanager
def _watched(
    mesh: Mesh,
    noticed: Noticed,
    leaves: list[str],
    talks: Mapping[str, str],
    concerned: Concerned,
    uplinks: Uplinks,
) -> Iterator[None]:
    """Fill *noticed* with the effects of the block, even if it raises an exception."""
    underlay, overlay = mesh.lab.underlay, mesh.overlay()
    before, had, began = sessions(mesh), uplinks(mesh), time.monotonic()
    conversations: list[Conversation] = []
    with ExitStack() as stack:
        stack.callback(lambda: noticed.heard.extend(heard for one in conversations for heard in one.heard))
        for caller, listener in talks.items():
            one = Conversation(underlay[caller], underlay[listener], overlay[listener][0])
            conversations.append(stack.enter_context(one))
        exchange = Exchange(underlay, flows(overlay, leaves, all_pairs=ALL_PAIRS), rate=RATE)
        stack.callback(lambda: noticed.deliveries.extend(exchange.deliveries))
        stack.enter_context(exchange)
        stack.callback(lambda: setattr(noticed, "took", time.monotonic() - began))
        yield
        noticed.sessions = disturbed(before, sessions(mesh), {*concerned, *(had - uplinks(mesh))})


def flows(overlay: Mapping[str, tuple[str, ...]], leaves: list[str], *, all_pairs: bool) -> list[Flow]:
    """Return flows from each leaf to its neighbours in order, by both families; *all_pairs* adds all others, by IPv4.

    All pairs are for the scenarios on request: they load two cores to the full.
    """
    ring = set(zip(leaves, [*leaves[1:], leaves[0]], strict=True))
    return [
        Flow(source=source, target=target, address=address)
        for source, target in permutations(leaves, 2)
        for address in overlay[target]
        if (all_pairs and ":" not in address) or {(source, target), (target, source)} & ring
    ]


def lost_in(one: Delivery) -> str:
    """Return a line about a flow and its gaps."""
    gaps = ", ".join(f"{count} after {at:.2f} s ({_clock(one.began + at)})" for at, count in one.gaps[:8])
    more = ", …" if len(one.gaps) > 8 else ""
    return f"{one.flow.source} to {one.flow.target} ({one.flow.address}): {one.lost} of {one.sent} lost: {gaps}{more}"


def heard_in(one: Heard) -> str:
    """Return a line about one end of a conversation."""
    what = one.broke or f"{one.sent - one.heard} of {one.sent} lines are missing"
    return f"{one.listener} hears {one.speaker}: {what}; longest silence {one.longest:.2f} s"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f"{at % 1:.2f}"[1:]
