"""Apply a view to a node made of values: what a first apply makes, and the fewest changes afterwards."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import apply, removal
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from tests import nodeviews
from tests.nodeviews import key, leaf, peer, relay
from tests.unit.harness.fakehost import FakeHost, FakePeer

HOUR = 3600
ROUTES = "ip -N -json route show table all proto 87"
RULES = [f"ip -N -{family} -json rule show priority 8700" for family in (4, 6)]
ADVERTISED = "ip -6 -json route show default"


def test_leaf_of_two_relays_gets_uplinks(host: FakeHost) -> None:
    """Each interface has the node's addresses and reverse-path setting; routes lead to the first uplink."""
    view = leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),))
    report = apply.apply(host, view)
    assert report.digest == view.digest()
    assert sorted(host.kernel.devices) == ["wg0", "wg0-u1", "wg0-u2"]
    for device in host.kernel.devices.values():
        assert sorted(device.addresses) == ["10.100.0.5/32", "fd00:64::5/128"]
        assert (device.up, device.mtu, device.public_key) == (True, 1420, keys.public_key(host))
    uplink = host.kernel.devices["wg0-u2"].peers[key(2)]
    assert uplink == FakePeer(endpoint="192.0.2.20:51820", keepalive=25, allowed_ips={"10.100.0.0/16", "fd00:64::/64"})
    assert host.kernel.routes == {
        ("main", "10.100.0.0/16"): {"dev": "wg0-u1", "proto": "87", "src": "10.100.0.5"},
        ("main", "fd00:64::/64"): {"dev": "wg0-u1", "proto": "87", "src": "fd00:64::5"},
        ("main", "10.100.0.7/32"): {"dev": "wg0", "proto": "87", "src": "10.100.0.5"},
    }
    assert host.kernel.rules == set()
    assert host.sysctl("net/ipv4/conf/wg0-u1/rp_filter") == "2"
    assert host.sysctl("net/ipv4/conf/wg0-u1/send_redirects") == "0"
    assert host.sysctl("net/ipv4/ip_forward") == "0"


def test_relay_with_trunk_gets_second_table(host: FakeHost) -> None:
    """A relay forwards, sends no redirects, and looks packets from a trunk up in a separate table."""
    apply.apply(host, relay(leaves=(peer(7),)))
    assert host.kernel.rules == {(4, "wg0-t2", "870028683"), (6, "wg0-t2", "870028683")}
    assert host.kernel.routes["870028683", "10.100.0.7/32"]["dev"] == "wg0"
    assert "dev" not in host.kernel.routes["870028683", "10.100.0.0/16"]
    assert host.kernel.routes["main", "10.100.0.0/16"]["dev"] == "wg0-t2"
    assert host.kernel.devices["wg0-t2"].port == 51822
    for setting in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        assert host.sysctl(setting) == "1"
    assert host.sysctl("net/ipv4/conf/all/send_redirects") == "0"


def test_node_without_ipv6_gets_ipv4_only(host: FakeHost) -> None:
    """Where IPv6 is disabled, everything of IPv6 is left out, and nothing fails or differs."""
    host.kernel.sysctls["net/ipv6/conf/all/disable_ipv6"] = "1"
    apply.apply(host, relay(leaves=(peer(7),)))
    assert host.kernel.devices["wg0"].addresses == ["10.100.0.1/32"]
    assert [p for _, p in host.kernel.routes if ":" in p] == []
    assert host.sysctl("net/ipv6/conf/all/forwarding") == "0"
    assert apply.apply(host, relay(leaves=(peer(7),))).lines == []


def test_kernel_without_wireguard_uses_userspace(host: FakeHost) -> None:
    """wireguard-go creates the device if the kernel can't; without either the error says what to install."""
    host.kernel.has_wireguard = False
    with pytest.raises(HostError, match="wireguard-go is not installed"):
        apply.apply(host, leaf(relays=()))
    host.kernel.programs.add("wireguard-go")
    apply.apply(host, leaf(relays=()))
    assert ("wireguard-go", "wg0") in host.kernel.ran


@pytest.mark.parametrize(
    ("view", "commands"),
    [
        (leaf(direct=(peer(7),)), ["ip -json address", "wg show all dump", ROUTES]),
        (relay(trunks=()), ["ip -json address", "wg show all dump", ROUTES, ADVERTISED]),
        (relay(), ["ip -json address", "wg show all dump", ROUTES, *RULES, ADVERTISED]),
    ],
)
def test_unchanged_view_costs_one_snapshot(host: FakeHost, view: View, commands: list[str]) -> None:
    """A run that finds nothing to change reads each thing once, and runs nothing else."""
    apply.apply(host, view)
    host.kernel.ran.clear()
    assert apply.apply(host, view).changed is False
    assert sorted(" ".join(argv) for argv in host.kernel.ran) == sorted(commands)


