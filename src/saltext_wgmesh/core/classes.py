"""Targets that all relays treat alike, so that one packet to one of them stands for a packet to each.

A target is a prefix of a member: a host prefix or a subnet. Two targets are of one class if every relay resolves
both to Routes that say the same, reading the owner's name in them as "the owner itself"; and if the owners are
leaves with the same relays. Then a packet to the one and a packet to the other meet, at every relay and whatever is
down between relays, the same choices. That is found out for each relay and each target, none is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from saltext_wgmesh.core.index import Index, Node
from saltext_wgmesh.core.lookup import BITS, Prefix, read
from saltext_wgmesh.core.types import Route

OWNER = "=owner"
"""Stands in a ``Choice`` for the owner of the target; no minion id has this form."""


class Choice(NamedTuple):
    """What a Route says, without its prefixes."""

    via: tuple[str, ...]
    detour: bool
    from_trunk: tuple[str, ...] | None


class Target(NamedTuple):
    """A prefix to which packets are sent."""

    text: str
    place: Prefix
    owner: str | None
    """None: a prefix of relays' routes that is no member's; packets for its unused addresses must not loop."""


@dataclass(frozen=True, slots=True)
class TargetClass:
    """Targets of one class."""

    targets: tuple[Target, ...]
    choices: Mapping[str, Choice | None]
    """Relay → what its Route for these targets says; None where it has none."""

    @property
    def example(self) -> Target:
        """The target that is walked to for all of them."""
        return self.targets[0]


class _Said(NamedTuple):
    """What one Route says, and the relays that have it."""

    choice: Choice
    relays: tuple[str, ...]


def target_classes(index: Index) -> list[TargetClass]:
    """All targets by class, in order of the first target of each."""
    relays = [node for name in index.plan.members if name in index.relays and (node := index.node(name))]
    routes = _different_routes(relays)
    wider = _wider(index, [route for route, _ in routes])
    said, by_prefix = _said(index, routes)
    targets = [*(Target(text, place, index.owners[text]) for text, place in index.places.items()), *wider]
    chains = _chains(targets, wider)
    inherited = {chain: tuple([n for text in chain for n in by_prefix[text]]) for chain in set(chains)}
    groups: dict[tuple[object, tuple[int, ...], tuple[int, ...]], list[Target]] = {}
    for target, chain, fixed in zip(targets, chains, _fixed_parts(index, targets), strict=True):
        groups.setdefault((fixed, tuple(by_prefix.get(target.text, ())), inherited[chain]), []).append(target)
    found = []
    for (_, own, wider_numbers), members in groups.items():
        # Relays without a Route for the prefix itself take the longest that holds it.
        numbers = (*own, *wider_numbers)
        choices: dict[str, Choice | None] = {r: said[n].choice for n in reversed(numbers) for r in said[n].relays}
        found.append(
            TargetClass(targets=tuple(members), choices={r.view.node: choices.get(r.view.node) for r in relays})
        )
    return found


def _different_routes(relays: Iterable[Node]) -> list[tuple[Route, tuple[str, ...]]]:
    """Each Route, and the relays that have it: most share most of theirs, and the same object says the same."""
    routes: dict[int, Route] = {}
    holders: dict[int, tuple[str, ...]] = {}
    for node in relays:
        alone = (node.view.node,)
        for route in node.view.routes:
            key = id(route)
            if key in routes:
                holders[key] += alone
            else:
                routes[key], holders[key] = route, alone
    return [(route, holders[key]) for key, route in routes.items()]


def _wider(index: Index, routes: Iterable[Route]) -> list[Target]:
    """The prefixes of *routes* that are no member's, sorted."""
    texts = {p for route in routes for p in route.prefixes if p not in index.places}
    places = ((text, read(text)) for text in sorted(texts))
    return [Target(text, place, None) for text, place in places if place is not None]


def _said(index: Index, routes: Iterable[tuple[Route, tuple[str, ...]]]) -> tuple[list[_Said], dict[str, list[int]]]:
    """All that relays say, without repetition; and prefix → what is said of it, as places in the former."""
    numbers: dict[_Said, int] = {}
    by_prefix: dict[str, list[int]] = {}
    for route, holders in routes:
        number = numbers.setdefault(_Said(_choice(index, route), holders), len(numbers))
        for text in route.prefixes:
            by_prefix.setdefault(text, []).append(number)
    return list(numbers), by_prefix


def _choice(index: Index, route: Route) -> Choice:
    """What *route* says; a leaf that owns all its prefixes is called OWNER."""
    from_trunk = route.from_trunk
    hops = (*route.via, *(from_trunk or ()))
    if index.relays.issuperset(hops):
        return Choice(route.via, route.detour, from_trunk)
    owner = next((n for n in hops if n not in index.relays), "")
    if not all(index.owners.get(p) == owner for p in route.prefixes):
        return Choice(route.via, route.detour, from_trunk)
    via = tuple([OWNER if n == owner else n for n in route.via])
    return Choice(via, route.detour, from_trunk and tuple([OWNER if n == owner else n for n in from_trunk]))


def _chains(targets: Sequence[Target], wider: Sequence[Target]) -> list[tuple[str, ...]]:
    """For each target: the *wider* prefixes that hold it, but for itself, longest first."""
    by_length: dict[tuple[int, int], dict[int, str]] = {}
    for t in wider:
        free = BITS[t.place.version] - t.place.length
        by_length.setdefault((t.place.version, free), {})[t.place.value >> free] = t.text
    groups = {v: [(free, g) for (version, free), g in sorted(by_length.items()) if version == v] for v in BITS}
    found = []
    for t in targets:
        own = BITS[t.place.version] - t.place.length
        holding = [g.get(t.place.value >> free) for free, g in groups[t.place.version] if free > own]
        found.append(tuple([text for text in holding if text is not None]))
    return found


def _fixed_parts(index: Index, targets: Iterable[Target]) -> list[object]:
    """What of a class does not depend on relays' routes: how the owner is attached, and who stands by for it.

    A relay is in no class with another: its own links carry what passes it. The family is no part of a class:
    ``structure`` found that all relays, and both ends of each link, treat the families alike.
    """
    standby: dict[str, tuple[str, ...]] = {}
    attached: dict[str | None, object] = {None: None}
    for name, member in index.plan.members.items():
        if member.is_relay:
            for subnet in member.standby_subnets:
                standby[subnet] = (*standby.get(subnet, ()), name)
        attached[name] = name if member.is_relay else member.homes
    return [(attached[t.owner], standby.get(t.text, ())) for t in targets]
