"""Destinations that all relays treat alike, so that one packet to one of them stands for a packet to each.

This is a forwarding equivalence class (RFC 3031 section 2.1). A destination is a prefix of a member: a host prefix or
a subnet. Two destinations are of one class if two things hold:

- Every relay resolves both to Routes with the same next hops; the owner's name in them reads as "the owner itself".
- Their owners are leaves with the same relays.

Then packets to both meet the same next hops at every relay, whatever is down between relays. The check covers each
relay and each destination; none is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from saltext_wgmesh.core.model.view import Route
from saltext_wgmesh.core.proof.forwarding_tables import ForwardingTables, NodeTables
from saltext_wgmesh.core.proof.prefix_table import BITS, Prefix, prefix_or_none

OWNER = "=owner"
"""Stands in a ``NextHops`` for the owner of the destination; no minion id has this form."""


class NextHops(NamedTuple):
    """The content of a Route without its prefixes."""

    via: tuple[str, ...]
    detour: bool
    from_trunk: tuple[str, ...] | None


class Destination(NamedTuple):
    """A prefix to which packets are sent."""

    text: str
    prefix: Prefix
    owner: str | None
    """None: a prefix of relays' routes that no member has; packets for its unused addresses must not loop."""


@dataclass(frozen=True, slots=True)
class DestinationClass:
    """Destinations of one class."""

    destinations: tuple[Destination, ...]
    next_hops: Mapping[str, NextHops | None]
    """Relay → the next hops of its Route for these destinations; None if it has no Route."""

    @property
    def example(self) -> Destination:
        """The destination that is walked to for all of them."""
        return self.destinations[0]


class _SharedNextHops(NamedTuple):
    """The next hops of one Route, and the relays that have this Route."""

    next_hops: NextHops
    relays: tuple[str, ...]


def destination_classes(tables: ForwardingTables) -> list[DestinationClass]:
    """Return all destinations by class, in the order of the first destination of each."""
    relays = [node for name in tables.plan.members if name in tables.relays and (node := tables.node(name))]
    routes = _distinct_routes(relays)
    wider = _wider(tables, [route for route, _ in routes])
    shared, by_prefix = _shared_next_hops(tables, routes)
    destinations = [*(Destination(text, p, tables.owners[text]) for text, p in tables.parsed.items()), *wider]
    # A wider Route applies where a relay has none for the prefix itself, so it is part of what makes a class.
    chains = _wider_chains(destinations, wider)
    inherited = {chain: tuple([n for text in chain for n in by_prefix[text]]) for chain in set(chains)}
    groups: dict[tuple[object, tuple[int, ...], tuple[int, ...]], list[Destination]] = {}
    for destination, chain, attachment in zip(destinations, chains, _attachments(tables, destinations), strict=True):
        key = (attachment, tuple(by_prefix.get(destination.text, ())), inherited[chain])
        groups.setdefault(key, []).append(destination)
    classes = []
    for (_, own, wider_numbers), members in groups.items():
        # Relays without a Route for the prefix itself take the longest that holds it: the first of the numbers wins.
        numbers = (*own, *wider_numbers)
        hops: dict[str, NextHops | None] = {r: shared[n].next_hops for n in reversed(numbers) for r in shared[n].relays}
        classes.append(
            DestinationClass(
                destinations=tuple(members), next_hops={r.view.node: hops.get(r.view.node) for r in relays}
            )
        )
    return classes


def _distinct_routes(relays: Iterable[NodeTables]) -> list[tuple[Route, tuple[str, ...]]]:
    """Return each Route object with the relays that have it; relays share most of theirs."""
    routes: dict[int, Route] = {}
    holders: dict[int, tuple[str, ...]] = {}
    for node in relays:
        alone = (node.view.node,)
        for route in node.view.routes:
            key = id(route)
            # The same object is the same Route; comparing identities avoids hashing long tuples.
            if key in routes:
                holders[key] += alone
            else:
                routes[key], holders[key] = route, alone
    return [(route, holders[key]) for key, route in routes.items()]


def _wider(tables: ForwardingTables, routes: Iterable[Route]) -> list[Destination]:
    """Return the prefixes of *routes* that no member has, sorted."""
    texts = {p for route in routes for p in route.prefixes if p not in tables.parsed}
    parsed = ((text, prefix_or_none(text)) for text in sorted(texts))
    return [Destination(text, prefix, None) for text, prefix in parsed if prefix is not None]


def _shared_next_hops(
    tables: ForwardingTables, routes: Iterable[tuple[Route, tuple[str, ...]]]
) -> tuple[list[_SharedNextHops], dict[str, list[int]]]:
    """Return the next hops of all relays without repetition, and prefix → indexes into that list."""
    numbers: dict[_SharedNextHops, int] = {}
    by_prefix: dict[str, list[int]] = {}
    for route, holders in routes:
        number = numbers.setdefault(_SharedNextHops(_next_hops(tables, route), holders), len(numbers))
        for text in route.prefixes:
            by_prefix.setdefault(text, []).append(number)
    return list(numbers), by_prefix


def _next_hops(tables: ForwardingTables, route: Route) -> NextHops:
    """Return the next hops of *route*; a leaf that owns all its prefixes is named OWNER."""
    from_trunk = route.from_trunk
    hops = (*route.via, *(from_trunk or ()))
    if tables.relays.issuperset(hops):
        return NextHops(route.via, route.detour, from_trunk)
    owner = next((n for n in hops if n not in tables.relays), "")
    if not all(tables.owners.get(p) == owner for p in route.prefixes):
        return NextHops(route.via, route.detour, from_trunk)
    via = tuple([OWNER if n == owner else n for n in route.via])
    return NextHops(via, route.detour, from_trunk and tuple([OWNER if n == owner else n for n in from_trunk]))


def _wider_chains(destinations: Sequence[Destination], wider: Sequence[Destination]) -> list[tuple[str, ...]]:
    """Return for each destination the *wider* prefixes that hold it, without itself, longest first."""
    by_length: dict[tuple[int, int], dict[int, str]] = {}
    for d in wider:
        free = BITS[d.prefix.version] - d.prefix.length
        by_length.setdefault((d.prefix.version, free), {})[d.prefix.value >> free] = d.text
    groups = {v: [(free, g) for (version, free), g in sorted(by_length.items()) if version == v] for v in BITS}
    chains = []
    for d in destinations:
        own = BITS[d.prefix.version] - d.prefix.length
        # Fewer free bits mean a longer prefix: the groups are in that order.
        holding = [g.get(d.prefix.value >> free) for free, g in groups[d.prefix.version] if free > own]
        chains.append(tuple([text for text in holding if text is not None]))
    return chains


def _attachments(tables: ForwardingTables, destinations: Iterable[Destination]) -> list[object]:
    """Return for each destination how its owner is attached, and its standby gateways: what no relay's Route says.

    A relay is in no class with another: its own links carry its transit traffic. The family is not part of a class:
    ``structure`` checks that all relays, and both ends of each link, treat the families alike.
    """
    standby: dict[str, tuple[str, ...]] = {}
    attached: dict[str | None, object] = {None: None}
    for name, member in tables.plan.members.items():
        if member.is_relay:
            for subnet in member.standby_subnets:
                standby[subnet] = (*standby.get(subnet, ()), name)
        attached[name] = name if member.is_relay else member.relays
    return [(attached[d.owner], standby.get(d.text, ())) for d in destinations]
