"""IP addresses, prefixes and ranges: read strictly, and compared.

netaddr reads and compares. The results are values of ``ipaddress``, since nodes use the same types and do not load
netaddr. The proof reads the plan with ``ipaddress``, so it finds a mistake that netaddr makes in reading.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netaddr import INET_PTON, AddrFormatError, IPAddress, IPNetwork, IPRange

from saltext_wgmesh.core.inputs.converters import InvalidValue, quoted, text
from saltext_wgmesh.core.model.policy import Address, AddressRange, Network

_PREFIX = re.compile(r"[0-9A-Fa-f:.]{2,45}/[0-9]{1,3}")
"""An address and a length. netaddr alone would also take a netmask, and read a bare address as a host prefix."""
_SPECIAL = tuple(
    IPNetwork(n)
    for n in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/96",
        "::ffff:0:0/96",
        "fe80::/10",
        "ff00::/8",
    )
)
"""This host, loopback, link-local, multicast, broadcast, and IPv4 in IPv6 form (RFC 6890; RFC 4291 section 2.5.5).

They are never routed, so never in a mesh or a subnet. The kernel's tools spell IPv4 in IPv6 form with dots, so that an
apply could not compare it.
"""
_IPV4 = 0xFFFFFFFF
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_IPV4_AT_END = tuple(IPv6Network(n) for n in ("64:ff9b::/96", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96"))
_RANGES = "write an address, a prefix, or the first and the last address as in 10.100.0.10-10.100.0.20"

# --- reading -------------------------------------------------------------------------------------------


def address(value: object) -> Address:
    """Return the address that *value* spells.

    Raises InvalidValue for anything else, such as an address with a zone (``%eth0``) or a prefix length.
    """
    word = text(value)
    if "/" in word:
        raise InvalidValue(f"{quoted(word)} is not a bare IP address", "write it without a prefix length")
    try:
        # Without the flag, netaddr takes 10.1 for 10.0.0.1 in some versions, as inet_aton does.
        found = IPAddress(word, flags=INET_PTON)
    except (AddrFormatError, ValueError):
        raise InvalidValue(
            f"{quoted(word)} is not an IP address", "write one such as 10.100.0.1 or fd00:64::1"
        ) from None
    if found.is_ipv4_mapped():
        raise InvalidValue(f"{quoted(word)} is an IPv4 address in IPv6 form", f"write {found.ipv4()}")
    return IPv4Address(found.value) if found.version == 4 else IPv6Address(found.value)


def network(value: object) -> Network:
    """Return the prefix that *value* spells: with its length, no host bits set, and not the default route.

    Raises InvalidValue for anything else.
    """
    word = text(value)
    try:
        found = IPNetwork(word) if _PREFIX.fullmatch(word) else None
    except (AddrFormatError, ValueError):
        found = None
    if found is None:
        raise InvalidValue(f"{quoted(word)} is not a prefix", "write one such as 10.100.0.0/16 or fd00:64::/64")
    if found.prefixlen == 0:
        raise InvalidValue(f"{quoted(word)} is the default route", "name the prefixes that are meant")
    prefix = from_netaddr(found)
    if found.ip != found.network:
        raise InvalidValue(f"{quoted(word)} has host bits set", f"write {prefix}")
    return prefix


def routable_network(value: object) -> Network:
    """Return the prefix that *value* spells, as ``network``; it touches no loopback, link-local or multicast range.

    Raises InvalidValue for anything else.
    """
    found = network(value)
    special = special_range(found)
    if special:
        raise InvalidValue(f"{found} touches {special}, which is never routed", "choose another prefix")
    return found


def special_range(prefix: Network) -> Network | None:
    """Return the range of special addresses that *prefix* touches; None: all its addresses may be routed."""
    cidr = to_netaddr(prefix)
    return next((from_netaddr(special) for special in _SPECIAL if _touch(special, cidr)), None)


def special_host_range(host: Address) -> Network | None:
    """Return the range of special addresses that *host* is in, or that an IPv4 address within it is in; None if none.

    A translator or a tunnel sends packets to such an IPv6 address on to the IPv4 address, which may be the loopback of
    its own host.
    """
    hosts = (host, *embedded_ipv4(host))
    return next((special for each in hosts if (special := special_range(host_network(each)))), None)


def embedded_ipv4(host: Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that *host* carries; empty for IPv4, and for IPv6 of no transition mechanism.

    NAT64 (RFC 6052 section 2.2, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380), IPv4-mapped, -compatible and -translated
    addresses (RFC 4291 section 2.5.5, RFC 2765).
    """
    if isinstance(host, IPv4Address):
        return ()
    bits = int(host)
    if host in _SIX_TO_FOUR:
        return (IPv4Address(bits >> 80 & _IPV4),)
    if host in _TEREDO:
        # The server, and the client with each bit inverted.
        return IPv4Address(bits >> 64 & _IPV4), IPv4Address(~bits & _IPV4)
    if host in _LOCAL_NAT64:
        return (IPv4Address(_local_nat64(bits)),)
    return (IPv4Address(bits & _IPV4),) if any(host in prefix for prefix in _IPV4_AT_END) else ()


