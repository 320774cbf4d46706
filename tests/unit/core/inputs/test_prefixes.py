"""Addresses and prefixes are read as ``ipaddress`` reads them, and overlaps are found as by comparing all pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from hypothesis import example, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.inputs import prefixes as reading
from saltext_wgmesh.core.inputs.converters import InvalidValue
from saltext_wgmesh.core.inputs.prefixes import AddressClaim, ClaimKind, PrefixSet, contains, overlap, overlaps
from saltext_wgmesh.core.model.policy import Address, Network


def short(start: int, length: int) -> Network:
    """Return one of the 31 prefixes within 10.0.0.0/28."""
    return IPv4Network((0x0A000000 + start, length), strict=False)


PREFIXES = st.builds(short, st.integers(0, 15), st.integers(28, 32)) | st.sampled_from(
    [IPv6Network("::a00:0/124"), IPv6Network("::a00:5/128")]
)


def claim(prefix: Network, number: int, kind: ClaimKind = ClaimKind.SUBNET) -> AddressClaim:
    return AddressClaim(prefix=prefix, kind=kind, mesh=f"wg{number}", path=str(number))


@settings(max_examples=200, deadline=None)
@given(prefixes=st.lists(PREFIXES, max_size=8))
def test_overlapping_claims_are_found_once(prefixes: list[Network]) -> None:
    """Each two claims of different meshes that overlap are yielded together, the wider or earlier first."""
    claims = [claim(prefix, number) for number, prefix in enumerate(prefixes)]
    expected = {
        (wider.path, narrower.path)
        for wider in claims
        for narrower in claims
        if wider is not narrower
        and contains(wider.prefix, narrower.prefix)
        and (wider.prefix != narrower.prefix or int(wider.path) < int(narrower.path))
    }
    found = [(wider.path, narrower.path) for wider, narrower in overlaps(claims)]
    assert sorted(found) == sorted(expected)


def test_equal_claims_are_compared_with_the_first() -> None:
    """A thousand gateways of one subnet give 999 pairs, not a million."""
    subnet = ip_network("192.168.7.0/24")
    claims = [AddressClaim(prefix=subnet, kind=ClaimKind.SUBNET, mesh="wg0", path=f"{n:04}") for n in range(1000)]
    pairs = list(overlaps(claims))
    assert len(pairs) == 999
    assert {wider.path for wider, _ in pairs} == {"0000"}


def test_network_equal_to_endpoint_is_the_wider() -> None:
    """The order of the claims does not matter: the endpoint is the narrower."""
    prefix = ip_network("192.168.7.1/32")
    (pair,) = overlaps([claim(prefix, 1, ClaimKind.ENDPOINT), claim(prefix, 2, ClaimKind.NETWORK)])
    assert [c.kind for c in pair] == [ClaimKind.NETWORK, ClaimKind.ENDPOINT]


@settings(max_examples=300, deadline=None)
@given(prefixes=st.lists(PREFIXES, max_size=8), asked=PREFIXES)
def test_prefix_set_returns_all_overlapping_prefixes(prefixes: list[Network], asked: Network) -> None:
    """The result has the prefixes of the same family that share an address, in order."""
    apart: list[Network] = []
    for prefix in prefixes:
        if not any(overlap(prefix, other) for other in apart):
            apart.append(prefix)
    ordered = sorted(apart, key=lambda p: (p.version, int(p.network_address)))
    assert PrefixSet.of(apart).overlapping(asked) == [p for p in ordered if overlap(p, asked)]


def test_ten_thousand_claims_take_seconds() -> None:
    """The time grows with the number of claims, not of pairs: comparing all pairs takes a minute."""
    claims = [claim(IPv4Network((0x0A000000 + n * 256, 24)), n) for n in range(10_000)]
    start = time.perf_counter()
    assert list(overlaps(claims)) == []
    assert time.perf_counter() - start < 10


# --- reading -------------------------------------------------------------------------------------------

WORDS = st.text("0123456789abcdef:.%/ ", max_size=24) | st.ip_addresses().map(str)
LENGTHS = st.integers(0, 140)


@settings(max_examples=400, deadline=None)
@given(word=WORDS)
@example(word="10.1")
@example(word="010.0.0.1")
@example(word="fe80::1%eth0")
@example(word="::ffff:10.0.0.1")
@example(word="10.0.0.1\0")
@example(word="\ud800")
def test_address_reading_agrees_with_ipaddress(word: str) -> None:
    """The planner accepts the addresses that the proof accepts, except zones and IPv4 in IPv6 form."""
    assert _value_by(reading.address, word) == _value_by(_plain_address, word)


@settings(max_examples=400, deadline=None)
@given(word=st.builds("{}/{}".format, WORDS, LENGTHS) | st.ip_addresses(v=4).map(lambda a: f"{a}/255.0.0.0"))
@example(word="10.0/8")
@example(word="1::/010")
@example(word="10.0.0.0/33")
@example(word="::1.2.3/100")
def test_prefix_reading_agrees_with_ipaddress(word: str) -> None:
    """The planner accepts the same prefixes, except the default route and netmasks in place of a length."""
    assert _value_by(reading.network, word) == _value_by(_plain_network, word)


def _value_by(read: Callable[[object], Address | Network | None], word: str) -> Address | Network | None:
    try:
        return read(word)
    except (InvalidValue, ValueError):
        return None


def _plain_address(word: object) -> Address | None:
    found = ip_address(str(word))
    return None if "%" in str(word) or (isinstance(found, IPv6Address) and found.ipv4_mapped) else found


def _plain_network(word: object) -> Network | None:
    found = ip_network(str(word))
    return None if "%" in str(word) or not found.prefixlen or not str(word).rpartition("/")[2].isdigit() else found
