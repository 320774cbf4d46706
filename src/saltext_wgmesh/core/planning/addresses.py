"""Overlay addresses: explicit, else as allocated before, else hashed into the free ranges.

A node keeps its address when other nodes join or leave: the allocations keep it, even while the node is away. Each
family is assigned separately, so that a second network leaves the addresses of the first as they are.

netaddr's ``IPSet`` computes the free ranges, once a plan. Single addresses are assigned by arithmetic on numbers:
``IPSet.remove`` rebuilds the set for each address, so its time would grow with the square of the number of nodes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address
from itertools import accumulate
from types import MappingProxyType
from typing import Literal

from netaddr import IPAddress, IPNetwork, IPRange, IPSet

from saltext_wgmesh.core.errors import Problem
from saltext_wgmesh.core.inputs.prefixes import to_netaddr
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import AddressRange, MeshPolicy, NodeRule

MAX_CACHED = 2**16
"""Addresses whose numbers are remembered: those of 32,000 nodes with two families."""
_HASHED_TRIES = 16
"""Tries by hash before the pool is searched in order: with 60 % of it taken, one node in 3,500 needs the search."""

_BEYOND = 1 << 128
"""More than any address."""

Span = tuple[int, int]
"""First and last address, as numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """One family of one mesh while its addresses are assigned: *taken* and the pools change with each address."""

    mesh: MeshPolicy
    network: IPNetwork
    explicit: dict[str, str]
    """Node → its explicit address; also of nodes that have a rule of their own and no facts yet."""
    allocated: dict[str, str]
    """Node → its address in the allocations, if the network still contains that."""
    taken: set[int]
    """Addresses that no other node may get, as numbers."""
    pools: dict[str | None, tuple[_Pool, ...]]
    """Site → the pools of its nodes, in order; None: all other nodes."""


@dataclass(slots=True, kw_only=True)
class _Pool:
    """Addresses to assign: spans laid end to end, numbered from 0."""

    text: str
    spans: list[Span]
    """In order."""
    starts: list[int]
    """The number of the first address of each span."""
    size: int
    free: int
    """The number of addresses that no node has yet."""

    def at(self, index: int) -> int:
        """Return the address with that number."""
        i = bisect_right(self.starts, index) - 1
        return self.spans[i][0] + index - self.starts[i]


def assign_addresses(
    mesh: MeshPolicy, nodes: Mapping[str, NodeRule], allocations: Allocations
) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """Return the overlay addresses of *nodes* (node → its rule), IPv4 first, and the problems found.

    Each node gets, in each family, the first of these that exists:

    1. the explicit address of its rule;
    2. the first of its addresses in the allocations that the network still contains;
    3. a free address: from the blocks of its site, else from the network outside all blocks, else from the network.

    The explicit addresses of all rules and all allocated addresses are taken, also those of nodes that left. A free
    address is never a network address, a broadcast address, or in a ``reserved`` range. Explicit addresses may be
    reserved ones: the operator assigns the addresses of such a range. An allocated address stays when its range is
    reserved later, since renumbering a node breaks its connections; ``reserved_in_use`` lists these. The same nodes and
    allocations give the same addresses in any order.
    """
    found: dict[str, tuple[str, ...]] = dict.fromkeys(sorted(nodes), ())
    problems: list[Problem] = []
    # IPv4 comes first in every view: a node's first address is the one that neighbours probe.
    for network in sorted(mesh.networks, key=lambda n: n.version):
        family = _family(mesh, to_netaddr(network), nodes, allocations)
        problems += _conflicts(family)
        for node in found:
            address = family.explicit.get(node) or family.allocated.get(node)
            if address is None:
                address = _draw(family, node, nodes[node].site)
            if address is None:
                problems.append(_exhausted(family, node, nodes[node].site))
            else:
                found[node] = (*found[node], address)
    return found, problems


