"""The relay that a leaf takes first for each destination: leaves with the same relays take the same one both ways.

A firewall on a relay that tracks connections drops answers whose requests took another relay. So the choice depends on
both ends, and is the same from either. An area is the mesh's network, or the block of a site, if each of its leaves
gets all relays of one and the same set. It is divided into as many parts as there are relays: all parts but the first
are a prefix each, and the first has all other addresses. The sum of the numbers of both ends' parts, modulo the number
of relays, is the index of the relay. For a pair in one block the parts of the block count.

All other destinations are reached by the leaf's relays in order. Two leaves that have no relay in common then use the
first relays of both in either direction.

The parts depend on the policy and the addresses of leaves alone, and never on the health of relays. With two relays
they change about once while the number of leaves doubles.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.model.policy import MeshPolicy, Topology
from saltext_wgmesh.core.planning import prefix_blocks
from saltext_wgmesh.core.planning.addresses import address_number, prefix_key
from saltext_wgmesh.core.planning.prefix_blocks import PrefixBlocks
from saltext_wgmesh.core.planning.relay_assignment import Avoid, Pool, RelayOrder

_BITS = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One prefix that is a part of an area."""

    prefix: str
    first: int
    """Its first and last address as numbers."""
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """One area and its parts."""

    prefix: str
    parts: tuple[Part, ...]
    """All but the first, which has the remaining addresses."""

    def number(self, address: str) -> int:
        """Return the number of the part in which *address* is; the longest prefix counts, as in routes."""
        value = address_number(address)
        holding = [(p.last - p.first, n) for n, p in enumerate(self.parts, 1) if p.first <= value <= p.last]
        return min(holding)[1] if holding else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayChoice:
    """The areas of a mesh, each given as a prefix, and their parts."""

    families: tuple[int, ...]
    """Those of the mesh's networks."""
    networks: PrefixBlocks
    """The mesh's networks: one of each family, and former ones."""
    blocks: PrefixBlocks
    areas: Mapping[str, Area]
    """Prefix → the area."""

    numbers: dict[str, dict[str, int]] = field(default_factory=dict)
    """Memo: address → the prefixes of its areas, that of the network before that of a block, each with the number of
    its part there."""

    def order(self, leaf: Member, other: Member, families: Iterable[int]) -> RelayOrder:
        """Return the relays of *leaf* for packets to *other*, a leaf or gateway, first choice first.

        The first of *families* by which both are in one area decides. So either end gets the same result, also for a
        route that serves several families.
        """
        for family in families if leaf.spread_relays else ():
            own, others = self._numbers(_address_of(leaf, family)), self._numbers(_address_of(other, family))
            shared = [prefix for prefix in others if prefix in own]
            if shared:
                return _rotated(leaf, own[shared[-1]] + others[shared[-1]])
        return leaf.relays

    def subnet_groups(self, gateway_of: Mapping[str, Member]) -> list[tuple[Member, int, list[str]]]:
        """Return the subnets of *gateway_of* in groups: each leaf takes one order of relays to all of a group.

        A group is given by one of its gateways and its family. Most meshes have a few groups, and many subnets.
        """
        found: dict[tuple[object, ...], tuple[Member, int, list[str]]] = {}
        for subnet, gateway in gateway_of.items():
            family = address_family(subnet)
            numbers = self._numbers(_address_of(gateway, family))
            found.setdefault((family, *numbers.items()), (gateway, family, []))[2].append(subnet)
        return list(found.values())

    def own_numbers(self, leaf: Member) -> tuple[tuple[str, int], ...]:
        """Return what the choice of *leaf* depends on besides its relays: the areas and parts of its addresses."""
        found: dict[str, int] = {}
        # With a former address, a leaf has areas in the former network too.
        for address in leaf.addresses if leaf.spread_relays else ():
            for area, number in self._numbers(address).items():
                found.setdefault(area, number)
        return tuple(found.items())

    def prefixes(self, leaf: Member) -> dict[str, RelayOrder]:
        """Return the mesh's networks, the areas of *leaf* and their parts → its relays for addresses there."""
        found = dict.fromkeys(self.networks.prefixes, leaf.relays)
        # The block comes last: for its addresses its parts count, and not those of the network.
        for area, number in self.own_numbers(leaf):
            found = {prefix: order for prefix, order in found.items() if not _holds(area, prefix)}
            found[area] = _rotated(leaf, number)
            for index, part in enumerate(self.areas[area].parts, 1):
                found[part.prefix] = _rotated(leaf, number + index)
        return found

    def has_area(self, addresses: Iterable[str]) -> bool:
        """Return whether one of *addresses* is in an area."""
        return any(self._numbers(address) for address in addresses)

    def _numbers(self, address: str | None) -> Mapping[str, int]:
        if address is None or not self.areas:
            return {}
        if address not in self.numbers:
            family, number = address_family(address), address_number(address)
            prefixes = (self.networks.holding(family, number), self.blocks.holding(family, number))
            areas = (area for prefix in prefixes if prefix and (area := self.areas.get(prefix)))
            self.numbers[address] = {area.prefix: area.number(address) for area in areas}
        return self.numbers[address]


