"""Pairs of leaves whose packets take other relays in one direction than in the other.

Such a pair is no defect: every packet arrives. But a firewall on a relay that tracks connections sees one direction
only, and may drop it as invalid. The count tells the operator how many pairs depend on untracked traffic on relays.

Leaves are alike if they have the same relays and the same wide routes, which are those of more than one address. The
same of all leaves' wide routes must also hold their own address. One pair then stands for all pairs of two such
classes. So the work grows with the number of classes, and not with the number of pairs. Of more than MAX_CLASSES
classes the largest are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.view import Kind
from saltext_wgmesh.core.proof.forwarding_tables import ForwardingTables, NodeTables
from saltext_wgmesh.core.proof.packet_walk import Walker
from saltext_wgmesh.core.proof.prefix_table import Prefix, host, prefix_or_none


@dataclass(frozen=True, slots=True, kw_only=True)
class Symmetry:
    """The relayed pairs of leaves of one plan, each pair counted once; of very large meshes a part of them."""

    relayed: int
    """Pairs that use relays."""
    asymmetric: int
    """Pairs of these that use other relays in one direction than in the other, or in another order."""
    example: str | None
    """One asymmetric pair with both paths; None if there is none."""

    def describe(self) -> str:
        """Return a sentence on the asymmetric pairs; empty if there are none."""
        if not self.asymmetric:
            return ""
        return f"{self.asymmetric} of {self.relayed} relayed pairs use other relays in each direction: {self.example}"


MAX_CLASSES = 300
"""Classes of leaves of which all pairs are walked: about a second of time."""
_WideRoutes = tuple[tuple[str, tuple[str, ...]], ...]
"""The prefixes of a leaf's routes of more than one address, each with its next hops."""
_Class = tuple[tuple[str, ...], _WideRoutes, tuple[str, ...]]
"""The relays of leaves in order, their wide routes, and which wide routes of all leaves hold their address."""


def count_asymmetric(plan: Plan) -> Symmetry:
    """Return how many pairs of leaves *plan* relays, and how many of them by other relays in each direction.

    All links are up. Pairs with a direct link are left out. Of two families the first counts.
    """
    tables = ForwardingTables(plan)
    kind_of = _classes(plan, tables)
    # Classes are numbered, since the time to hash or compare one grows with its routes.
    kinds = sorted(set(kind_of.values()))
    numbers = {kind: number for number, kind in enumerate(kinds)}
    class_of = {name: numbers[kind] for name, kind in kind_of.items()}
    classes: list[list[str]] = [[] for _ in kinds]
    for name, number in class_of.items():
        classes[number].append(name)
    paths = _Paths(tables, kinds)
    direct = _direct_pairs(plan, class_of)
    relayed = asymmetric = 0
    example = None
    largest = sorted(range(len(kinds)), key=lambda number: (-len(classes[number]), number))[:MAX_CLASSES]
    for a, b in combinations_with_replacement(sorted(largest), 2):
        some, others = classes[a], classes[b]
        pairs = len(some) * (len(some) - 1) // 2 if a == b else len(some) * len(others)
        pairs -= direct.get((a, b), 0)
        relayed += pairs
        if a == b or not pairs:
            continue
        there, back = paths.relays(a, b, others[0]), paths.relays(b, a, some[0])
        if there != back[::-1]:
            asymmetric += pairs
            example = example or _example(some[0], there, others[0], back)
    return Symmetry(relayed=relayed, asymmetric=asymmetric, example=example)


class _Paths:
    """The relays on the way to leaves, walked once for each first relay and class of destinations."""

    def __init__(self, tables: ForwardingTables, kinds: Sequence[_Class]) -> None:
        self._members = tables.plan.members
        self._walker = Walker(tables.plan, tables)
        self._vias = [dict(wide) for _, wide, _ in kinds]
        self._holding = [holding for _, _, holding in kinds]
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}

    def relays(self, sender_class: int, target_class: int, target: str) -> tuple[str, ...]:
        """Return the relays of packets from leaves of *sender_class* to leaves like *target*."""
        first = self._first_relay(sender_class, target_class)
        if first is None:
            return ()
        key = (first, target_class)
        if key not in self._known:
            address, own = self._members[target].addresses[0], self._members[first].addresses
            source = next((a for a in own if address_family(a) == address_family(address)), own[0])
            self._known[key] = self._walker.walk(first, host(address), host(source)).hops[:-1]
        return self._known[key]

    def _first_relay(self, sender: int, target: int) -> str | None:
        """Return the relay that leaves of class *sender* take first: the longest prefix with the target decides."""
        vias = self._vias[sender]
        return next((vias[text][0] for text in self._holding[target] if vias.get(text)), None)


def _classes(plan: Plan, tables: ForwardingTables) -> dict[str, _Class]:
    """Return leaf → its class, for each leaf with relays."""
    found: dict[str, tuple[tuple[str, ...], _WideRoutes]] = {}
    memo: dict[int, _WideRoutes] = {}
    for name, member in plan.members.items():
        node = tables.node(name) if member.relays else None
        if node is None:
            continue
        wide = memo.setdefault(id(node.view.routes), _wide_routes(node, tables))
        found[name] = (member.relays, wide)
    texts = {text for _, wide in found.values() for text, _ in wide}
    prefixes = sorted(((p, t) for t in texts if (p := prefix_or_none(t))), key=lambda one: -one[0].length)
    return {name: (*found[name], _holding(plan.members[name].addresses[0], prefixes)) for name in found}


def _wide_routes(node: NodeTables, tables: ForwardingTables) -> _WideRoutes:
    """Return the routes of *node* to prefixes that no member has, sorted."""
    return tuple(sorted((text, route.via) for text, route in node.entries.items() if text not in tables.owners))


def _holding(address: str, prefixes: Iterable[tuple[Prefix, str]]) -> tuple[str, ...]:
    """Return those of *prefixes* that hold *address*, in the same order."""
    own = prefix_or_none(host(address).prefix)
    return tuple(text for prefix, text in prefixes if own and prefix.holds(own))


def _direct_pairs(plan: Plan, class_of: Mapping[str, int]) -> dict[tuple[int, int], int]:
    """Return the number of direct links for each two classes of leaves, the lower class first."""
    found: dict[tuple[int, int], int] = {}
    for link in plan.links:
        if link.kind is Kind.ACCESS and link.a in class_of and link.b in class_of:
            a, b = sorted((class_of[link.a], class_of[link.b]))
            found[a, b] = found.get((a, b), 0) + 1
    return found


def _example(a: str, there: tuple[str, ...], b: str, back: tuple[str, ...]) -> str:
    return f"{' → '.join((a, *there, b))}, and {' → '.join((b, *back, a))}"
