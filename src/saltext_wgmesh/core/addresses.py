"""Overlay addresses: explicit first, else as before, else hashed into the range.

An address that a node has is never taken from it by another's coming or going: the register keeps it, even while
the node is away. Each family is assigned by itself, so that a network added later leaves the other as it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import IPv6Address

from saltext_wgmesh.core.errors import Problem
from saltext_wgmesh.core.types import MeshPolicy, Network, NodeRule, Register

_HASHED_TRIES = 16
"""Tries by hash before the range is walked: at a load of 60 % one node in 3,500 walks."""

Span = tuple[int, int]
"""First and last address, as numbers."""


@dataclass(slots=True, kw_only=True)
class _Family:
    """One family of one mesh while its addresses are given out."""

    mesh: MeshPolicy
    network: Network
    span: Span
    explicit: dict[str, str]
    """Node → its explicit address: members, and literal rules of nodes that are not there yet."""
    held: dict[str, str]
    """Node → the address that the register keeps for it, where the network still holds that."""
    taken: set[int] = field(default_factory=set)
    pools: dict[str | None, tuple[_Pool, ...]] = field(default_factory=dict)
    """Site → the pools that its nodes draw from, in order; None: all other nodes."""


@dataclass(slots=True, kw_only=True)
class _Pool:
    """Addresses to draw from: spans laid end to end, numbered from 0."""

    text: str
    spans: list[Span]
    starts: list[int] = field(default_factory=list)
    size: int = 0
    free: int = 0

    def at(self, index: int) -> int:
        """The address with that number."""
        i = bisect_right(self.starts, index) - 1
        return self.spans[i][0] + index - self.starts[i]

    def holds(self, address: int) -> bool:
        """Whether the address is one of the pool's."""
        return any(first <= address <= last for first, last in self.spans)


def assign(
    mesh: MeshPolicy, nodes: Mapping[str, NodeRule], register: Register
) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """The overlay addresses of *nodes* (node → its rule), IPv4 first, and what stood in the way.

    Explicit ones hold first; else the register's while the network still contains it; else one from the blocks of
    the node's site, or from the network outside all blocks (inside them only when nothing else is left). Taken are
    the explicit addresses of all rules and all that the register holds, also those of nodes that left. Network and
    broadcast addresses are never given out. The same nodes and register give the same addresses in any order.
    """
    found: dict[str, tuple[str, ...]] = dict.fromkeys(sorted(nodes), ())
    problems: list[Problem] = []
    for network in sorted(mesh.networks, key=lambda n: n.version):
        family = _family(mesh, network, nodes, register)
        problems += _conflicts(family)
        for node in found:
            address = family.explicit.get(node) or family.held.get(node)
            if address is None:
                address = _draw(family, node, nodes[node].site)
            if address is None:
                problems.append(_exhausted(family, node, nodes[node].site))
            else:
                found[node] = (*found[node], address)
    return found, problems


