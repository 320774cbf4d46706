"""Booting a node without Salt: wg-quick brings the interfaces up, in any order, and nothing is left to do."""

import itertools
from pathlib import Path

import pytest

from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system.host import Host
from tests.nodeviews import leaf, peer, relay

RELAY = relay(leaves=(peer(7, endpoint="192.0.2.7:51820", keepalive=25), peer(8)), trunks=(2, 3))
LEAF = leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),))


def power_off(outside, view):
    """Remove everything that a reboot removes. Files stay."""
    for interface in view.interfaces:
        outside("ip", "link", "del", interface.name)
    for family in ("-4", "-6"):
        outside("sh", "-c", f"ip {family} route flush table all proto 87; ip {family} rule del priority 8700; true")
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", key).write_text("0")
    Path("/proc/sys/net/ipv4/conf/all/send_redirects").write_text("1")


@pytest.mark.parametrize(
    ("view", "order"),
    [
        *(
            pytest.param(RELAY, order, id=f"relay: {', '.join(order)}")
            for order in itertools.permutations(("wg0", "wg0-t2", "wg0-t3"))
        ),
        pytest.param(LEAF, ("wg0", "wg0-u1", "wg0-u2"), id="leaf: access interface first"),
        pytest.param(LEAF, ("wg0-u2", "wg0-u1", "wg0"), id="leaf: access interface last"),
    ],
)
def test_boot_files_restore_view_in_any_order(machine, outside, view, order):
    """wg-quick brings up the interfaces in any order after a reboot. An apply then finds nothing to do."""
    host = Host()
    keys.ensure(host)
    apply.apply(host, view)
    power_off(outside, view)
    for name in order:
        outside("wg-quick", "up", name)
    assert apply.apply(host, view).lines == []


def test_interface_comes_down_and_up_again(machine, outside):
    """wg-quick takes an interface down and up again, though the routing rule outlives the interface."""
    host = Host()
    keys.ensure(host)
    apply.apply(host, RELAY)
    for name in ("wg0-t2", "wg0-t2"):
        outside("wg-quick", "down", name)
        outside("wg-quick", "up", name)
    lines = apply.apply(host, RELAY).lines
    assert lines == []


def test_unresolvable_endpoint_costs_no_interface(machine, outside):
    """wg-quick brings up the interface without waiting for the name: at boot there may be no resolver yet."""
    host = Host()
    keys.ensure(host)
    apply.apply(host, leaf(direct=(peer(7, endpoint="localhost:51820"), peer(8)), relays=()))
    path = host.conf_dir / "wg0.conf"
    path.write_text(path.read_text().replace("localhost", "n7.invalid"))
    outside("ip", "link", "del", "wg0")
    outside("wg-quick", "up", "wg0")
    looking_up = outside("pgrep", "-f", "endpoint n7[.]invalid")
    assert len(outside("wg", "show", "wg0", "peers").split()) == 2
    outside("kill", *looking_up.split())


def test_keepalive_starts_handshake_at_boot(machine, outside):
    """A handshake packet leaves at once. The boot file sets the peers, then the key, then the keepalive."""
    host = Host()
    keys.ensure(host)
    view = leaf(relays=(1,))
    apply.apply(host, view)
    outside("ip", "link", "del", "wg0-u1")
    outside("ip", "neigh", "replace", "192.0.2.10", "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent")
    outside("wg-quick", "up", "wg0-u1")
    sent = 0
    for _ in range(50):
        sent = int(outside("wg", "show", "wg0-u1", "transfer").split()[2])
        if sent:
            break
        outside("sleep", "0.1")
    assert sent >= 148