def _local_nat64(bits: int) -> int:
    """Return the IPv4 address that *bits* carry: the translator alone knows the length of its prefix.

    The bits after the IPv4 address are zero (RFC 6052 section 2.2), so the last one that is set shows the length.
    """
    if not bits & (1 << 40) - 1:
        return (bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF
    if not bits & (1 << 32) - 1:
        return (bits >> 64 & 0xFF) << 24 | bits >> 32 & 0xFFFFFF
    return bits & _IPV4 if bits & (1 << 24) - 1 else bits >> 24 & _IPV4


def address_range(value: object) -> AddressRange:
    """Return the range that *value* spells: an address, a prefix, or a first and a last address with ``-`` between.

    Raises InvalidValue for anything else.
    """
    word = text(value)
    if "/" in word:
        prefix = network(word)
        return AddressRange(first=prefix.network_address, last=prefix.broadcast_address)
    begin, dash, end = word.partition("-")
    try:
        first = address(begin.strip())
        last = address(end.strip()) if dash else first
    except InvalidValue:
        raise InvalidValue(f"{quoted(word)} is not a range of addresses", _RANGES) from None
    if first.version != last.version:
        raise InvalidValue(f"{quoted(word)} begins in IPv{first.version} and ends in IPv{last.version}", _RANGES)
    if int(last) < int(first):
        raise InvalidValue(f"{quoted(word)} ends before it begins", f"write {last}-{first}")
    return AddressRange(first=first, last=last)


# --- to netaddr and back -------------------------------------------------------------------------------


def to_netaddr(prefix: Network) -> IPNetwork:
    """Return *prefix* as netaddr has it."""
    return IPNetwork((int(prefix.network_address), prefix.prefixlen), version=prefix.version)


def from_netaddr(cidr: IPNetwork) -> Network:
    """Return *cidr* as ``ipaddress`` has it, without its host bits."""
    network_type = IPv4Network if cidr.version == 4 else IPv6Network
    return network_type((cidr.first, cidr.prefixlen))


def host_network(host: Address) -> Network:
    """Return the prefix that holds this one address."""
    return IPv4Network(host) if isinstance(host, IPv4Address) else IPv6Network(host)


# --- comparing -----------------------------------------------------------------------------------------


def is_local(prefix: Address | Network) -> bool:
    """Whether *prefix* is link-local, loopback or multicast, and so has no meaning for other nodes."""
    return prefix.is_link_local or prefix.is_loopback or prefix.is_multicast


def contains(wider: Network, narrower: Network) -> bool:
    """Whether every address of *narrower* is in *wider*."""
    return to_netaddr(narrower) in to_netaddr(wider)


def contains_range(wider: Network, inner: AddressRange) -> bool:
    """Whether every address of *inner* is in *wider*."""
    return IPRange(str(inner.first), str(inner.last)) in to_netaddr(wider)


def overlap(a: Network, b: Network) -> bool:
    """Whether *a* and *b* share an address; prefixes of different families never do."""
    return _touch(to_netaddr(a), to_netaddr(b))


def _touch(a: IPNetwork, b: IPNetwork) -> bool:
    """Whether both share an address: then one of them contains the other."""
    return a in b or b in a


class ClaimKind(enum.IntEnum):
    """The purpose of a range of addresses in the policy."""

    NETWORK = 1
    """The network of a mesh."""
    SUBNET = 2
    """A subnet behind a node."""
    BLOCK = 3
    """The part of a mesh's network that belongs to a site."""
    ENDPOINT = 4
    """A host of the underlay."""
    FORMER = 5
    """A network that a mesh had, and in which nodes still have addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressClaim:
    """An entry of the policy that needs a range of addresses of its own."""

    prefix: Network
    kind: ClaimKind
    mesh: str
    path: str


def overlaps(claims: Iterable[AddressClaim]) -> Iterator[tuple[AddressClaim, AddressClaim]]:
    """Yield each claim with every claim that contains it, as (wider, narrower).

    If two prefixes are equal, the claim of the lower kind counts as wider, else the earlier one.

    Only the first of several equal claims of one mesh and one kind is yielded as the wider. Otherwise a thousand
    gateways of one subnet would give a million pairs.
    """
    ordered = sorted(((to_netaddr(c.prefix), c) for c in claims), key=lambda pair: _order(*pair))
    # In this order a prefix comes after all that contain it, so these are on the stack.
    containing: list[tuple[IPNetwork, AddressClaim]] = []
    for cidr, claim in ordered:
        while containing and cidr not in containing[-1][0]:
            containing.pop()
        yield from ((wider, claim) for _, wider in containing)
        if not any((w.prefix, w.kind, w.mesh) == (claim.prefix, claim.kind, claim.mesh) for _, w in containing):
            containing.append((cidr, claim))


def _order(cidr: IPNetwork, claim: AddressClaim) -> tuple[int, int, int, ClaimKind]:
    return cidr.version, cidr.first, cidr.prefixlen, claim.kind


@dataclass(frozen=True, slots=True)
class PrefixSet:
    """Prefixes that do not overlap each other, with a fast search for those that another prefix overlaps.

    Each prefix of each node is looked up here. An intersection of netaddr's ``IPSet`` gives the same answer in some
    14 ms for a set of 10,000 prefixes; two searches in a sorted list take microseconds.
    """

    prefixes: tuple[Network, ...]
    _spans: tuple[tuple[int, int, int], ...] = field(repr=False)

    @classmethod
    def of(cls, prefixes: Iterable[Network]) -> PrefixSet:
        """Return the set of *prefixes*; equal ones count once."""
        ordered = sorted(set(prefixes), key=_span)
        return cls(tuple(ordered), tuple(_span(p) for p in ordered))

    def overlapping(self, prefix: Network) -> list[Network]:
        """Return the prefixes that share an address with *prefix*, in order."""
        version, first, last = _span(prefix)
        end = bisect_right(self._spans, (version, last, 1 << 128))
        start = end
        # The prefixes do not overlap each other, so those that overlap *prefix* are neighbours in the list.
        while start and self._spans[start - 1][0] == version and self._spans[start - 1][2] >= first:
            start -= 1
        return list(self.prefixes[start:end])


def _span(prefix: Network) -> tuple[int, int, int]:
    """Return family, first and last address as numbers."""
    return prefix.version, int(prefix.network_address), int(prefix.broadcast_address)