def remember(register: Register, assigned: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The register's addresses after *assigned*: others' stay, and so does the address of a family not assigned."""
    kept = dict(register.addresses)
    for node, addresses in assigned.items():
        old = kept.get(node, ())
        if old != addresses:
            families = {_version(a): a for a in (*old, *addresses)}
            kept[node] = tuple(families[v] for v in sorted(families))
    return dict(sorted(kept.items()))


def number(address: str) -> int:
    """A canonical address as a number."""
    if ":" in address:
        return int(IPv6Address(address))
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


def text(version: int, value: int) -> str:
    """A number as a canonical address."""
    if version == 6:
        return str(IPv6Address(value))
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _family(mesh: MeshPolicy, network: Network, nodes: Mapping[str, NodeRule], register: Register) -> _Family:
    """The family with all that is taken in it, and its pools."""
    rules = {r.pattern: r for r in mesh.nodes} | dict(nodes)
    explicit = {node: str(a) for node, rule in rules.items() for a in rule.addresses if a.version == network.version}
    span = (int(network.network_address), int(network.broadcast_address))
    held: dict[str, str] = {}
    taken = {number(a) for a in explicit.values()}
    for node, addresses in register.addresses.items():
        for address in addresses:
            if _version(address) == network.version and node not in explicit:
                value = number(address)
                if span[0] <= value <= span[1]:
                    held[node] = address
                    taken.add(value)
    family = _Family(mesh=mesh, network=network, span=span, explicit=explicit, held=held, taken=taken)
    _make_pools(family)
    return family


def _make_pools(family: _Family) -> None:
    """Afterwards each site with blocks of this family has its pool, and all other nodes have theirs."""
    version = family.network.version
    blocks = {name: [n for n in site.networks if n.version == version] for name, site in family.mesh.sites.items()}
    whole = _usable(family.network)
    outside = _without(whole, sorted(_edges(b) for named in blocks.values() for b in named))
    everyone = [_pool(family, str(family.network), outside)] if outside != [whole] else []
    everyone.append(_pool(family, str(family.network), [whole]))
    family.pools[None] = tuple(everyone)
    for name, named in blocks.items():
        if named:
            spans = [_clip(_usable(b), whole) for b in named]
            family.pools[name] = (_pool(family, ", ".join(str(b) for b in named), [s for s in spans if s[0] <= s[1]]),)


def _pool(family: _Family, label: str, spans: list[Span]) -> _Pool:
    pool = _Pool(text=label, spans=spans)
    for first, last in spans:
        pool.starts.append(pool.size)
        pool.size += last - first + 1
    pool.free = pool.size - sum(1 for a in family.taken if pool.holds(a))
    return pool


def _edges(network: Network) -> Span:
    return int(network.network_address), int(network.broadcast_address)


def _usable(network: Network) -> Span:
    """Without network and broadcast address (RFC 3021: a /31 has neither; IPv6: only the first is reserved)."""
    first, last = _edges(network)
    if network.max_prefixlen - network.prefixlen < 2:
        return first, last
    return first + 1, last - (network.version == 4)


def _clip(span: Span, within: Span) -> Span:
    return max(span[0], within[0]), min(span[1], within[1])


def _without(whole: Span, holes: Iterable[Span]) -> list[Span]:
    """What is left of *whole* outside the sorted *holes*."""
    left: list[Span] = []
    start = whole[0]
    for first, last in holes:
        if start < first:
            left.append((start, min(first - 1, whole[1])))
        start = max(start, last + 1)
    if start <= whole[1]:
        left.append((start, whole[1]))
    return left


def _draw(family: _Family, node: str, site: str | None) -> str | None:
    """A free address for *node*, now taken; None if its pools are full."""
    version = family.network.version
    pools = family.pools.get(site) or family.pools[None]
    for pool in pools:
        if pool.free <= 0:
            continue
        value = _probe(family, pool, node)
        family.taken.add(value)
        for other in {id(p): p for named in family.pools.values() for p in named}.values():
            other.free -= other.holds(value)
        return text(version, value)
    return None


def _probe(family: _Family, pool: _Pool, node: str) -> int:
    """The first free address on the node's own path through a pool that has one."""
    index = 0
    for attempt in range(_HASHED_TRIES):
        seed = f"{family.mesh.name}\0{family.network.version}\0{node}\0{attempt}".encode()
        index = int.from_bytes(blake2b(seed, digest_size=16).digest(), "big") % pool.size
        value = pool.at(index)
        if value not in family.taken:
            return value
    while (value := pool.at(index)) in family.taken:
        index = (index + 1) % pool.size
    return value


def _conflicts(family: _Family) -> list[Problem]:
    """One problem for each explicit address that another node holds."""
    owner = {number(a): node for node, a in family.held.items()}
    problems = []
    for node, address in sorted(family.explicit.items()):
        other = owner.get(number(address))
        if other is not None:
            problems.append(
                Problem(
                    where=f"wgmesh:{family.mesh.name}:nodes:{node}:address",
                    what=f"{address} belongs to node {other}",
                    do=f"choose a free address, or give {other} an explicit address of its own",
                )
            )
    return problems


def _exhausted(family: _Family, node: str, site: str | None) -> Problem:
    own = None if site is None else family.pools.get(site)
    what = f"the blocks of site {site} ({own[-1].text}) have" if own else f"the network {family.network} has"
    return Problem(where=f"node {node}", what=f"{what} no free address left", do="choose a wider one")


def prefix_key(prefix: str) -> tuple[int, int, int]:
    """Sorts prefixes by family, address and length."""
    address, _, length = prefix.partition("/")
    return (6 if ":" in address else 4), number(address), int(length)
