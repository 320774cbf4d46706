"""IP addresses and prefixes: read strictly, and tested for overlap in n log n steps."""

from __future__ import annotations

import enum
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from saltext_wgmesh.core.fields import Wrong, shown, text
from saltext_wgmesh.core.types import Address, Network

_LONGEST_ADDRESS = 45
_PREFIX = re.compile(r"([0-9A-Fa-f:.]{2,45})/([0-9]{1,3})")
_SPECIAL = tuple(
    ip_network(n)
    for n in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::/127", "fe80::/10", "ff00::/8")
)
"""This host, loopback, link-local and multicast (RFC 6890): never routed, so never a mesh's or a subnet's."""


def address(value: object) -> Address:
    """The address that *value* spells; Wrong for anything else, a zone (``%eth0``) or a prefix length included."""
    word = text(value)
    if "/" in word:
        raise Wrong(f"{shown(word)} is not a bare IP address", "write it without a prefix length")
    try:
        found = ip_address(word) if len(word) <= _LONGEST_ADDRESS and "%" not in word else None
    except ValueError:
        found = None
    if found is None:
        raise Wrong(f"{shown(word)} is not an IP address", "write one such as 10.100.0.1 or fd00:64::1")
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        raise Wrong(f"{shown(word)} is an IPv4 address in IPv6 form", f"write {found.ipv4_mapped}")
    return found


def network(value: object) -> Network:
    """The prefix that *value* spells: with its length, no host bits set, and not the default route."""
    word = text(value)
    match = _PREFIX.fullmatch(word)
    if not match:
        raise Wrong(f"{shown(word)} is not a prefix", "write one such as 10.100.0.0/16 or fd00:64::/64")
    try:
        found = ip_network(word, strict=False)
    except ValueError:
        raise Wrong(f"{shown(word)} is not a prefix", "write one such as 10.100.0.0/16 or fd00:64::/64") from None
    if found.prefixlen == 0:
        raise Wrong(f"{shown(word)} is the default route", "name the prefixes that are meant")
    if ip_address(match[1]) != found.network_address:
        raise Wrong(f"{shown(word)} has host bits set", f"write {found}")
    return found


def routable_network(value: object) -> Network:
    """A prefix, as ``network``, that touches no loopback, link-local or multicast range."""
    found = network(value)
    special = next((s for s in _SPECIAL if overlap(s, found)), None)
    if special:
        raise Wrong(f"{found} touches {special}, which is never routed", "choose another prefix")
    return found


def is_local(prefix: Address | Network) -> bool:
    """Whether it is link-local, loopback or multicast: of no meaning outside the node or its wire."""
    return prefix.is_link_local or prefix.is_loopback or prefix.is_multicast


def host_network(host: Address) -> Network:
    """The prefix that holds this one address."""
    return IPv4Network(host) if isinstance(host, IPv4Address) else IPv6Network(host)


def contains(wider: Network, narrower: Network) -> bool:
    """Whether every address of *narrower* is in *wider*."""
    return overlap(wider, narrower) and wider.prefixlen <= narrower.prefixlen


def overlap(a: Network, b: Network) -> bool:
    """Whether they share an address; families share none."""
    if isinstance(a, IPv4Network):
        return isinstance(b, IPv4Network) and a.overlaps(b)
    return isinstance(b, IPv6Network) and a.overlaps(b)


def _span(prefix: Network) -> tuple[int, int, int]:
    """Family, first and last address as numbers."""
    return prefix.version, int(prefix.network_address), int(prefix.broadcast_address)


class Use(enum.IntEnum):
    """What a range of addresses is wanted for."""

    NETWORK = 1
    """The network of a mesh."""
    SUBNET = 2
    """A subnet behind a node."""
    BLOCK = 3
    """The part of a mesh's network that belongs to a site."""
    ENDPOINT = 4
    """A host of the underlay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An entry of the policy that wants a range of addresses."""

    prefix: Network
    use: Use
    mesh: str
    path: str


def overlaps(claims: Iterable[Claim]) -> Iterator[tuple[Claim, Claim]]:
    """Each claim with the claims that hold it: (wider, narrower); of equal prefixes, the earlier is the wider.

    Claims of one mesh to one prefix for one use stand for each other: only the first comes up as the wider.
    """
    holding: list[Claim] = []
    for claim in sorted(claims, key=lambda c: (c.prefix.version, c.prefix.network_address, c.prefix.prefixlen, c.use)):
        while holding and not contains(holding[-1].prefix, claim.prefix):
            holding.pop()
        yield from ((wider, claim) for wider in holding)
        if not any((w.prefix, w.use, w.mesh) == (claim.prefix, claim.use, claim.mesh) for w in holding):
            holding.append(claim)


@dataclass(frozen=True, slots=True)
class PrefixSet:
    """Prefixes that don't overlap each other, ready to be asked which of them another prefix touches."""

    prefixes: tuple[Network, ...]
    _spans: tuple[tuple[int, int, int], ...] = field(repr=False)

    @classmethod
    def of(cls, prefixes: Iterable[Network]) -> PrefixSet:
        """The set of these; equal ones count once."""
        ordered = sorted(set(prefixes), key=_span)
        return cls(tuple(ordered), tuple(_span(p) for p in ordered))

    def touched_by(self, prefix: Network) -> list[Network]:
        """Those that share an address with *prefix*, in order."""
        version, first, last = _span(prefix)
        end = bisect_right(self._spans, (version, last, 1 << 128))
        start = end
        while start and self._spans[start - 1][0] == version and self._spans[start - 1][2] >= first:
            start -= 1
        return list(self.prefixes[start:end])
