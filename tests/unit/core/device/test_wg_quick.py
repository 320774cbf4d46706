"""The files for wg-quick, to the letter."""

from __future__ import annotations

from dataclasses import replace

from saltext_wgmesh.core.device import desired, route_selection, wg_quick
from saltext_wgmesh.core.device.commands import KeyPaths
from saltext_wgmesh.core.device.desired import LocalNode
from saltext_wgmesh.core.device.state import KernelState
from tests.nodeviews import key, peer, relay

PATHS = KeyPaths(key_file="/etc/wireguard/wgmesh.key", psk_folder="/var/lib/wgmesh/wg0/preshared")
OWN = LocalNode(public_key=key(1), families=frozenset({4, 6}))


def state(view, own: LocalNode = OWN) -> KernelState:
    return desired.desired_state(replace(view, keys=(own.public_key,)), route_selection.select_routes(view), own)


def files(view, own: LocalNode = OWN) -> dict[str, str]:
    return wg_quick.texts("wg0", state(view, own), PATHS)


def test_texts_of_relay_restore_all_settings() -> None:
    """Each file restores its interface's routes and rules; the first one also the rest. No file has a secret key."""
    texts = files(relay(leaves=(peer(7, endpoint="192.0.2.7:51820", keepalive=25), peer(8))))
    assert sorted(texts) == ["wg0", "wg0-t2"]
    assert texts["wg0"] == (
        f"""# Written by saltext-wgmesh for mesh wg0: the next apply writes it again.
[Interface]
Address = 10.100.0.1/32, fd00:64::1/128
ListenPort = 51820
MTU = 1420
Table = off
PostUp = wg set %i private-key /etc/wireguard/wgmesh.key
PostUp = wg set %i peer {key(7)} persistent-keepalive 25
PostUp = echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects
PostUp = echo 2 > /proc/sys/net/ipv4/conf/wg0/rp_filter
PostUp = echo 0 > /proc/sys/net/ipv4/conf/wg0/send_redirects
PostUp = echo 1 > /proc/sys/net/ipv4/ip_forward
PostUp = echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
PostUp = ip -4 route add 10.100.0.7/32 dev wg0 proto 87 src 10.100.0.1 || true
PostUp = ip -4 route add 10.100.0.8/32 dev wg0 proto 87 src 10.100.0.1 || true
PostUp = ip -4 route replace unreachable 10.100.0.0/16 proto 87 table 870028683
PostUp = ip -4 route replace 10.100.0.7/32 dev wg0 proto 87 src 10.100.0.1 table 870028683
PostUp = ip -4 route replace 10.100.0.8/32 dev wg0 proto 87 src 10.100.0.1 table 870028683
PostUp = ip -6 route replace unreachable fd00:64::/64 proto 87 table 870028683

[Peer]
PublicKey = {key(7)}
Endpoint = 192.0.2.7:51820
AllowedIPs = 10.100.0.7/32

[Peer]
PublicKey = {key(8)}
AllowedIPs = 10.100.0.8/32
"""
    )
    assert texts["wg0-t2"] == (
        f"""# Written by saltext-wgmesh for mesh wg0: the next apply writes it again.
[Interface]
Address = 10.100.0.1/32, fd00:64::1/128
ListenPort = 51822
MTU = 1420
Table = off
PostUp = wg set %i private-key /etc/wireguard/wgmesh.key
PostUp = echo 2 > /proc/sys/net/ipv4/conf/wg0-t2/rp_filter
PostUp = echo 0 > /proc/sys/net/ipv4/conf/wg0-t2/send_redirects
PostUp = ip -4 route add 10.100.0.0/16 dev wg0-t2 proto 87 src 10.100.0.1 || true
PostUp = ip -6 route add fd00:64::/64 dev wg0-t2 proto 87 src fd00:64::1 || true
PostUp = ip -4 rule add iif wg0-t2 lookup 870028683 priority 8700 2>/dev/null || true
PostUp = ip -6 rule add iif wg0-t2 lookup 870028683 priority 8700 2>/dev/null || true

[Peer]
PublicKey = {key(2)}
Endpoint = 192.0.2.20:51821
AllowedIPs = 10.100.0.0/16, fd00:64::/64
"""
    )


def test_texts_advertised_device_accepts_advertisements() -> None:
    """Forwarding makes the kernel ignore router advertisements, unless their device has accept_ra=2."""
    own = replace(OWN, advertised=("eth0",))
    text = files(relay(), own)["wg0"]
    accept = text.index("PostUp = echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra || true\n")
    # When forwarding is switched on, the kernel drops the routes of devices without accept_ra=2.
    assert accept < text.index("PostUp = echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n")
    without = replace(own, families=frozenset({4}))
    assert "accept_ra" not in files(relay(), without)["wg0"]


def test_texts_path_with_space_is_quoted() -> None:
    """wg-quick passes the line to a shell."""
    view = relay(trunks=(), leaves=(peer(7, preshared="0123456789abcdef"),))
    texts = wg_quick.texts("wg0", state(view), KeyPaths(key_file="/etc/my keys/k", psk_folder="/my keys"))
    assert "private-key '/etc/my keys/k'\n" in texts["wg0"]
    assert "preshared-key '/my keys/0123456789abcdef' || true\n" in texts["wg0"]


def test_texts_host_name_resolved_in_background() -> None:
    """A name that does not resolve neither keeps the interface down nor delays it."""
    view = relay(trunks=(), leaves=(peer(7, endpoint="n7.example.com:51820"),))
    text = files(view)["wg0"]
    assert "Endpoint" not in text
    assert f"PostUp = wg set %i peer {key(7)} endpoint n7.example.com:51820 >/dev/null 2>&1 &\n" in text


def test_texts_preshared_key_precedes_private_key() -> None:
    """Without a private key there is no handshake, so none is tried without the preshared key, by either end.

    A lost key file takes down its own link, not those of other peers.
    """
    view = relay(leaves=(peer(7, keepalive=25, preshared="0123456789abcdef"), peer(8)))
    lines = [line for line in files(view)["wg0"].splitlines() if "wg set" in line]
    assert lines == [
        f"PostUp = wg set %i peer {key(7)} preshared-key /var/lib/wgmesh/wg0/preshared/0123456789abcdef || true",
        "PostUp = wg set %i private-key /etc/wireguard/wgmesh.key",
        f"PostUp = wg set %i peer {key(7)} persistent-keepalive 25",
    ]