def updated_addresses(
    allocations: Allocations,
    assigned: Mapping[str, tuple[str, ...]],
    in_use: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> dict[str, tuple[str, ...]]:
    """Return the addresses of *allocations* after *assigned*.

    Addresses of other nodes stay, and so does an address of a family that the mesh no longer has. A node's former
    addresses follow the assigned ones while they are *in_use*, so that no other node gets them.
    """
    updated = dict(allocations.addresses)
    for node, addresses in assigned.items():
        old, own = updated.get(node, ()), in_use.get(node, addresses)
        if old != addresses or own != addresses:
            families = {address_family(a): a for a in (*reversed(old), *addresses)}
            first = tuple(families[v] for v in sorted(families))
            updated[node] = (*first, *(a for a in own if a not in first))
    return dict(sorted(updated.items()))


def reserved_in_use(mesh: MeshPolicy, assigned: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """Return a problem for each address of *assigned* in a ``reserved`` range that no rule gives to the node.

    The node got the address before the range was reserved. The operator decides when to renumber it.
    """
    explicit = {(rule.pattern, str(a)) for rule in mesh.nodes for a in rule.addresses}
    ranges = [(r.first.version, int(r.first), int(r.last), str(r)) for r in _reserved(mesh)]
    found = []
    for node, addresses in sorted(assigned.items()) if ranges else ():
        for address in addresses:
            version, value = address_family(address), address_number(address)
            reserved = next((text for v, first, last, text in ranges if v == version and first <= value <= last), None)
            if reserved and (node, address) not in explicit:
                message = f"it keeps {address}, which is in the reserved range {reserved}"
                remedy = "write this or another one as its address, or take it out of reserved"
                found.append(Problem(path=f"node {node}", message=message, remedy=remedy))
    return found


@lru_cache(maxsize=MAX_CACHED)
def address_number(address: str) -> int:
    """Return a canonical address as a number. A plan reads each address several times.

    IPv4 is read by hand, since every address of every plan is: the libraries take several times as long.
    """
    if address_family(address) == 6:
        return int(IPv6Address(address))
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


def address_text(version: int, value: int) -> str:
    """Return a number as a canonical address."""
    if version == 6:
        return str(IPv6Address(value))
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def _family(mesh: MeshPolicy, network: IPNetwork, nodes: Mapping[str, NodeRule], allocations: Allocations) -> _Family:
    """Return the family with every address that is taken in it, and its pools."""
    rules = {r.pattern: r for r in mesh.nodes} | dict(nodes)
    explicit = {node: str(a) for node, rule in rules.items() for a in rule.addresses if a.version == network.version}
    first, last = network.first, network.last
    allocated: dict[str, str] = {}
    # All rules count, also those of nodes without a key: the operator has given these addresses away already.
    taken = {address_number(a) for a in explicit.values()}
    for node, addresses in allocations.addresses.items():
        for address in addresses:
            if address_family(address) == network.version:
                value = address_number(address)
                if first <= value <= last:
                    taken.add(value)
                    if node not in explicit:
                        allocated.setdefault(node, address)
    pools = _pools(mesh, network, taken)
    return _Family(mesh=mesh, network=network, explicit=explicit, allocated=allocated, taken=taken, pools=pools)


def _pools(mesh: MeshPolicy, network: IPNetwork, taken: Set[int]) -> dict[str | None, tuple[_Pool, ...]]:
    """Return the pools of each site with blocks of this family, and under None those of all other nodes."""
    version = network.version
    sites = mesh.sites.values()
    blocks = {site.name: [to_netaddr(n) for n in site.networks if n.version == version] for site in sites}
    reserved = [(int(r.first), int(r.last)) for r in _reserved(mesh) if r.first.version == version]
    whole = _hosts(network)
    of_sites = [(block.first, block.last) for named in blocks.values() for block in named]
    # Other nodes get addresses of blocks only when no others are left, so that one prefix routes a site.
    outside = [_pool([network], _without(version, [whole], [*of_sites, *reserved]), taken)] if of_sites else []
    pools: dict[str | None, tuple[_Pool, ...]] = {
        None: (*outside, _pool([network], _without(version, [whole], reserved), taken))
    }
    for name, named in blocks.items():
        if named:
            spans = [_clip(_hosts(block), whole) for block in named]
            pools[name] = (_pool(named, _without(version, spans, reserved), taken),)
    return pools


def _pool(networks: Sequence[IPNetwork], spans: list[Span], taken: Set[int]) -> _Pool:
    """Return the pool of *spans*, which messages name by its *networks*."""
    *starts, size = accumulate((last - first + 1 for first, last in spans), initial=0)
    used = sum(1 for address in taken if _holds(spans, address))
    return _Pool(text=", ".join(str(n) for n in networks), spans=spans, starts=starts, size=size, free=size - used)


def _holds(spans: Sequence[Span], address: int) -> bool:
    """Whether one of *spans*, which are in order, has the address."""
    i = bisect_right(spans, (address, _BEYOND)) - 1
    return i >= 0 and address <= spans[i][1]


def _reserved(mesh: MeshPolicy) -> list[AddressRange]:
    """Return all reserved ranges of the mesh and its sites: a site's range is closed to nodes of other sites too."""
    return [*mesh.reserved, *(r for site in mesh.sites.values() for r in site.reserved)]


def _hosts(network: IPNetwork) -> Span:
    """Return the span without network and broadcast address (RFC 3021: a /31 has neither; IPv6 has no broadcast)."""
    first, last = network.first, network.last
    if network.size < 4:
        return first, last
    return first + 1, last - (network.version == 4)


def _clip(span: Span, within: Span) -> Span:
    return max(span[0], within[0]), min(span[1], within[1])


def _without(version: Literal[4, 6], spans: Sequence[Span], closed: Iterable[Span]) -> list[Span]:
    """Return the parts of *spans* that are in none of the *closed* ones, in order."""
    own = [s for s in spans if s[0] <= s[1]]
    # Hundreds of sites may have a pool each, and most have no reserved range. A set takes 100 times as long.
    closed = [c for c in closed if any(c[0] <= s[1] and s[0] <= c[1] for s in own)]
    if not closed:
        return sorted(own)
    free = _set(version, own) - _set(version, closed)
    return [(left.first, left.last) for left in free.iter_ipranges()]


def _set(version: Literal[4, 6], spans: Iterable[Span]) -> IPSet:
    return IPSet([IPRange(IPAddress(first, version), IPAddress(last, version)) for first, last in spans])


def _draw(family: _Family, node: str, site: str | None) -> str | None:
    """Take and return a free address for *node*; None if its pools are full."""
    version = family.network.version
    pools = family.pools.get(site) or family.pools[None]
    for pool in pools:
        if pool.free <= 0:
            continue
        value = _probe(family, pool, node)
        family.taken.add(value)
        # A site's block is a part of the whole network, so an address may be in several pools.
        for other in {id(p): p for named in family.pools.values() for p in named}.values():
            other.free -= _holds(other.spans, value)
        return address_text(version, value)
    return None


def _probe(family: _Family, pool: _Pool, node: str) -> int:
    """Return the first free address on the node's own path through *pool*, which must have one.

    The path depends only on the node's name, so that a fleet that loses its allocations gets the same addresses again.
    """
    index = 0
    for attempt in range(_HASHED_TRIES):
        seed = f"{family.mesh.name}\0{family.network.version}\0{node}\0{attempt}".encode()
        index = int.from_bytes(blake2b(seed, digest_size=16).digest(), "big") % pool.size
        value = pool.at(index)
        if value not in family.taken:
            return value
    # In a nearly full pool a hash rarely meets a free address. Stepping on finds one for certain.
    while (value := pool.at(index)) in family.taken:
        index = (index + 1) % pool.size
    return value


def _conflicts(family: _Family) -> list[Problem]:
    """Return a problem for each explicit address that is allocated to another node."""
    owner = {address_number(a): node for node, a in family.allocated.items()}
    problems = []
    for node, address in sorted(family.explicit.items()):
        other = owner.get(address_number(address))
        if other is not None:
            problems.append(
                Problem(
                    path=f"wgmesh:{family.mesh.name}:nodes:{node}:address",
                    message=f"{address} belongs to node {other}",
                    remedy=f"choose a free address, or give {other} an explicit address of its own",
                )
            )
    return problems


def _exhausted(family: _Family, node: str, site: str | None) -> Problem:
    site_pools = None if site is None else family.pools.get(site)
    reserved = " outside its reserved ranges" if _reserved(family.mesh) else ""
    where = (
        f"the blocks of site {site} ({site_pools[-1].text}) have" if site_pools else f"the network {family.network} has"
    )
    return Problem(path=f"node {node}", message=f"{where} no free address left{reserved}", remedy="choose a wider one")


def prefix_key(prefix: str) -> tuple[int, int, int]:
    """Return the key that sorts prefixes by family, address and length."""
    address, _, length = prefix.partition("/")
    return address_family(address), address_number(address), int(length)
