"""What a node's kernel should hold → files for wg-quick, which restore it at boot without Salt.

Each interface has its file, and they may come up in any order. No key but public ones is in any of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from saltext_wgmesh.core import iptext, wgtext
from saltext_wgmesh.core.device import Device, NodeState, PeerConfig
from saltext_wgmesh.core.script import Secrets

HEADER = "# Written by saltext-wgmesh for mesh {mesh}: the next apply writes it again."


def header(mesh: str) -> str:
    """The first line of each file of *mesh*, by which a later run knows it as ours."""
    return HEADER.format(mesh=mesh)


def texts(mesh: str, wanted: NodeState, secrets: Secrets) -> dict[str, str]:
    """Interface → text of its file. What belongs to no interface is in the first one's."""
    return {
        device.name: "\n".join(
            (header(mesh), *_interface(wanted, device, secrets, first=index == 0), *_peers(device), "")
        )
        for index, device in enumerate(wanted.devices)
    }


def _interface(wanted: NodeState, device: Device, secrets: Secrets, *, first: bool) -> Iterator[str]:
    yield "[Interface]"
    yield f"Address = {', '.join(device.addresses)}"
    if device.listen_port:
        yield f"ListenPort = {device.listen_port}"
    yield f"MTU = {device.mtu}"
    # Routes choose the way, not allowed-ips: several interfaces allow the whole mesh.
    yield "Table = off"
    for peer in device.peers:
        if peer.preshared:
            # Before the private key, without which there is no handshake. One that is lost takes no other peer along.
            yield f"PostUp = wg set %i {shlex.join(wgtext.set_preshared(peer, secrets.preshared))} || true"
    yield f"PostUp = wg set %i private-key {shlex.quote(secrets.key_file)}"
    for peer in device.peers:
        if peer.endpoint and wgtext.is_name(peer.endpoint):
            # At boot there may be nobody to ask yet: that must cost neither the interface nor a minute.
            yield f"PostUp = wg set %i peer {peer.public_key} endpoint {peer.endpoint} >/dev/null 2>&1 &"
    for peer in device.peers:
        if peer.keepalive:
            # Only now: a keepalive that is switched on starts the handshake, which takes the key.
            yield f"PostUp = wg set %i peer {peer.public_key} persistent-keepalive {peer.keepalive}"
    for key, value in wanted.sysctls:
        if f"/{device.name}/" in key:
            yield f"PostUp = echo {value} > /proc/sys/{key}"
        elif first and not _of_a_device(wanted, key):
            # One of a device that is there no more must not cost the interface.
            lenient = " || true" if key.endswith("/accept_ra") else ""
            yield f"PostUp = echo {value} > /proc/sys/{key}{lenient}"
    for route in wanted.routes:
        if route.device == device.name or (first and route.device is None):
            yield f"PostUp = ip -{route.family} {' '.join(iptext.route_line('replace', route))}"
    for rule in wanted.rules:
        if rule.device == device.name:
            # The rule outlives the device, so it may be there already.
            yield f"PostUp = ip -{rule.family} {' '.join(iptext.rule_line('add', rule))} 2>/dev/null || true"


def _of_a_device(wanted: NodeState, key: str) -> bool:
    return any(f"/{device.name}/" in key for device in wanted.devices)


def _peers(device: Device) -> Iterator[str]:
    for peer in device.peers:
        yield ""
        yield from _peer(peer)


def _peer(peer: PeerConfig) -> Iterator[str]:
    yield "[Peer]"
    yield f"PublicKey = {peer.public_key}"
    if peer.endpoint and not wgtext.is_name(peer.endpoint):
        yield f"Endpoint = {peer.endpoint}"
    if peer.allowed_ips:
        yield f"AllowedIPs = {', '.join(peer.allowed_ips)}"
