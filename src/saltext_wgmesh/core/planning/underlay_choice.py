"""The underlay addresses at which one node may reach another one, the best first.

One private address may be on many hosts. An address means its owner to a node only if the node neither has the address
nor a network of its own around it, such as one of containers.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from ipaddress import ip_address, ip_network

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Member

Spans = tuple[tuple[int, int, int], ...]
"""Family, first and last address of prefixes that do not overlap, sorted."""


def usable_addresses(opener: Member, target: Member) -> list[str]:
    """Return the addresses of *target* that may mean it to *opener*, the best first, else in the order of *target*.

    The best are in a network that both nodes are in. At two sites, equal networks are rather two networks: there the
    addresses in such a network come last.
    """
    near = 0 if opener.site == target.site else 2
    found = [a for a in target.underlay if _may_mean(a, opener, target)]
    return sorted(found, key=lambda a: near if _is_in_shared_lan(a, opener, target) else 1)


def _may_mean(address: str, opener: Member, target: Member) -> bool:
    if address in opener.underlay or (opener.families and address_family(address) not in opener.families):
        return False
    if target.lans is not None and not _is_in(address, target.lans):
        return False
    # The opener would look for the address in its own containers or in its VPN.
    return opener.lans is None or _is_in(address, opener.lans) or not _is_in(address, opener.networks)


def _is_in_shared_lan(address: str, opener: Member, target: Member) -> bool:
    own = (a for a in opener.underlay if address_family(a) == address_family(address))
    return _is_in(address, _lans(opener)) and any(_is_in(a, _lans(target)) for a in own)


def _lans(member: Member) -> tuple[str, ...]:
    return member.networks if member.lans is None else member.lans


def _is_in(address: str, prefixes: tuple[str, ...]) -> bool:
    version, number = _parsed(address)
    spans = _spans(prefixes)
    index = bisect_right(spans, (version, number, 1 << 128)) - 1
    return index >= 0 and spans[index][0] == version and number <= spans[index][2]


@lru_cache(maxsize=65536)
def _parsed(address: str) -> tuple[int, int]:
    found = ip_address(address)
    return found.version, int(found)


@lru_cache(maxsize=65536)
def _spans(prefixes: tuple[str, ...]) -> Spans:
    """Return the spans of *prefixes*, without those within others. It is cached: each pair of nodes asks for it."""
    spans: list[tuple[int, int, int]] = []
    for text in prefixes:
        network = ip_network(text)
        spans.append((network.version, int(network.network_address), int(network.broadcast_address)))
    kept: list[tuple[int, int, int]] = []
    for span in sorted(spans, key=lambda s: (s[0], s[1], -s[2])):
        if not kept or kept[-1][0] != span[0] or kept[-1][2] < span[1]:
            kept.append(span)
    return tuple(kept)
