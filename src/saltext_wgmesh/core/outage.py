"""What an outage would do: who is cut off from whom, and which paths change."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.classes import target_classes
from saltext_wgmesh.core.index import Index
from saltext_wgmesh.core.types import Kind, Plan, host_prefixes
from saltext_wgmesh.core.walker import Down, Walk, Walker, is_down, walk_with

ALL_PAIRS = 200
"""Members up to which each pair is walked; beyond, one pair stands for all pairs of two groups."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that send, or are sent to, alike."""

    nodes: tuple[str, ...]

    @property
    def example(self) -> str:
        """The first of them."""
        return self.nodes[0]

    def __str__(self) -> str:
        more = len(self.nodes) - 1
        return f"{self.example} and {more} more" if more else self.example


def cut_off(plan: Plan, down: Down) -> tuple[tuple[str, str, str], ...]:
    """(source, destination, why) of packets that *down* would keep from arriving, sorted; the dead are not listed.

    In a large mesh nodes that are treated alike stand together as ``leaf1 and 249 more``; two such nodes with a
    direct link between them still reach each other while that lives.
    """
    return tuple(
        sorted((str(a), str(b), after.detail) for a, b, _, after in _changes(plan, down) if not after.delivered)
    )


def outage(plan: Plan, down: Down) -> dict[str, Any]:
    """``cut_off`` as plain data (``a → b``: why), and the paths that would be others (``before`` and ``after``)."""
    words = sorted(d if isinstance(d, str) else "--".join(sorted(d)) for d in down)
    lost, moved = {}, {}
    for a, b, before, after in _changes(plan, down):
        if after.delivered:
            moved[_arrows((a, b))] = {"before": _arrows(before.hops), "after": _arrows(after.hops)}
        else:
            lost[_arrows((a, b))] = after.detail
    return {"down": words, "cut_off": dict(sorted(lost.items())), "rerouted": dict(sorted(moved.items()))}


def _arrows(hops: Iterable[object]) -> str:
    return " → ".join(map(str, hops))


def _changes(plan: Plan, down: Down) -> Iterator[tuple[Group, Group, Walk, Walk]]:
    """The pairs whose walk is another while *down* is dead: (source, destination, before, after)."""
    walker = Walker(plan)
    sources, destinations = _groups(plan, walker.index, down)
    for a in sources:
        for b in destinations:
            pair = _pair(walker.index, a, b)
            address = shared_address(plan, *pair) if pair else None
            if pair and address is not None:
                before = walk_with(walker, pair[0], address, ())
                if _meets(before, down):
                    after = walk_with(walker, pair[0], address, down)
                    yield a, b, before, after


def _meets(walk: Walk, down: Down) -> bool:
    """Whether the walk would be another: it goes over a link or node that is down. All else changes nothing."""
    return any(is_down(here, there, down) for here, there in zip(walk.hops, walk.hops[1:], strict=False))


def _groups(plan: Plan, index: Index, down: Down) -> tuple[list[Group], list[Group]]:
    """Living sources and destinations: each member by itself in a small mesh, else by what they have in common."""
    living = [n for n in plan.members if n not in down and index.node(n)]
    if len(living) <= ALL_PAIRS:
        single = [Group((n,)) for n in living]
        return single, single
    touched = {n for element in down if not isinstance(element, str) for n in element}
    classes = {t.text: i for i, c in enumerate(target_classes(index)) for t in c.targets}
    sources: dict[Hashable, list[str]] = {}
    destinations: dict[Hashable, list[str]] = {}
    for name in living:
        alone = name if name in touched or plan.members[name].is_relay else None
        to = tuple(classes.get(p) for p in host_prefixes(plan.members[name].addresses))
        destinations.setdefault((alone, to), []).append(name)
        sources.setdefault((alone, _sends(index, name)), []).append(name)
    return [Group(tuple(g)) for g in sources.values()], [Group(tuple(g)) for g in destinations.values()]


def _sends(index: Index, name: str) -> Hashable:
    """What a node's packets meet first, but for its direct neighbours."""
    node = index.node(name)
    assert node is not None
    direct = {n for n, (interface, _) in node.ends.items() if interface.kind is Kind.ACCESS}
    routes = node.view.routes
    return node.families, tuple((r.prefixes, r.via) for r in routes if direct.isdisjoint(r.via))


def _pair(index: Index, a: Group, b: Group) -> tuple[str, str] | None:
    """One pair for all: not a node and itself, nor two direct neighbours if there are others. None if there is none."""
    source, node = a.example, index.node(a.example)
    near = node.ends if node and not node.member.is_relay else {}
    others = [n for n in b.nodes if n != source]
    if not others:
        return (a.nodes[1], source) if len(a.nodes) > 1 else None
    return source, next((n for n in others if n not in near), others[0])


def shared_address(plan: Plan, source: str, destination: str) -> str | None:
    """The destination's first address in a family that both have."""
    families = {":" in a for a in plan.members[source].addresses}
    return next((a for a in plan.members[destination].addresses if (":" in a) in families), None)
