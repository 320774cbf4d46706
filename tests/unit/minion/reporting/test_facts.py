"""The facts of a node: which addresses it publishes, and in which order."""

from __future__ import annotations

import json
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from saltext_wgmesh.core.inputs.facts_format import MAX_NETWORKS, facts_digest
from saltext_wgmesh.core.inputs.trusted_facts import parse_facts
from saltext_wgmesh.minion.reporting import facts
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Owned, Store
from tests.unit.harness.fakehost import FakeDevice, FakeHost, Kernel, with_ipv6


class Routed(FakeHost):
    """A host with default routes: IPv4 by eth1, then eth0; IPv6 by eth0 with a source of its own."""

    def run(self, *argv: str, text: str = "") -> str:
        if argv == ("ip", "-json", "route", "show", "table", "all", "default"):
            return json.dumps(
                [
                    {"dst": "default", "dev": "eth0", "prefsrc": "2001:db8::2", "pref": "medium"},
                    {"dst": "default", "dev": "eth0", "metric": 200},
                    {"dst": "default", "dev": "eth1"},
                ]
            )
        return super().run(*argv, text=text)


@pytest.fixture
def routed(tmp_path: Path) -> Routed:
    """A node with two uplinks and one interface of a mesh."""
    made = Routed.below(tmp_path, Kernel(sysctls=with_ipv6()))
    keys.ensure(made)
    made.kernel.devices["eth0"] = FakeDevice(
        addresses=["198.51.100.7/24", "2001:db8::1/64", "2001:db8::2/64"], peers=None
    )
    made.kernel.devices["eth1"] = FakeDevice(addresses=["203.0.113.8/25", "203.0.113.7/25"], peers=None)
    made.kernel.devices["lo"] = FakeDevice(addresses=["127.0.0.1/8", "::1/128"], peers=None)
    made.kernel.devices["wg0"] = FakeDevice(addresses=["10.100.0.5/32"])
    Store(host=made, mesh="wg0").set_owned(Owned(interfaces=frozenset({"wg0"})))
    return made


def test_underlay_begins_with_default_sources(routed: Routed) -> None:
    """The best default route's address, the next one's, IPv6's, then the rest by number; none of the mesh's."""
    told = facts.gather(routed, "db1", "aa")
    assert told["underlay"] == ["203.0.113.8", "198.51.100.7", "2001:db8::2", "203.0.113.7", "2001:db8::1"]
    assert told["networks"] == told["lans"] == ["198.51.100.0/24", "203.0.113.0/25", "2001:db8::/64"]
    assert told["ipv6"] is True


def add(host: FakeHost, name: str, *addresses: str, kind: str | None = None, master: str | None = None) -> None:
    """Give the host a device that is no WireGuard."""
    host.kernel.devices[name] = FakeDevice(addresses=list(addresses), peers=None, kind=kind, master=master)


def test_networks_of_busy_proxy_hold_every_address(routed: Routed) -> None:
    """Four hundred addresses of services push no network off the list, and are no endpoints."""
    services = [f"10.96.{n // 200}.{n % 200 * 2 + 1 if n % 200 < 100 else n % 200}" for n in range(400)]
    add(routed, "kube-ipvs0", *(f"{a}/32" for a in services), kind="dummy")
    add(routed, "eth2", "192.168.9.1/24", "192.168.9.2/32", "192.168.8.1/24")
    told = facts.gather(routed, "db1", "aa")
    assert {"198.51.100.0/24", "203.0.113.0/25", "192.168.8.0/23"} <= set(told["networks"])
    assert len(told["networks"]) <= MAX_NETWORKS
    everywhere = [ip_interface(a).ip for d in routed.kernel.devices.values() if d.kind for a in d.addresses]
    assert all(any(a in ip_network(n) for n in told["networks"]) for a in everywhere)
    assert not set(services) & set(told["underlay"])


def test_list_too_long_is_refused_by_master(routed: Routed) -> None:
    """A list that the node must cut is never taken for a whole one."""
    add(routed, "lots", *(f"10.{n // 256}.{n % 256}.1/32" for n in range(MAX_NETWORKS + 500)), kind="dummy")
    told = facts.gather(routed, "db1", "aa")
    assert len(told["networks"]) == MAX_NETWORKS + 1
    (rejected,) = parse_facts({"db1": told}, {"db1": "aa"}).rejected
    assert "more than" in rejected.reason


def test_networks_are_merged_without_loss(routed: Routed) -> None:
    """The list has no prefix within another, and exactly the addresses of the devices' prefixes."""
    add(routed, "eth2", "10.0.0.1/24", "10.0.1.1/24", "10.0.1.9/32", "10.0.2.1/25", "fd00::1/65", "fd00::8000:0:0:1/65")
    told = facts.gather(routed, "db1", "aa")
    assert told["networks"] == [
        "10.0.0.0/23",
        "10.0.2.0/25",
        "198.51.100.0/24",
        "203.0.113.0/25",
        "2001:db8::/64",
        "fd00::/64",
    ]


def test_devices_of_guests_and_vpns_give_no_endpoint(routed: Routed) -> None:
    """Their networks are published, so that a mesh that overlaps them is refused, and their addresses are not."""
    add(routed, "docker0", "172.17.0.1/16", kind="bridge")
    add(routed, "tun0", "10.8.0.2/24", kind="tun")
    add(routed, "br0", "192.168.5.1/24", kind="bridge")
    add(routed, "eth5", master="br0")
    told = facts.gather(routed, "db1", "aa")
    assert {"172.17.0.0/16", "10.8.0.0/24", "192.168.5.0/24"} <= set(told["networks"])
    assert {"172.17.0.1", "10.8.0.2"}.isdisjoint(told["underlay"])
    assert {"172.17.0.0/16", "10.8.0.0/24"}.isdisjoint(told["lans"])
    assert "192.168.5.1" in told["underlay"]
    assert "192.168.5.0/24" in told["lans"]


def test_facts_without_ipv6_say_so(routed: Routed) -> None:
    """A node that disabled IPv6 publishes that."""
    routed.kernel.sysctls["net/ipv6/conf/default/disable_ipv6"] = "1"
    assert facts.gather(routed, "db1", "aa")["ipv6"] is False


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"observed_at": "later", "public_key": "k"}, True),
        ({"public_key": "k"}, True),
        ({"observed_at": "now", "public_key": "other"}, False),
        (None, False),
    ],
)
def test_facts_digest_ignores_time(other: object, same: bool) -> None:
    """The time of the observation alone is no change."""
    now = facts_digest({"observed_at": "now", "public_key": "k"})
    assert (facts_digest(other) == now) is same
