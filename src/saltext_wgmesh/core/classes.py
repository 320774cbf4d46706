"""Targets that all relays treat alike, so that one packet to one of them stands for a packet to each.

A target is a prefix of a member: a host prefix or a subnet. Two targets are of one class if every relay resolves
both to Routes that say the same, reading the owner's name in them as "the owner itself"; and if the
owners are leaves linked to the same relays. Then a packet to the one and a packet to the other meet, at every relay and
whatever is down between relays, the same choices. That is compared for each relay and each target, one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from saltext_wgmesh.core.index import Index
from saltext_wgmesh.core.lookup import BITS, Prefix, prefix
from saltext_wgmesh.core.types import Kind, Route

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
    relays = [name for name, member in index.plan.members.items() if member.is_relay and index.node(name)]
    owned = _owned(index)
    wider = _wider(index, relays, owned)
    targets = [*owned.values(), *wider]
    chains, texts = _chains(targets, wider), [t.text for t in targets]
    interned: dict[Choice | None, int] = {None: -1}
    columns = [_column(index, relay, texts, chains, owned, interned) for relay in relays]
    fixed = _fixed_parts(index, targets)
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, key in enumerate(zip(fixed, *columns, strict=True)):
        groups.setdefault(key, []).append(i)
    meaning = {number: choice for choice, number in interned.items()}
    return [
        TargetClass(
            targets=tuple(targets[i] for i in members),
            choices={r: meaning[column[members[0]]] for r, column in zip(relays, columns, strict=True)},
        )
        for members in groups.values()
    ]


def _owned(index: Index) -> dict[str, Target]:
    """The targets that members own, by text; what is no prefix is left out."""
    found = {}
    for name, member in index.plan.members.items():
        for text in member.prefixes:
            try:
                found[text] = Target(text, prefix(text), name)
            except ValueError:
                continue
    return found


def _wider(index: Index, relays: Iterable[str], owned: Mapping[str, Target]) -> list[Target]:
    """The prefixes of relays' routes that are no member's, sorted."""
    texts: set[str] = set()
    for relay in relays:
        node = index.node(relay)
        if node is not None:
            texts.update(p for p in node.entries if p not in owned)
    found = []
    for text in sorted(texts):
        try:
            found.append(Target(text, prefix(text), None))
        except ValueError:
            continue
    return found


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


def _column(
    index: Index,
    relay: str,
    texts: Sequence[str],
    chains: Sequence[tuple[str, ...]],
    owned: Mapping[str, Target],
    interned: dict[Choice | None, int],
) -> list[int]:
    """For each target the number of the Choice that *relay* makes. Prefixes that are not split need no parsing here."""
    node = index.node(relay)
    assert node is not None
    numbers: dict[str, int] = {}
    for route in node.view.routes:
        choice = _choice(route, node.trunks, owned)
        numbers.update(dict.fromkeys(route.prefixes, interned.setdefault(choice, len(interned))))
    exact = list(map(numbers.get, texts))
    if None not in exact:
        return [n for n in exact if n is not None]
    by_chain = {chain: next((numbers[p] for p in chain if p in numbers), -1) for chain in set(chains)}
    return [by_chain[c] if n is None else n for n, c in zip(exact, chains, strict=True)]


def _choice(route: Route, trunks: Sequence[str], owned: Mapping[str, Target]) -> Choice:
    """What *route* says; a leaf that owns all its prefixes is called OWNER."""
    leaves = {n for n in (*route.via, *(route.from_trunk or ())) if n not in trunks}
    owners = {owned[p].owner if p in owned else None for p in route.prefixes} if leaves else set()

    def rename(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(OWNER if n in leaves and owners == {n} else n for n in names)

    if not leaves:
        return Choice(route.via, route.detour, route.from_trunk)
    return Choice(rename(route.via), route.detour, None if route.from_trunk is None else rename(route.from_trunk))


def _fixed_parts(index: Index, targets: Iterable[Target]) -> list[object]:
    """What of a class does not depend on relays' routes: the family, and how the owner is attached.

    A relay is in no class with another: its own links carry what passes it.
    """
    standby: dict[str, tuple[str, ...]] = {}
    attached: dict[str | None, object] = {None: "nobody"}
    for name, member in index.plan.members.items():
        for subnet in member.standby_subnets:
            standby[subnet] = (*standby.get(subnet, ()), name)
        node = index.node(name)
        ends = node.ends.items() if node else ()
        attached[name] = name if member.is_relay else tuple(sorted(n for n, e in ends if e[0].kind is Kind.UPLINK))
    relay_standby = {s: tuple(n for n in nodes if index.plan.members[n].is_relay) for s, nodes in standby.items()}
    return [(t.place.version, t.owner is None, attached[t.owner], relay_standby.get(t.text, ())) for t in targets]
