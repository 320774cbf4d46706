"""The effects of an outage: which nodes it cuts off from which, and which paths change."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.model.addresses import host_prefixes
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.view import Kind
from saltext_wgmesh.core.proof.equivalence_classes import destination_classes
from saltext_wgmesh.core.proof.forwarding_tables import ForwardingTables
from saltext_wgmesh.core.proof.packet_walk import Failures, Walk, Walker, is_down, shared_address, walk_with

MAX_ALL_PAIRS = 200
"""Members up to which each pair is walked; beyond, one pair stands for all pairs of two groups."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes whose packets are treated alike, as sources or as destinations."""

    nodes: tuple[str, ...]

    @property
    def example(self) -> str:
        """The first of them."""
        return self.nodes[0]

    def __str__(self) -> str:
        more = len(self.nodes) - 1
        return f"{self.example} and {more} more" if more else self.example


def cut_off(plan: Plan, down: Failures) -> tuple[tuple[str, str, str], ...]:
    """Return (source, destination, why) of the packets that *down* would keep from arriving, sorted.

    Nodes that are down themselves are not listed. In a large mesh, nodes that are treated alike appear together, as
    ``leaf1 and 249 more``; two such nodes with a direct link still reach each other while that link is up.
    """
    return tuple(
        sorted((str(a), str(b), after.detail) for a, b, _, after in _changes(plan, down) if not after.delivered)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """The effects of an outage, in words. Pairs are written ``a → b``."""

    down: tuple[str, ...]
    """The nodes and links that are down, sorted."""
    cut_off: Mapping[str, str]
    """Pair → why its packets do not arrive, sorted."""
    rerouted: Mapping[str, tuple[str, str]]
    """Pair → its paths before and after, sorted."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as ``wgmesh.whatif`` returns them."""
        paths = {pair: {"before": before, "after": after} for pair, (before, after) in self.rerouted.items()}
        return {"down": list(self.down), "cut_off": dict(self.cut_off), "rerouted": paths}


def what_if(plan: Plan, down: Failures) -> Effects:
    """Return what changes while *down* is down: the pairs of ``cut_off``, and those that take another path."""
    failed = sorted(d if isinstance(d, str) else "--".join(sorted(d)) for d in down)
    lost, rerouted = {}, {}
    for a, b, before, after in _changes(plan, down):
        if after.delivered:
            rerouted[_arrows((a, b))] = (_arrows(before.hops), _arrows(after.hops))
        else:
            lost[_arrows((a, b))] = after.detail
    return Effects(down=tuple(failed), cut_off=dict(sorted(lost.items())), rerouted=dict(sorted(rerouted.items())))


def _arrows(hops: Iterable[object]) -> str:
    return " → ".join(map(str, hops))


def _changes(plan: Plan, down: Failures) -> Iterator[tuple[Group, Group, Walk, Walk]]:
    """Yield the pairs whose walk changes while *down* is down: (source, destination, before, after)."""
    walker = Walker(plan)
    sources, destinations = _groups(plan, walker.tables, down)
    for a in sources:
        for b in destinations:
            pair = _pair(walker.tables, a, b)
            address = shared_address(plan, *pair) if pair else None
            if pair and address is not None:
                before = walk_with(walker, pair[0], address, ())
                # A failure that the packet does not meet changes nothing, so no second walk is needed.
                if _meets(before, down):
                    after = walk_with(walker, pair[0], address, down)
                    yield a, b, before, after


def _meets(walk: Walk, down: Failures) -> bool:
    """Return whether the walk crosses a link or node that is down."""
    return any(is_down(here, there, down) for here, there in zip(walk.hops, walk.hops[1:], strict=False))


def _groups(plan: Plan, tables: ForwardingTables, down: Failures) -> tuple[list[Group], list[Group]]:
    """Return sources and destinations that are up: single members in a small mesh, else groups treated alike."""
    up = [n for n in plan.members if n not in down and tables.node(n)]
    if len(up) <= MAX_ALL_PAIRS:
        single = [Group((n,)) for n in up]
        return single, single
    touched = {n for element in down if not isinstance(element, str) for n in element}
    classes = {t.text: i for i, c in enumerate(destination_classes(tables)) for t in c.destinations}
    sources: dict[Hashable, list[str]] = {}
    destinations: dict[Hashable, list[str]] = {}
    for name in up:
        # The nodes at the ends of a failed link, and relays, are like no others.
        alone = name if name in touched or plan.members[name].is_relay else None
        to = tuple(classes.get(p) for p in host_prefixes(plan.members[name].addresses))
        destinations.setdefault((alone, to), []).append(name)
        sources.setdefault((alone, _first_hops(tables, name)), []).append(name)
    return [Group(tuple(g)) for g in sources.values()], [Group(tuple(g)) for g in destinations.values()]


def _first_hops(tables: ForwardingTables, name: str) -> Hashable:
    """Return the Routes that a node's packets meet first, without those to direct neighbours."""
    node = tables.node(name)
    assert node is not None
    direct = {n for n, (interface, _) in node.ends.items() if interface.kind is Kind.ACCESS}
    routes = node.view.routes
    return node.families, tuple((r.prefixes, r.via) for r in routes if direct.isdisjoint(r.via))


def _pair(tables: ForwardingTables, a: Group, b: Group) -> tuple[str, str] | None:
    """Return one pair that stands for all; None if the groups have no pair.

    It is not a node and itself, nor two direct neighbours if there are other pairs.
    """
    # A direct link would hide what happens to the other pairs of the two groups.
    source, node = a.example, tables.node(a.example)
    near = node.ends if node and not node.member.is_relay else {}
    others = [n for n in b.nodes if n != source]
    if not others:
        return (a.nodes[1], source) if len(a.nodes) > 1 else None
    return source, next((n for n in others if n not in near), others[0])
