"""The relay that a leaf takes first for each destination: two leaves with the same relays take the same one.

A firewall on a relay that tracks connections drops answers whose requests took another relay. So the choice depends on
both ends, and is the same from either. The addresses of the mesh are divided into parts, one for each relay of a leaf:
all parts but the first are a prefix each, and the first has all other addresses. A leaf takes the relay whose index is
the sum of the numbers of its own part and the destination's part, modulo the number of relays.

No part has many more addresses than another, so each relay is taken for about as many pairs. A leaf has one more route
for each part but the first. The parts depend on the policy and the addresses of leaves alone. So they change about once
while the number of leaves doubles, and never with the health of relays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.model.policy import Topology
from saltext_wgmesh.core.planning.addresses import address_number, prefix_key
from saltext_wgmesh.core.planning.relay_assignment import Avoid, Pool, RelayOrder

_BITS = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One prefix that is a part of the mesh's addresses."""

    prefix: str
    first: int
    """Its first and last address as numbers."""
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayChoice:
    """The parts of the mesh's addresses, for each set of relays that leaves spread their packets over."""

    networks: Mapping[int, str]
    """Family → the mesh's network."""
    populations: Mapping[Pool, Mapping[int, Sequence[int]]]
    """Relays that leaves may choose from → family → the addresses of these leaves as numbers, sorted."""
    _parts: dict[tuple[RelayOrder, int], tuple[Part, ...]] = field(default_factory=dict)

    def order(self, leaf: Member, address: str) -> RelayOrder:
        """Return the relays of *leaf* for packets to a leaf or gateway with *address*, first choice first."""
        spread = leaf.spread_relays
        own = next((a for a in leaf.addresses if address_family(a) == address_family(address)), None)
        if len(spread) < 2 or own is None:
            return leaf.relays
        return _rotated(leaf, self._number(spread, own) + self._number(spread, address))

    def own_numbers(self, leaf: Member) -> tuple[int, ...]:
        """Return the numbers of the parts in which the addresses of *leaf* are; empty if it takes one relay for all."""
        if len(leaf.spread_relays) < 2:
            return ()
        return tuple(self._number(leaf.spread_relays, address) for address in leaf.addresses)

    def prefixes(self, leaf: Member) -> dict[str, RelayOrder]:
        """Return the prefixes of all parts in the families of *leaf* → its relays for addresses there."""
        found: dict[str, RelayOrder] = {}
        for family, network in self.networks.items():
            own = next((a for a in leaf.addresses if address_family(a) == family), None)
            if own is None or len(leaf.spread_relays) < 2:
                found[network] = leaf.relays
                continue
            number = self._number(leaf.spread_relays, own)
            found[network] = _rotated(leaf, number)
            for index, part in enumerate(self._parts_of(leaf.spread_relays, family), 1):
                found[part.prefix] = _rotated(leaf, number + index)
        return found

    def _number(self, relays: RelayOrder, address: str) -> int:
        """Return the number of the part in which *address* is; the longest prefix counts, as in routes."""
        value = address_number(address)
        parts = enumerate(self._parts_of(relays, address_family(address)), 1)
        holding = [(part.last - part.first, number) for number, part in parts if part.first <= value <= part.last]
        return min(holding)[1] if holding else 0

    def _parts_of(self, relays: RelayOrder, family: int) -> tuple[Part, ...]:
        """Return the prefixes that divide the addresses of the leaves that may have all of these *relays*."""
        if (relays, family) not in self._parts:
            pools = [by_family for pool, by_family in self.populations.items() if set(relays) <= set(pool)]
            values = sorted({value for by_family in pools for value in by_family.get(family, ())})
            self._parts[relays, family] = tuple(_divide(self.networks[family], values, len(relays)))
        return self._parts[relays, family]


def spread_relays(
    topology: Topology,
    chosen: Mapping[str, RelayOrder],
    pools: Mapping[str, Pool],
    avoid: Avoid,
    troubled: Set[str],
) -> dict[str, Pool]:
    """Return leaf → those of its *chosen* relays over which it spreads its packets, sorted, where there are several.

    They are equally near: all are in the leaf's pool. Neither the mesh has trouble with them, nor the leaf, which is to
    *avoid* some.
    """
    found = {}
    for leaf, relays in chosen.items():
        # In a partial mesh a third relay is one that ``links`` adds, which no other leaf needs to have.
        equal = relays if topology is Topology.FULL else relays[:2]
        unusable = avoid.get(leaf, frozenset()) | troubled
        usable = tuple(sorted(r for r in equal if r in pools[leaf] and r not in unusable))
        if len(usable) > 1:
            found[leaf] = usable
    return found


def choice_of(networks: Iterable[str], members: Iterable[Member], pools: Mapping[str, Pool]) -> RelayChoice:
    """Return the choice for a mesh with these *networks*; *pools* is leaf → the relays that it may choose from."""
    populations: dict[Pool, dict[int, list[int]]] = {}
    for member in members:
        pool = pools.get(member.node, ())
        if len(pool) < 2:
            continue
        by_family = populations.setdefault(pool, {})
        for address in member.addresses:
            by_family.setdefault(address_family(address), []).append(address_number(address))
    return RelayChoice(
        networks={address_family(n.partition("/")[0]): n for n in networks},
        populations=populations,
    )


def _rotated(leaf: Member, number: int) -> RelayOrder:
    """Return the relays of *leaf* with those over which it spreads first, beginning at index *number* of them."""
    spread = leaf.spread_relays
    start = number % len(spread)
    first = (*spread[start:], *spread[:start])
    return (*first, *(relay for relay in leaf.relays if relay not in spread))


def _divide(network: str, values: Sequence[int], number: int) -> list[Part]:
    """Return prefixes that divide the sorted *values* in *network* into *number* parts of similar size."""
    parts: list[Part] = []
    share = len(values) / number
    for _ in range(number - 1):
        part = _find_part(network, values, share)
        if part is None:
            break
        parts.append(part)
        values = [v for v in values if not part.first <= v <= part.last]
    return parts


def _find_part(network: str, values: Sequence[int], share: float) -> Part | None:
    """Return the shortest prefix in *network*, no host prefix, with about *share* of the *values*; None: there is none.

    "About" is between half and one and a half of it: a narrower range would change the prefix with every few leaves.
    """
    family, first, length = prefix_key(network)
    low, high = 0, len(values)
    for new_length in range(length + 1, _BITS[family]):
        size = 1 << (_BITS[family] - new_length)
        middle = bisect_left(values, first + size, low, high)
        for start, count in ((first, middle - low), (first + size, high - middle)):
            if count and share / 2 <= count <= share * 3 / 2:
                return Part(prefix=_prefix(family, start, new_length), first=start, last=start + size - 1)
        if middle - low >= high - middle:
            high = middle
        else:
            first, low = first + size, middle
    return None


def _prefix(family: int, first: int, length: int) -> str:
    return f"{IPv4Address(first) if family == 4 else IPv6Address(first)}/{length}"
