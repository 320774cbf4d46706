"""An IPv6 endpoint that carries an IPv4 address of no use to other nodes is refused, as that address is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from saltext_wgmesh.core.inputs.converters import InvalidValue
from saltext_wgmesh.core.inputs.endpoints import endpoint
from saltext_wgmesh.core.inputs.facts import _underlay
from saltext_wgmesh.core.inputs.prefixes import embedded_ipv4, special_host_range

SPECIAL = st.sampled_from(["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"]).flatmap(
    lambda prefix: st.ip_addresses(v=4, network=prefix)
)
USUAL = st.ip_addresses(v=4, network="198.51.100.0/24") | st.ip_addresses(v=4, network="203.0.113.0/24")
FORMS = ["nat64", "local /48", "local /56", "local /64", "local /96", "6to4", "teredo", "teredo server"]


def carrying(form: str, host: IPv4Address, rest: int) -> IPv6Address:
    """The address of that *form* that carries *host*; *rest* are other bits, where a form has some."""
    a, b, c, d = host.packed
    octets = {
        "nat64": bytes.fromhex("0064ff9b") + bytes(8) + host.packed,
        "local /48": bytes.fromhex("0064ff9b0001") + bytes([a, b, 0, c, d]) + bytes(5),
        "local /56": bytes.fromhex("0064ff9b0001") + bytes([rest & 255, a, 0, b, c, d]) + bytes(4),
        "local /64": bytes.fromhex("0064ff9b0001") + bytes([rest & 255, rest >> 8 & 255, 0, a, b, c, d]) + bytes(3),
        "local /96": bytes.fromhex("0064ff9b0001") + (rest & (1 << 48) - 1).to_bytes(6, "big") + host.packed,
        "6to4": bytes.fromhex("2002") + host.packed + (rest & (1 << 80) - 1).to_bytes(10, "big"),
        "teredo": bytes.fromhex("20010000c6336401")
        + (rest & 0xFFFFFFFF).to_bytes(4, "big")
        + bytes(255 - o for o in host.packed),
        "teredo server": bytes.fromhex("20010000")
        + host.packed
        + (rest & 0xFFFFFFFF).to_bytes(4, "big")
        + bytes([57, 204, 155, 254]),
    }
    return IPv6Address(octets[form])


@pytest.mark.parametrize("form", FORMS)
@given(host=SPECIAL, rest=st.integers(0, (1 << 128) - 1))
def test_carried_special_address_is_refused(form: str, host: IPv4Address, rest: int) -> None:
    """Both as an endpoint of the policy and as an underlay address that a node publishes."""
    # A shorter prefix would end in zeros as well: no reader can tell which is meant.
    assume(form not in ("local /56", "local /64") or host.packed[3])
    assume(form != "local /96" or int(host) & 0xFFFFFF)
    text = str(carrying(form, host, rest))
    with pytest.raises(InvalidValue, match="can't be reached from other nodes"):
        endpoint(51820)(f"[{text}]:51820")
    assert _underlay([text]) == ()


@pytest.mark.parametrize("form", FORMS)
@given(host=USUAL, rest=st.integers(0, (1 << 128) - 1))
def test_carried_usual_address_is_taken(form: str, host: IPv4Address, rest: int) -> None:
    """A node behind a translator is reached by such an address."""
    assume(host.packed[3])
    found = carrying(form, host, rest)
    assert host in embedded_ipv4(found)
    assert special_host_range(found) is None
    assert endpoint(51820)(f"[{found}]").host == str(found)


@pytest.mark.parametrize("text", ["::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::1", "::", "fe80::1"])
def test_local_ipv6_form_is_refused(text: str) -> None:
    """IPv4-compatible, -mapped and -translated addresses, and those of IPv6 itself."""
    with pytest.raises(InvalidValue):
        endpoint(51820)(text)