def test_subnet_moves_to_peer_in_one_step(host: FakeHost) -> None:
    """The peer that gains the subnet is set; the peer that loses it is not, since the kernel moved it already."""
    subnet = "192.168.7.0/24"
    apply.apply(host, leaf(direct=(peer(7, "10.100.0.7/32", subnet), peer(8, "10.100.0.8/32")), relays=()))
    host.kernel.touched.clear()
    report = apply.apply(host, leaf(direct=(peer(7, "10.100.0.7/32"), peer(8, "10.100.0.8/32", subnet)), relays=()))
    assert host.kernel.touched == [("wg0", key(8))]
    assert host.kernel.devices["wg0"].peers[key(7)].allowed_ips == {"10.100.0.7/32"}
    assert "~ wg0 peer n7: allowed-ips 10.100.0.7/32,192.168.7.0/24 -> allowed-ips 10.100.0.7/32" in report.lines


def test_new_path_precedes_removal_of_old(host: FakeHost) -> None:
    """Peers are added, then routes switched, then the old device is removed."""
    apply.apply(host, leaf(relays=(1,), via=1))
    lines = apply.apply(host, leaf(relays=(2,), via=2)).lines
    added = next(i for i, line in enumerate(lines) if line.startswith("+ wg0-u2 peer n2"))
    switched = next(i for i, line in enumerate(lines) if line.startswith("~ routes 10.100.0.0/16"))
    removed = lines.index("- wg0-u1: present")
    assert added < switched < removed


def test_swapped_ports_are_applied_at_once(host: FakeHost) -> None:
    """A port that one interface releases can be another's in the same apply."""
    view = relay(trunks=(1, 2))
    apply.apply(host, view)
    access, first, second = view.interfaces
    swapped = (
        replace(access, listen_port=51822),
        replace(first, listen_port=51820),
        replace(second, listen_port=51821),
    )
    apply.apply(host, replace(view, interfaces=swapped))
    assert [host.kernel.devices[n].port for n in ("wg0", "wg0-t1", "wg0-t2")] == [51822, 51820, 51821]


def test_drift_is_corrected_and_reported(host: FakeHost) -> None:
    """Manual changes are reverted: a peer, an address, a route, a rule, a kernel setting."""
    view = relay(leaves=(peer(7),))
    apply.apply(host, view)
    host.kernel.devices["wg0"].peers["stranger"] = FakePeer(allowed_ips={"10.100.0.66/32"})
    host.kernel.devices["wg0"].addresses += ["10.100.0.66/32"]
    host.kernel.devices["wg0"].mtu = 1400
    del host.kernel.routes["main", "10.100.0.7/32"]
    host.kernel.rules.remove((6, "wg0-t2", "870028683"))
    host.kernel.sysctls["net/ipv4/conf/wg0/rp_filter"] = "1"
    assert apply.apply(host, view).lines == [
        "~ wg0 mtu: 1400 -> 1420",
        "~ sysctl net.ipv4.conf.wg0.rp_filter: 1 -> 2",
        "+ routes 10.100.0.7/32: wg0 from 10.100.0.1",
        "+ rules IPv6 from wg0-t2: table 870028683",
        "- wg0 peer stranger: endpoint none keepalive 0 allowed-ips 10.100.0.66/32 key stranger",
        "- wg0 address: 10.100.0.66/32",
    ]


def with_roamed_peer(host: FakeHost, *, handshake_age: int) -> FakePeer:
    """Apply a view with n7 at 192.0.2.7, and let n7 roam to 198.51.100.1; return its peer."""
    apply.apply(host, leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),), relays=()))
    found = host.kernel.devices["wg0"].peers[key(7)]
    found.endpoint, found.handshake_at = "198.51.100.1:1024", int(time.time()) - handshake_age
    return found


def test_roamed_peer_with_session_keeps_endpoint(host: FakeHost) -> None:
    """A recent handshake proves the endpoint from which the peer sent it."""
    found = with_roamed_peer(host, handshake_age=60)
    assert apply.apply(host, leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),), relays=())).lines == []
    assert found.endpoint == "198.51.100.1:1024"


def test_roamed_peer_without_session_gets_planned_endpoint(host: FakeHost) -> None:
    """Without a handshake for longer than a session lives, the planned endpoint is tried again."""
    found = with_roamed_peer(host, handshake_age=HOUR)
    lines = apply.apply(host, leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),), relays=())).lines
    assert lines == ["~ wg0 peer n7: endpoint 198.51.100.1:1024 -> endpoint 192.0.2.7:51820"]
    assert found.endpoint == "192.0.2.7:51820"


def test_new_planned_endpoint_is_set_at_once(host: FakeHost) -> None:
    """When the plan moves a peer, a recent handshake at the old endpoint does not delay it."""
    found = with_roamed_peer(host, handshake_age=1)
    apply.apply(host, leaf(direct=(peer(7, endpoint="192.0.2.77:51820"),), relays=()))
    assert found.endpoint == "192.0.2.77:51820"