def spread_relays(
    topology: Topology,
    chosen: Mapping[str, RelayOrder],
    pools: Mapping[str, Pool],
    avoid: Avoid,
    troubled: Set[str],
) -> dict[str, Pool]:
    """Return leaf → its pool, for each leaf that may spread its packets over all relays of that.

    It has all of them, and neither the mesh has trouble with one, nor the leaf, which is to *avoid* some.
    """
    found = {}
    for leaf, relays in chosen.items():
        pool, unusable = pools.get(leaf, ()), avoid.get(leaf, frozenset()) | troubled
        # In a partial mesh a third relay is one that ``links`` adds, which no other leaf needs to have.
        equal = relays if topology is Topology.FULL else relays[:2]
        if len(pool) > 1 and set(pool) <= set(equal) and not unusable & set(pool):
            found[leaf] = pool
    return found


def choice_of(mesh: MeshPolicy, assigned: Mapping[str, Iterable[str]], pools: Mapping[str, Pool]) -> RelayChoice:
    """Return the choice for *mesh*; *assigned* is node → its addresses, and *pools* is leaf → its pool of relays."""
    networks = prefix_blocks.disjoint(mesh.networks)
    blocks = prefix_blocks.disjoint(n for site in mesh.sites.values() for n in site.networks)
    families = tuple(dict.fromkeys(n.version for n in mesh.networks))
    is_full = mesh.topology is Topology.FULL
    distinct = set(pools.values())
    spreading = {pool for pool in distinct if len(pool) == 2 or (is_full and len(pool) > 1)}
    only_whole_mesh = not blocks.starts and len(networks.starts) == len(families)
    if not spreading or (len(distinct) > 1 and only_whole_mesh):
        # There is no area. To find that out by the addresses of all leaves takes long in a large mesh.
        return RelayChoice(families=families, networks=networks, blocks=blocks, areas={})
    values: dict[str, list[int]] = {}
    pools_in: dict[str, set[Pool]] = {}
    for leaf, pool in pools.items():
        for address in assigned[leaf]:
            family, number = address_family(address), address_number(address)
            for prefix in (networks.holding(family, number), blocks.holding(family, number)):
                if prefix:
                    values.setdefault(prefix, []).append(number)
                    pools_in.setdefault(prefix, set()).add(pool)
    areas = {}
    for prefix, (pool, *others) in pools_in.items():
        if not others and pool in spreading:
            areas[prefix] = Area(prefix=prefix, parts=tuple(_divide(prefix, sorted(values[prefix]), len(pool))))
    return RelayChoice(families=families, networks=networks, blocks=blocks, areas=areas)


def _address_of(leaf: Member, family: int) -> str | None:
    return next((a for a in leaf.addresses if address_family(a) == family), None)


def _rotated(leaf: Member, number: int) -> RelayOrder:
    """Return the relays of *leaf* with those over which it spreads first, beginning at index *number* of them."""
    spread = leaf.spread_relays
    start = number % len(spread)
    first = (*spread[start:], *spread[:start])
    return (*first, *(relay for relay in leaf.relays if relay not in spread))


def _holds(area: str, prefix: str) -> bool:
    """Return whether *prefix* is a part of *area*, or *area* itself."""
    (family, first, length), (other_family, value, other_length) = prefix_key(area), prefix_key(prefix)
    free = _BITS[family] - length
    return family == other_family and length <= other_length and first >> free == value >> free


def _divide(area: str, values: Sequence[int], count: int) -> list[Part]:
    """Return prefixes that divide the sorted *values* in *area* into *count* parts of similar size."""
    parts: list[Part] = []
    share = len(values) / count
    for _ in range(count - 1):
        part = _find_part(area, values, share)
        if part is None:
            break
        parts.append(part)
        values = [v for v in values if not part.first <= v <= part.last]
    return parts


def _find_part(area: str, values: Sequence[int], share: float) -> Part | None:
    """Return the shortest prefix in *area*, no host prefix, with about *share* of the *values*; None: there is none.

    "About" is between half and one and a half of it: a narrower range would change the prefix with every few leaves.
    """
    family, first, length = prefix_key(area)
    low, high = 0, len(values)
    for new_length in range(length + 1, _BITS[family]):
        size = 1 << (_BITS[family] - new_length)
        middle = bisect_left(values, first + size, low, high)
        for start, found in ((first, middle - low), (first + size, high - middle)):
            if found and share / 2 <= found <= share * 3 / 2:
                return Part(prefix=_prefix(family, start, new_length), first=start, last=start + size - 1)
        if middle - low >= high - middle:
            high = middle
        else:
            first, low = first + size, middle
    return None


def _prefix(family: int, first: int, length: int) -> str:
    return f"{IPv4Address(first) if family == 4 else IPv6Address(first)}/{length}"
