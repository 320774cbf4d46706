"""Addresses and prefixes as canonical strings: their family, and the host prefix of an address."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address


def address_family(address: str) -> int:
    """Return 4 or 6, the family of a canonical *address* or prefix."""
    return 6 if ":" in address else 4


def read_addresses(stored: Iterable[str]) -> tuple[str, ...]:
    """Return *stored*, bare addresses of a record that may be damaged. ValueError if one of them is none."""
    found = tuple(stored)
    for address in found:
        ip_address(address)
    return found


def first_of_each_family(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the first address of each family, in the order of *addresses*."""
    found: dict[int, str] = {}
    for address in addresses:
        found.setdefault(address_family(address), address)
    return tuple(found.values())


def host_prefixes(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return each bare address as a prefix of its full length, in the same order."""
    # Planning calls this for each address several times: a call of ``address_family`` would double its time.
    return tuple([f"{a}/128" if ":" in a else f"{a}/32" for a in addresses])
