"""The family of an address, and its host prefix."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.model.addresses import address_family, host_prefixes


@given(st.ip_addresses())
def test_address_family_any_address_is_its_version(address) -> None:
    """The family agrees with ``ipaddress``, for the address and for its host prefix."""
    assert address_family(str(address)) == address.version
    assert address_family(str(ip_network(address))) == address.version


@given(st.lists(st.ip_addresses().map(str), max_size=4))
def test_host_prefixes_any_addresses_keep_their_order(addresses) -> None:
    """Each address becomes the network that holds it alone."""
    assert host_prefixes(addresses) == tuple(str(ip_network(ip_address(a))) for a in addresses)
