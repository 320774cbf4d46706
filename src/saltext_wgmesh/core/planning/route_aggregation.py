"""A relay's routes to the leaves of other relays: one for each list of relays, aggregated by the sites' blocks.

Leaves with the same relays form a group. Within a block, the group with most addresses is routed by the block as one
prefix. The addresses of other groups stay host prefixes, which are longer and so are preferred.

A relay that serves a leaf of the block does not aggregate that block. So a packet to an unassigned address of the block
reaches at most one such relay, and never loops: that relay has no route for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.model.view import Route
from saltext_wgmesh.core.planning import addresses
from saltext_wgmesh.core.planning.prefix_blocks import PrefixBlocks
from saltext_wgmesh.core.planning.relay_assignment import RelayOrder

_Host = tuple[str, int | None]
"""A prefix of a leaf, and the index of the block that contains it; None: no block does."""


class PrefixSortKeys(dict[str, tuple[int, int, int]]):
    """Prefix → its sort key (family, address, length), computed on first access."""

    def __missing__(self, prefix: str) -> tuple[int, int, int]:
        self[prefix] = key = addresses.prefix_key(prefix)
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """A site's block, and the leaves that have addresses in it."""

    prefix: str
    relays: frozenset[str]
    """All relays of leaves in the block."""
    owner: RelayOrder | None
    """The relays of the group that is routed by the block; None if no group has two addresses in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The leaves that have the same relays."""

    relays: RelayOrder
    single: list[str]
    """Prefixes outside the group's blocks."""
    blocks: list[tuple[_Block, list[str]]]
    """The blocks that the group owns, each with the prefixes that it replaces."""
    routes: dict[tuple[bool, ...], Route] = field(default_factory=dict)
    """Memo: the route for each choice of blocks to aggregate. Most relays share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteLeaves:
    """All leaves, grouped by their relays."""

    groups: list[_Group]
    prefix_key: PrefixSortKeys

    def routes(self, relay: str) -> list[Route]:
        """Return the routes of *relay* to all leaves that it does not serve."""
        return [self._route(group, relay) for group in self.groups if relay not in group.relays]

    def _route(self, group: _Group, relay: str) -> Route:
        aggregated = tuple(relay not in block.relays for block, _ in group.blocks)
        if aggregated not in group.routes:
            prefixes = list(group.single)
            for use, (block, hosts) in zip(aggregated, group.blocks, strict=True):
                prefixes += [block.prefix] if use else hosts
            prefixes.sort(key=self.prefix_key.__getitem__)
            group.routes[aggregated] = Route(
                prefixes=tuple(prefixes), via=group.relays, detour=True, from_trunk=group.relays
            )
        return group.routes[aggregated]


def remote_leaves(
    groups: Mapping[RelayOrder, Sequence[Member]], ranges: PrefixBlocks, key: PrefixSortKeys
) -> RemoteLeaves:
    """Return the leaves of *groups* (relays → leaves), with the blocks in *ranges* that aggregate their routes."""
    hosts_of = {
        relays: [(prefix, ranges.index(*key[prefix][:2])) for leaf in leaves for prefix in leaf.prefixes]
        for relays, leaves in sorted(groups.items())
    }
    blocks = _blocks(ranges, hosts_of)
    return RemoteLeaves(groups=[_group(relays, hosts, blocks) for relays, hosts in hosts_of.items()], prefix_key=key)


def _blocks(ranges: PrefixBlocks, hosts_of: Mapping[RelayOrder, Sequence[_Host]]) -> list[_Block]:
    """Return the blocks of *ranges*, each with the owner that its hosts give it."""
    counts: list[Counter[RelayOrder]] = [Counter() for _ in ranges.prefixes]
    for relays, hosts in hosts_of.items():
        for _, index in hosts:
            if index is not None:
                counts[index][relays] += 1
    return [_block(prefix, count) for prefix, count in zip(ranges.prefixes, counts, strict=True)]


def _block(prefix: str, counts: Counter[RelayOrder]) -> _Block:
    """Return the block; *counts* is the relays of a group → the number of prefixes of the group in the block."""
    relays, count = min(counts.items(), key=lambda item: (-item[1], item[0]), default=((), 0))
    # One address alone is routed as well by its host prefix.
    owner = relays if count > 1 else None
    return _Block(prefix=prefix, relays=frozenset(r for group in counts for r in group), owner=owner)


def _group(relays: RelayOrder, hosts: Iterable[_Host], blocks: Sequence[_Block]) -> _Group:
    """Return the group of leaves with these *relays*, whose prefixes are *hosts*."""
    single: list[str] = []
    replaced: dict[int, list[str]] = {}
    for prefix, index in hosts:
        if index is None or blocks[index].owner != relays:
            single.append(prefix)
        else:
            replaced.setdefault(index, []).append(prefix)
    return _Group(relays=relays, single=single, blocks=[(blocks[i], prefixes) for i, prefixes in replaced.items()])
