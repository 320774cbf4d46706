"""The endpoint of a direct link is an address that means the other node, and no other host."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.model.policy import Role, Topology
from saltext_wgmesh.core.planning import direct_links
from tests.unit.harness.worlds import mesh

FULL = mesh(topology=Topology.FULL)


def member(node: str, *addresses: str, guests: tuple[str, ...] = (), site: str | None = None, **more) -> Member:
    """Return a leaf with *addresses*, each with its prefix length, and with networks of *guests*."""
    bare = tuple(a.partition("/")[0] for a in addresses)
    lans = tuple(str(ip_interface(a).network) for a in addresses)
    networks = (*lans, *(str(ip_interface(g).network) for g in guests))
    return Member(
        node=node,
        role=Role.LEAF,
        site=site,
        nat=False,
        public_key=node,
        listen_port=51820,
        interface="wg0",
        endpoint=None,
        underlay=bare,
        networks=networks,
        lans=lans,
        addresses=(),
        **more,
    )


def chosen(opener: Member, target: Member, policy=FULL) -> str | None:
    found = direct_links.endpoints_for(policy, opener, target)
    return found[0].host if found else None


def test_network_of_both_is_preferred():
    """An LTE address with the default route stands first, and the LAN that both are in is used."""
    a = member("a", "100.64.0.7/30", "192.168.1.7/24")
    b = member("b", "100.64.0.21/30", "192.168.1.8/24")
    assert chosen(a, b) == "192.168.1.8"
    assert chosen(member("c", "203.0.113.7/24"), b) == "100.64.0.21"


def test_address_of_both_is_never_used():
    """Vagrant gives each host 10.0.2.15; without another address there is no endpoint, and the reason is said."""
    a, b = (member(n, "10.0.2.15/24", f"192.168.56.{i}/24") for i, n in enumerate("ab", 1))
    assert chosen(a, b) == "192.168.56.2"
    a, b = member("a", "10.0.2.15/24"), member("b", "10.0.2.15/24")
    assert chosen(a, b) is None
    assert "are those of b too" in direct_links.direct_link_verdict(FULL, a, b).reason


def test_address_in_network_of_guests_is_not_used():
    """The opener would look for it among its own containers."""
    a = member("a", "192.168.1.7/24", guests=("172.17.0.1/16",))
    b = member("b", "172.17.4.4/24", "10.1.1.1/24")
    assert chosen(a, b) == "10.1.1.1"
    assert chosen(b, a) == "192.168.1.7"


def test_equal_networks_of_two_sites_come_last():
    """Two clouds may have one private network each, with equal numbers."""
    policy = mesh(links=(("a", "b"),))
    a = member("a", "10.0.0.5/16", site="aws")
    b = member("b", "10.0.0.6/16", "198.51.100.6/24", site="gcp")
    assert chosen(a, b, policy) == "198.51.100.6"
    assert chosen(replace(a, site="gcp"), b, policy) == "10.0.0.6"
    assert chosen(b, a, policy) == "10.0.0.5"


def test_facts_of_earlier_version_give_endpoint():
    """Without a list of its LANs, all networks of a node count as such."""
    a = replace(member("a", "172.17.0.1/16", "192.168.1.7/24"), lans=None)
    b = replace(member("b", "172.17.0.1/16", "192.168.1.8/24"), lans=None)
    c = replace(member("c", "192.168.1.9/24"), lans=None)
    assert [chosen(x, y) for x in (a, b, c) for y in (a, b, c) if x is not y] == [
        "192.168.1.8",
        "192.168.1.9",
        "192.168.1.7",
        "192.168.1.9",
        "192.168.1.7",
        "192.168.1.8",
    ]


ADDRESSES = st.builds(
    "10.0.{}.{}/{}".format, st.integers(0, 2), st.integers(1, 6), st.sampled_from([22, 24, 29, 32])
) | st.builds("fd00::{}:{}/{}".format, st.integers(0, 2), st.integers(1, 6), st.sampled_from([64, 112, 128]))
HOSTS = st.tuples(st.lists(ADDRESSES, max_size=4), st.lists(ADDRESSES, max_size=2), st.sampled_from([None, "s"]))


@settings(max_examples=300, deadline=None)
@given(HOSTS, HOSTS)
def test_endpoint_is_one_that_opener_can_mean(one, two):
    """It is the target's, not the opener's, in no network within the opener, and in a shared LAN if there is one."""
    a, b = (member(n, *own, guests=tuple(g), site=s) for n, (own, g, s) in zip("ab", (one, two), strict=True))
    host = chosen(a, b, mesh(links=(("a", "b"),)))

    def usable(address):
        inside = [ip_network(n) for n in (str(ip_interface(g).network) for g in one[1])]
        lans = [ip_network(n) for n in a.lans]
        holds = ip_address(address)
        hidden = any(holds in n for n in inside) and not any(holds in n for n in lans)
        return (
            address not in a.underlay
            and not hidden
            and ((":" in address) in {":" in x for x in a.underlay} or not a.underlay)
        )

    def shared(address):
        mine = any(ip_address(address) in ip_network(n) for n in a.lans)
        return mine and any(
            ip_address(x) in ip_network(n) for x in a.underlay for n in b.lans if (":" in x) == (":" in address)
        )

    found = [x for x in b.underlay if usable(x)]
    assert (host in found) if found else host is None
    if a.site == b.site and any(shared(x) for x in found):
        assert shared(host)