def test_peer_without_planned_endpoint_keeps_its_own(host: FakeHost) -> None:
    """None in the view stands for any endpoint of the peer."""
    found = with_roamed_peer(host, handshake_age=HOUR)
    assert apply.apply(host, leaf(direct=(peer(7),), relays=())).lines != []
    assert found.endpoint == "198.51.100.1:1024"
    assert apply.apply(host, leaf(direct=(peer(7),), relays=())).lines == []


def test_endpoint_name_is_resolved_only_once(host: FakeHost) -> None:
    """A DNS name can't be compared with an address: it is resolved when the peer is made, and then left."""
    view = leaf(direct=(peer(7, endpoint="n7.example.com:51820"), peer(8)), relays=())
    host.kernel.names["n7.example.com:51820"] = "192.0.2.7:51820"
    apply.apply(host, view)
    assert host.kernel.devices["wg0"].peers[key(7)].endpoint == "192.0.2.7:51820"
    host.kernel.devices["wg0"].peers[key(7)].endpoint = "198.51.100.1:1024"
    assert apply.apply(host, view).lines == []


def test_unresolvable_name_delays_nothing_else(host: FakeHost) -> None:
    """Everything else is applied, the error has the name, and the next apply tries again."""
    view = leaf(direct=(peer(7, endpoint="n7.example.com:51820"), peer(8)), relays=(1,))
    with pytest.raises(HostError, match=r"n7\.example\.com"):
        apply.apply(host, view)
    assert ("main", "10.100.0.0/16") in host.kernel.routes
    assert set(host.kernel.devices["wg0"].peers) == {key(7), key(8)}
    host.kernel.names["n7.example.com:51820"] = "192.0.2.7:51820"
    lines = apply.apply(host, view).lines
    assert lines[0] == "~ wg0 peer n7: endpoint none -> endpoint n7.example.com:51820"
    assert host.kernel.devices["wg0"].peers[key(7)].endpoint == "192.0.2.7:51820"


def test_previous_view_is_kept_for_rollback(host: FakeHost) -> None:
    """Applying one view twice does not overwrite the previous view."""
    first, second = leaf(direct=(peer(7),)), leaf(direct=(peer(8),))
    for view in (first, second, second):
        apply.apply(host, view)
    store = Store(host=host, mesh="wg0")
    assert (store.view(), store.previous()) == (second, first)
    assert apply.rollback(host, "wg0").digest == first.digest()
    assert (store.view(), store.previous()) == (first, second)


def test_ignored_change_is_an_error(host: FakeHost, monkeypatch) -> None:
    """A kernel that ignores a change is detected: the error says what still differs."""
    monkeypatch.setattr(FakeHost, "set_sysctl", lambda *_: None)
    with pytest.raises(HostError, match=r"this still differs: .*net\.ipv4\.conf\.wg0\.rp_filter: 0 -> 2"):
        apply.apply(host, leaf(relays=()))
    assert Store(host=host, mesh="wg0").view() is None


def test_apply_without_key_is_an_error(host: FakeHost) -> None:
    """A dry run without a key still says what would change."""
    keys.remove_keys(host)
    with pytest.raises(HostError, match=r"state\.apply wgmesh"):
        apply.apply(host, leaf(relays=()))
    assert "+ wg0 public key: (not made yet)" in apply.apply(host, leaf(relays=()), dry_run=True).lines
    assert host.kernel.devices == {}


def test_dry_run_writes_nothing(host: FakeHost) -> None:
    """A dry run makes no device, no boot file and no state."""
    apply.apply(host, leaf(), dry_run=True)
    removal.remove_mesh(host, "wg0", dry_run=True)
    assert host.kernel.devices == {}
    assert list(host.conf_dir.glob("*.conf")) == []
    assert not (host.state_dir / "wg0").exists()


def test_boot_files_are_enabled_in_systemd(host: FakeHost) -> None:
    """Where systemd runs, each interface is enabled once, and disabled when it is removed."""
    host.systemd_dir.mkdir()
    host.units_dir.mkdir()
    apply.apply(host, leaf(relays=(1,)))
    assert ("systemctl", "enable", "wg-quick@wg0") in host.kernel.ran
    for name in ("wg0", "wg0-u1"):
        (host.units_dir / f"wg-quick@{name}.service").symlink_to("/lib/systemd/system/wg-quick@.service")
    host.kernel.ran.clear()
    apply.apply(host, leaf(relays=()))
    assert [argv for argv in host.kernel.ran if argv[0] == "systemctl"] == [("systemctl", "disable", "wg-quick@wg0-u1")]


def test_builders_make_valid_public_keys() -> None:
    """The builders' keys are 32 bytes of base64, as the kernel takes them."""
    assert nodeviews.key(7) == "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
