"""The files for boot, to the letter."""

from __future__ import annotations

from dataclasses import replace

from saltext_wgmesh.core import routes, wanted, wgquick
from saltext_wgmesh.core.device import NodeState
from saltext_wgmesh.core.script import Secrets
from saltext_wgmesh.core.wanted import Own
from tests.nodeviews import key, peer, relay

SECRETS = Secrets(key_file="/etc/wireguard/wgmesh.key", preshared="/var/lib/wgmesh/wg0/preshared")
OWN = Own(public_key=key(1), families=frozenset({4, 6}))


def state(view, own: Own = OWN) -> NodeState:
    return wanted.state(replace(view, keys=(own.public_key,)), routes.choose(view), own)


def files(view, own: Own = OWN) -> dict[str, str]:
    return wgquick.texts("wg0", state(view, own), SECRETS)


def test_the_files_of_a_relay() -> None:
    """Each file restores its interface's routes and rules; what belongs to none is in the first one's. No key."""
    told = files(relay(leaves=(peer(7, endpoint="192.0.2.7:51820", keepalive=25), peer(8))))
    assert sorted(told) == ["wg0", "wg0-t2"]
    assert told["wg0"] == (
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
PostUp = ip -4 route replace 10.100.0.7/32 dev wg0 proto 87 src 10.100.0.1
PostUp = ip -4 route replace 10.100.0.8/32 dev wg0 proto 87 src 10.100.0.1
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
    assert told["wg0-t2"] == (
        f"""# Written by saltext-wgmesh for mesh wg0: the next apply writes it again.
[Interface]
Address = 10.100.0.1/32, fd00:64::1/128
ListenPort = 51822
MTU = 1420
Table = off
PostUp = wg set %i private-key /etc/wireguard/wgmesh.key
PostUp = echo 2 > /proc/sys/net/ipv4/conf/wg0-t2/rp_filter
PostUp = echo 0 > /proc/sys/net/ipv4/conf/wg0-t2/send_redirects
PostUp = ip -4 route replace 10.100.0.0/16 dev wg0-t2 proto 87 src 10.100.0.1
PostUp = ip -6 route replace fd00:64::/64 dev wg0-t2 proto 87 src fd00:64::1
PostUp = ip -4 rule add iif wg0-t2 lookup 870028683 priority 8700 2>/dev/null || true
PostUp = ip -6 rule add iif wg0-t2 lookup 870028683 priority 8700 2>/dev/null || true

[Peer]
PublicKey = {key(2)}
Endpoint = 192.0.2.20:51821
AllowedIPs = 10.100.0.0/16, fd00:64::/64
"""
    )


def test_a_node_that_forwards_keeps_its_advertised_default_route() -> None:
    """Forwarding makes the kernel ignore router advertisements; the device that has them is told to go on."""
    own = replace(OWN, advertised=("eth0",))
    text = files(relay(), own)["wg0"]
    accept = text.index("PostUp = echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra || true\n")
    # At the moment of the latter, the kernel drops what is not accepted all the same.
    assert accept < text.index("PostUp = echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n")
    without = replace(own, families=frozenset({4}))
    assert "accept_ra" not in files(relay(), without)["wg0"]


def test_a_key_file_with_a_space_is_quoted() -> None:
    """wg-quick hands the line to a shell."""
    view = relay(trunks=(), leaves=(peer(7, preshared="0123456789abcdef"),))
    told = wgquick.texts("wg0", state(view), Secrets(key_file="/etc/my keys/k", preshared="/my keys"))
    assert "private-key '/etc/my keys/k'\n" in told["wg0"]
    assert "preshared-key '/my keys/0123456789abcdef' || true\n" in told["wg0"]


def test_a_name_is_looked_up_apart_and_costs_neither_the_interface_nor_a_minute() -> None:
    view = relay(trunks=(), leaves=(peer(7, endpoint="n7.example.com:51820"),))
    told = files(view)["wg0"]
    assert "Endpoint" not in told
    assert f"PostUp = wg set %i peer {key(7)} endpoint n7.example.com:51820 >/dev/null 2>&1 &\n" in told


def test_a_preshared_key_comes_before_the_private_one() -> None:
    """Without a private key there is no handshake: none is tried without the preshared key, by either end. A key whose
    file is lost costs its own link, not those of all other peers."""
    view = relay(leaves=(peer(7, keepalive=25, preshared="0123456789abcdef"), peer(8)))
    told = [line for line in files(view)["wg0"].splitlines() if "wg set" in line]
    assert told == [
        f"PostUp = wg set %i peer {key(7)} preshared-key /var/lib/wgmesh/wg0/preshared/0123456789abcdef || true",
        "PostUp = wg set %i private-key /etc/wireguard/wgmesh.key",
        f"PostUp = wg set %i peer {key(7)} persistent-keepalive 25",
    ]
