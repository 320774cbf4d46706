"""The blocks of a mesh's sites that overlap no other block, and which of them holds an address.

netaddr sorts and compares the blocks. The block of an address is found by a search in sorted numbers, since a plan
needs that of each leaf.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from netaddr import IPNetwork

from saltext_wgmesh.core.inputs.prefixes import from_netaddr, to_netaddr
from saltext_wgmesh.core.model.policy import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixBlocks:
    """Blocks that do not overlap, by family and first address."""

    starts: list[tuple[int, int]]
    ends: list[int]
    prefixes: list[str]

    def index(self, family: int, address: int) -> int | None:
        """Return the index of the block that holds the *address*, given as a number; None: there is none."""
        i = bisect_right(self.starts, (family, address)) - 1
        if i < 0 or self.starts[i][0] != family or address > self.ends[i]:
            return None
        return i

    def holding(self, family: int, address: int) -> str | None:
        """Return the block that holds the *address*, given as a number; None: there is none."""
        i = self.index(family, address)
        return None if i is None else self.prefixes[i]


def disjoint(networks: Iterable[Network]) -> PrefixBlocks:
    """Return the blocks among *networks* that overlap no other, since one block could replace prefixes of the other."""
    outermost: list[IPNetwork] = []
    overlapping: set[IPNetwork] = set()
    # In sorted order a block comes after the one that contains it, and only blocks inside that one lie between.
    for block in sorted(to_netaddr(n) for n in set(networks)):
        if outermost and block in outermost[-1]:
            overlapping.add(outermost[-1])
        else:
            outermost.append(block)
    found = [block for block in outermost if block not in overlapping]
    return PrefixBlocks(
        starts=[(block.version, block.first) for block in found],
        ends=[block.last for block in found],
        prefixes=[str(from_netaddr(block)) for block in found],
    )
