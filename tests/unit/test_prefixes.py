"""prefixes: overlaps are found as by comparing each with each, only faster."""

from __future__ import annotations

import time
from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.prefixes import Claim, PrefixSet, Use, contains, overlap, overlaps
from saltext_wgmesh.core.types import Network


def short(start: int, length: int) -> Network:
    """One of the 31 prefixes within 10.0.0.0/28."""
    return IPv4Network((0x0A000000 + start, length), strict=False)


PREFIXES = st.builds(short, st.integers(0, 15), st.integers(28, 32)) | st.sampled_from(
    [IPv6Network("::a00:0/124"), IPv6Network("::a00:5/128")]
)


def claim(prefix: Network, number: int, use: Use = Use.SUBNET) -> Claim:
    return Claim(prefix=prefix, use=use, mesh=f"wg{number}", path=str(number))


@settings(max_examples=200, deadline=None)
@given(prefixes=st.lists(PREFIXES, max_size=8))
def test_every_overlap_is_found_once(prefixes: list[Network]) -> None:
    """Each two claims of different meshes that overlap come up together, the wider or earlier first."""
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


def test_equal_claims_stand_for_each_other() -> None:
    """A thousand gateways of one subnet give no million pairs: each comes up against the first."""
    subnet = ip_network("192.168.7.0/24")
    claims = [Claim(prefix=subnet, use=Use.SUBNET, mesh="wg0", path=f"{n:04}") for n in range(1000)]
    pairs = list(overlaps(claims))
    assert len(pairs) == 999
    assert {wider.path for wider, _ in pairs} == {"0000"}


def test_of_equal_prefixes_the_network_is_the_wider() -> None:
    """Whatever their order, an endpoint comes up as what is inside."""
    prefix = ip_network("192.168.7.1/32")
    (pair,) = overlaps([claim(prefix, 1, Use.ENDPOINT), claim(prefix, 2, Use.NETWORK)])
    assert [c.use for c in pair] == [Use.NETWORK, Use.ENDPOINT]


@settings(max_examples=300, deadline=None)
@given(prefixes=st.lists(PREFIXES, max_size=8), asked=PREFIXES)
def test_a_set_knows_what_a_prefix_touches(prefixes: list[Network], asked: Network) -> None:
    """Those that share an address with it, of its family, in order."""
    apart: list[Network] = []
    for prefix in prefixes:
        if not any(overlap(prefix, other) for other in apart):
            apart.append(prefix)
    ordered = sorted(apart, key=lambda p: (p.version, int(p.network_address)))
    assert PrefixSet.of(apart).touched_by(asked) == [p for p in ordered if overlap(p, asked)]


def test_ten_thousand_prefixes_are_no_trouble() -> None:
    """The time grows with the number of claims, not with that of pairs: comparing each with each takes a minute."""
    claims = [claim(IPv4Network((0x0A000000 + n * 256, 24)), n) for n in range(10_000)]
    start = time.perf_counter()
    assert list(overlaps(claims)) == []
    assert time.perf_counter() - start < 10
