"""Other programs make routes and rules of every form that ``ip`` can make; apply, watcher and beacon go on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from saltext_wgmesh.core import constants
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.reporting import events, facts
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import service
from tests.functional.test_watcher import running_pid
from tests.lab.wait import wait_until
from tests.nodeviews import NETWORKS, relay

TABLE = constants.trunk_table("wg0")
ROUTES = [
    "route add blackhole 10.1.0.0/16 proto 87",
    f"route add prohibit 10.2.0.0/16 table {TABLE} proto 87",
    "route add throw 10.3.0.0/16 table 7 proto 87",
    "route add 10.4.0.0/16 proto 87 nexthop dev eth0 nexthop via 192.0.2.7 dev eth0",
    "route add 10.5.0.0/16 dev eth0 metric 5 proto 87",
    "route add 10.6.0.0/16 tos 4 dev eth0 proto 87",
    "route add 10.7.0.0/16 via inet6 fe80::3 dev eth0 proto 87",
    "route add 10.8.0.0/16 dev wg0-t2 metric 9 proto 87",
    "route add local 10.9.0.1 dev lo proto 87",
    "route add default dev eth0 metric 70 proto 87",
    "route add 10.10.0.0/16 dev eth0 table vpn proto mesh",
    "-6 route add blackhole fd01::/64 proto 87",
    "-6 route add prohibit default metric 4000 proto 87",
    "-6 route add fd02::/64 from fd00::/16 dev eth0 proto 87",
]
RULES = [
    "not from 10.0.0.0/8 iif wg0-t2 lookup 7",
    "iif wg0-t2 lookup main",
    "iif wg0-t2 lookup vpn",
    "iif wg0-t2 fwmark 1/3 goto 32766",
    "iif wg0-t2 blackhole",
    f"iif wg0-t2 ipproto udp sport 5 uidrange 3-5 lookup {TABLE}",
    "from 10.1.0.0/16 lookup 7",
]


@pytest.fixture
def node(watchers, tmp_path, outside):
    """Apply a relay's view, on a node where an administrator has named its table and protocol."""
    for name, line in (("rt_tables", f"{TABLE} trunks\n77 vpn\n254 main\n"), ("rt_protos", "87 mesh\n2 kernel\n")):
        (tmp_path / name).write_text(line)
        target = next(f for f in (Path("/etc/iproute2"), Path("/usr/share/iproute2")) if (f / name).exists())
        outside("mount", "--bind", str(tmp_path / name), str(target / name))
    keys.ensure(Host())
    apply.apply(Host(), relay())
    assert "lookup trunks" in outside("ip", "rule", "show", "priority", "8700")
    for line in ROUTES:
        # A kernel may lack a form.
        subprocess.run(["ip", *line.split()], check=False, stderr=subprocess.DEVNULL)
    for rule in RULES:
        for family in ("-4", "-6"):
            words = ["ip", family, "rule", "add", *rule.split(), "priority", "8700"]
            subprocess.run(words, check=False, stderr=subprocess.DEVNULL)
    assert len(outside("ip", "route", "show", "table", "all", "proto", "87").splitlines()) > 8


def foreign(outside):
    """Return the routes and rules of other programs, as ``ip`` shows them."""
    shown = outside("ip", "-N", "route", "show", "table", "all", "proto", "87") + outside("ip", "-N", "rule")
    return [line for line in shown.splitlines() if "10.100." not in line and "fd00:64" not in line]


def test_apply_and_beacon_find_nothing_to_change(node, outside):
    """Nothing of other programs is deleted, and nothing of them is taken for a difference."""
    before = foreign(outside)
    assert apply.apply(Host(), relay()).lines == []
    clock = iter(range(0, 10_000, 20))
    source = events.EventSource(lambda: next(clock))
    assert [event for _ in range(4) for event in source.poll(Host()) if event["tag"] == "drift"] == []
    assert facts.underlay(Host())
    assert foreign(outside) == before


def test_watcher_restores_own_routes_and_rules(node, watchers, outside):
    """It stays the same process, and leaves what others made."""
    service.ensure_running(Host())
    pid, before = running_pid(), foreign(outside)
    show = ("ip", "route", "show", NETWORKS[0], "table", str(TABLE))
    outside("ip", "route", "del", NETWORKS[0], "table", str(TABLE), "proto", "87")
    wait_until(lambda: outside(*show), 20, "the route to be back")
    own = ("iif", "wg0-t2", "lookup", str(TABLE), "priority", "8700")
    outside("ip", "rule", "del", *own)
    wait_until(lambda: outside("ip", "rule").count("from all iif wg0-t2 lookup trunks\n"), 20, "the rule to be back")
    assert running_pid() == pid
    assert foreign(outside) == before or sorted(foreign(outside)) == sorted(before)
