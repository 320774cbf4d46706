"""A relay's routes to the leaves of other relays: one for each list of homes, merged by the sites' blocks.

Within a block, the list of homes that most addresses have takes the block as one prefix; the addresses of other
lists stay as host prefixes, which are longer and so come first. A relay that is itself a home of some member in the
block does not merge it: an address of the block that nobody has is thus sent at most to one such relay, which finds
it unreachable, and never in a circle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from saltext_wgmesh.core import addresses
from saltext_wgmesh.core.types import Member, Network, Route

Homes = tuple[str, ...]


class Keys(dict[str, tuple[int, int, int]]):
    """Prefix → what sorts it by family, address and length; made when first asked for."""

    def __missing__(self, prefix: str) -> tuple[int, int, int]:
        self[prefix] = key = addresses.prefix_key(prefix)
        return key


@dataclass(slots=True, kw_only=True)
class _Block:
    """A site's block, and who has addresses in it."""

    prefix: str
    counts: Counter[Homes] = field(default_factory=Counter)
    relays: set[str] = field(default_factory=set)

    taker: Homes | None = None
    """The homes that take the block; None if no two addresses share theirs."""

    def choose(self) -> None:
        """Afterwards the most frequent homes have taken the block."""
        homes, count = min(self.counts.items(), key=lambda item: (-item[1], item[0]), default=((), 0))
        self.taker = homes if count > 1 else None


@dataclass(slots=True, kw_only=True)
class _Group:
    """The leaves of one list of homes."""

    homes: Homes
    single: list[str]
    """Prefixes that no block stands for."""
    blocks: list[tuple[_Block, list[str]]]
    """The blocks that the group takes, each with the prefixes that it stands for."""
    made: dict[tuple[bool, ...], Route] = field(default_factory=dict)
    """For each choice of blocks to merge, the route: most relays have the same."""


@dataclass(slots=True, kw_only=True)
class Foreign:
    """All leaves, grouped by their homes."""

    groups: list[_Group]
    key: Keys

    def routes(self, relay: str) -> list[Route]:
        """The routes of *relay* to all leaves that it is no home of."""
        return [self._route(group, relay) for group in self.groups if relay not in group.homes]

    def _route(self, group: _Group, relay: str) -> Route:
        merged = tuple(relay not in block.relays for block, _ in group.blocks)
        if merged not in group.made:
            prefixes = list(group.single)
            for use, (block, hosts) in zip(merged, group.blocks, strict=True):
                prefixes += [block.prefix] if use else hosts
            prefixes.sort(key=self.key.__getitem__)
            group.made[merged] = Route(prefixes=tuple(prefixes), via=group.homes, detour=True, from_trunk=group.homes)
        return group.made[merged]


def foreign(groups: Mapping[Homes, Sequence[Member]], networks: Iterable[Network], key: Keys) -> Foreign:
    """The leaves of *groups* (homes → leaves), with the blocks of *networks* that can stand for some."""
    ranges = _apart(networks)
    found: dict[Homes, list[tuple[str, _Block | None]]] = {}
    for homes, leaves in sorted(groups.items()):
        hosts = [(prefix, _block_of(ranges, key[prefix])) for leaf in leaves for prefix in leaf.prefixes]
        for _, block in hosts:
            if block is not None:
                block.counts[homes] += 1
                block.relays.update(homes)
        found[homes] = hosts
    for block in ranges.blocks:
        block.choose()
    return Foreign(groups=[_group(homes, hosts) for homes, hosts in found.items()], key=key)


def _group(homes: Homes, hosts: Sequence[tuple[str, _Block | None]]) -> _Group:
    group = _Group(homes=homes, single=[], blocks=[])
    taken: dict[str, list[str]] = {}
    for prefix, block in hosts:
        if block is None or block.taker != homes:
            group.single.append(prefix)
        else:
            if block.prefix not in taken:
                taken[block.prefix] = []
                group.blocks.append((block, taken[block.prefix]))
            taken[block.prefix].append(prefix)
    return group


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranges:
    """Blocks that don't overlap, by family and first address."""

    starts: list[tuple[int, int]]
    ends: list[int]
    blocks: list[_Block]


def _apart(networks: Iterable[Network]) -> _Ranges:
    """The blocks without those that overlap: a prefix that one of them stands for could fall to the other."""
    spans = sorted((n.version, int(n.network_address), int(n.broadcast_address), str(n)) for n in set(networks))
    kept = [
        s
        for i, s in enumerate(spans)
        if not any(o[0] == s[0] and o[1] <= s[2] and s[1] <= o[2] for j, o in enumerate(spans) if j != i)
    ]
    return _Ranges(
        starts=[(s[0], s[1]) for s in kept], ends=[s[2] for s in kept], blocks=[_Block(prefix=s[3]) for s in kept]
    )


def _block_of(ranges: _Ranges, key: tuple[int, int, int]) -> _Block | None:
    version, address, _ = key
    i = bisect_right(ranges.starts, (version, address)) - 1
    if i < 0 or ranges.starts[i][0] != version or address > ranges.ends[i]:
        return None
    return ranges.blocks[i]
