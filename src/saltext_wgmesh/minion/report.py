"""This node's meshes for a person to read: what is configured, and what the counters say."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from saltext_wgmesh.core import wanted
from saltext_wgmesh.core.device import MAIN_TABLE, Device, PeerConfig, PeerStats, RouteEntry
from saltext_wgmesh.minion import files, observe, store
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Store


def forwarded(host: Host) -> int:
    """How many packets this node has forwarded since it started, of both families (RFC 4293, OutForwDatagrams)."""
    total = 0
    lines = (files.read(host.proc_net / "snmp") or "").splitlines()
    for head, values in pairwise(line.split() for line in lines):
        if head[0] == values[0] == "Ip:":
            total += int(dict(zip(head, values, strict=True))["ForwDatagrams"])
    for line in (files.read(host.proc_net / "snmp6") or "").splitlines():
        name, _, value = line.partition(" ")
        total += int(value) if name == "Ip6OutForwDatagrams" else 0
    return total


def show(host: Host, mesh: str | None = None) -> dict[str, Any]:
    """By mesh: digest of the view applied, devices with their peers, routes, rules; no secret among them."""
    chosen = [name for name in store.meshes(host) if mesh in (None, name)]
    seen = observe.snapshot(host) if chosen else None
    return {name: _mesh(host, Store(host=host, mesh=name), seen) for name in chosen if seen}


def _mesh(host: Host, memory: Store, seen: observe.Snapshot) -> dict[str, Any]:
    view, owned = memory.view(), memory.owned()
    live = observe.live(host, seen, memory.mesh, owned.interfaces, owned.prefixes, ())
    nodes = wanted.labels(view) if view else {}
    stats = {(s.device, s.public_key): s for s in seen.stats(d.name for d in live.devices)}
    return {
        "digest": view.digest() if view else None,
        "devices": {device.name: _device(device, nodes, stats) for device in live.devices},
        "routes": [_route(route) for route in live.routes],
        "rules": [f"IPv{rule.family} from {rule.device}: table {rule.table}" for rule in live.rules],
    }


def _device(device: Device, nodes: dict[str, str], stats: dict[tuple[str, str], PeerStats]) -> dict[str, Any]:
    return {
        "public_key": device.public_key,
        "listen_port": device.listen_port,
        "mtu": device.mtu,
        "up": device.up,
        "addresses": list(device.addresses),
        "peers": {
            nodes.get(peer.public_key, peer.public_key): _peer(peer, stats[device.name, peer.public_key])
            for peer in device.peers
        },
    }


def _peer(peer: PeerConfig, stats: PeerStats) -> dict[str, Any]:
    return {
        "public_key": peer.public_key,
        "endpoint": stats.endpoint,
        "keepalive": peer.keepalive,
        "allowed_ips": list(peer.allowed_ips),
        "preshared_key": peer.preshared is not None,
        "handshake_age": None if stats.handshake_at is None else max(0, int(time.time()) - stats.handshake_at),
        "received": stats.received,
        "sent": stats.sent,
    }


def _route(route: RouteEntry) -> str:
    where = "" if route.table == MAIN_TABLE else f" in table {route.table}"
    return f"{route.prefix}{where}: {route.device or 'unreachable'}"
