"""The facts of a node: which addresses it publishes, and in which order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saltext_wgmesh.core.inputs.facts_format import facts_digest
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
    made.kernel.devices["wg0"] = FakeDevice(addresses=["10.100.0.5/32"])
    Store(host=made, mesh="wg0").set_owned(Owned(interfaces=frozenset({"wg0"})))
    return made


def test_underlay_begins_with_default_sources(routed: Routed) -> None:
    """The best default route's address, the next one's, IPv6's, then the rest by number; none of the mesh's."""
    told = facts.gather(routed, "db1", "aa")
    assert told["underlay"] == ["203.0.113.8", "198.51.100.7", "2001:db8::2", "203.0.113.7", "2001:db8::1"]
    assert told["networks"] == ["198.51.100.0/24", "203.0.113.0/25", "2001:db8::/64"]
    assert told["ipv6"] is True


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
