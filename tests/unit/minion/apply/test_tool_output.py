"""Whatever a tool prints on a node, the beacon goes on, and an apply fails with an error that its callers handle."""

from __future__ import annotations

import itertools
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.reporting import events, facts
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.watcher.relay_check import RelayCheck
from tests.nodeviews import relay
from tests.unit.harness.fakehost import Kernel, MisprintingHost, with_ipv6

FOREIGN = [
    {"type": "blackhole", "dst": "10.1.0.0/16"},
    {"dst": "10.2.0.0/16", "dev": "eth0", "table": "vpn"},
    {"dst": "10.3.0.0/16", "nexthops": []},
    {"priority": 8700, "src": "all", "iif": "wg0-t2", "action": "blackhole"},
    {"ifname": "\x1b[2J", "flags": None},
    {"chain": {"hook": "forward", "policy": "drop", "family": "ip", "table": 7, "name": None}},
    7,
    None,
]
OUTPUTS = (
    st.binary(max_size=40).map(lambda data: data.decode(errors="replace"))
    | st.sampled_from(["", "[", "null", "{}", "[" * 9999, f"[{'9' * 5000}]", "wg0\tx", "\t" * 8, "\t" * 4])
    | st.lists(st.sampled_from(FOREIGN), max_size=5).map(json.dumps)
    | st.lists(st.sampled_from(FOREIGN), max_size=5).map(lambda entries: json.dumps({"nftables": entries}))
)
TOOLS = st.sampled_from(["address", "route", "rule", "dump", "nft"])


@given(st.dictionaries(TOOLS, OUTPUTS, min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
def test_no_output_ends_beacon_or_check(tmp_path, printed):
    """An apply, the facts and the checks raise a HostError at most."""
    host = MisprintingHost.below(tmp_path, Kernel(sysctls=with_ipv6()))
    keys.ensure(host)
    apply.apply(host, relay())
    host.printed.update({"nft": ""} | printed)
    host.kernel.programs.add("nft")
    clock = itertools.count(0, 20)
    source = events.EventSource(lambda: next(clock))
    for _ in range(3):
        source.poll(host)
    for act in (lambda: apply.apply(host, relay()), lambda: apply.reroute(host, relay()), lambda: facts.underlay(host)):
        try:
            act()
        except HostError:
            continue
    RelayCheck(host).check("wg0", relay())
    host.printed.clear()
    host.kernel.programs.clear()
    apply.apply(host, relay())
