"""Targets that all relays treat alike, so that one packet to one of them stands for a packet to each.

A target is a prefix of a member: a host prefix or a subnet. Two targets are of one class if every relay resolves
both to Routes that say the same, reading the owner's name in them as "the owner itself"; and if the
owners are leaves linked to the same relays. Then a packet to the one and a packet to the other meet, at every relay and
whatever is down between relays, the same choices. That is compared for each relay and each target, one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from saltext_wgmesh.core.index import Index, Node
from saltext_wgmesh.core.lookup import BITS, Prefix, read
from saltext_wgmesh.core.types import Route

OWNER = "=owner"
"""Stands in a ``Choice`` for the owner of the target; no minion id has this form."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a Route says, without its prefixes."""

    via: tuple[str, ...]
    detour: bool
    from_trunk: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Target:
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


def target_classes(index: Index) -> list[TargetClass]:
    """All targets by class, in order of the first target of each."""
    relays = [(name, node) for name in index.plan.members if name in index.relays and (node := index.node(name))]
    wider = _wider(index, [node for _, node in relays])
    targets = [*(Target(text, place, index.owners[text]) for text, place in index.places.items()), *wider]
    chains = _chains(targets, wider)
    texts = [t.text for t in targets]
    choices = _Choices(index)
    columns = [choices.column(node, texts, chains) for _, node in relays]
    groups: dict[tuple[object, tuple[int, ...]], list[Target]] = {}
    for target, fixed, *numbers in zip(targets, _fixed_parts(index, targets), *columns, strict=True):
        groups.setdefault((fixed, tuple(numbers)), []).append(target)
    return [
        TargetClass(
            targets=tuple(members),
            choices={name: choices.meaning[number] for (name, _), number in zip(relays, row, strict=True)},
        )
        for (_, row), members in groups.items()
    ]


def _wider(index: Index, relays: Iterable[Node]) -> list[Target]:
    """The prefixes of relays' routes that are no member's, sorted."""
    # Most relays share most Routes, and the same tuple holds the same prefixes.
    different = {id(r.prefixes): r.prefixes for node in relays for r in node.view.routes}
    texts = set().union(*different.values()) - index.places.keys()
    places = ((text, read(text)) for text in sorted(texts))
    return [Target(text, place, None) for text, place in places if place is not None]


def _chains(targets: Sequence[Target], wider: Sequence[Target]) -> list[tuple[str, ...]]:
    """For each target: the *wider* prefixes that hold it, longest first. Most targets share a few such chains."""
    by_length: dict[tuple[int, int], dict[int, str]] = {}
    for t in wider:
        free = BITS[t.place.version] - t.place.length
        by_length.setdefault((t.place.version, free), {})[t.place.value >> free] = t.text
    groups = {v: [(free, g) for (version, free), g in sorted(by_length.items()) if version == v] for v in BITS}
    found = []
    for t in targets:
        own = BITS[t.place.version] - t.place.length
        holding = (g.get(t.place.value >> free) for free, g in groups[t.place.version] if free >= own)
        found.append(tuple(text for text in holding if text is not None))
    return found


class _Choices:
    """What the Routes of all relays say, each different Choice with a number."""

    NONE = 0

    def __init__(self, index: Index) -> None:
        self.meaning: list[Choice | None] = [None]
        self._index = index
        self._numbers: dict[Choice | None, int] = {None: self.NONE}
        self._by_route: dict[int, int] = {id(None): self.NONE}
        """By identity of the Route: relays share most of them, and the plan keeps them alive."""

    def column(self, relay: Node, texts: Iterable[str], chains: Sequence[tuple[str, ...]]) -> list[int]:
        """For each target, the number of the Choice of *relay*: of its prefix, else of the longest that holds it.

        No Route is for a part of a target: ``nexthops`` reports those.
        """
        for route in relay.view.routes:
            if id(route) not in self._by_route:
                self._by_route[id(route)] = self._number(route)
        # Ten thousand targets for each relay: the loop over all of them must not be Python's own.
        entries = relay.entries
        found = list(map(self._by_route.__getitem__, map(id, map(entries.get, texts))))
        wider: dict[tuple[str, ...], int] = {}
        for i in _places_of(self.NONE, found):
            chain = chains[i]
            if chain not in wider:
                wider[chain] = self._by_route[id(next((entries[p] for p in chain if p in entries), None))]
            found[i] = wider[chain]
        return found

    def _number(self, route: Route) -> int:
        choice = self._choice(route)
        if choice not in self._numbers:
            self._numbers[choice] = len(self.meaning)
            self.meaning.append(choice)
        return self._numbers[choice]

    def _choice(self, route: Route) -> Choice:
        """What *route* says; a leaf that owns all its prefixes is called OWNER."""
        from_trunk = route.from_trunk
        hops = (*route.via, *(from_trunk or ()))
        if self._index.relays.issuperset(hops):
            return Choice(route.via, route.detour, from_trunk)
        owners = {self._index.owners.get(p) for p in route.prefixes}
        own = {n: OWNER for n in hops if owners == {n} and n not in self._index.relays}
        via = tuple(own.get(n, n) for n in route.via)
        return Choice(via, route.detour, None if from_trunk is None else tuple(own.get(n, n) for n in from_trunk))


def _places_of(value: int, values: Sequence[int]) -> Iterator[int]:
    """The places at which *value* stands; each may be overwritten when it was given."""
    at = -1
    try:
        while True:
            at = values.index(value, at + 1)
            yield at
    except ValueError:
        return


def _fixed_parts(index: Index, targets: Iterable[Target]) -> list[object]:
    """What of a class does not depend on relays' routes: the family, and how the owner is attached.

    A relay is in no class with another: its own links carry what passes it.
    """
    standby: dict[str, tuple[str, ...]] = {}
    attached: dict[str | None, object] = {None: None}
    for name, member in index.plan.members.items():
        if member.is_relay:
            for subnet in member.standby_subnets:
                standby[subnet] = (*standby.get(subnet, ()), name)
        node = index.node(name)
        attached[name] = name if member.is_relay or not node else tuple(sorted(index.relays & node.ends.keys()))
    return [(t.place.version, attached[t.owner], standby.get(t.text, ())) for t in targets]
