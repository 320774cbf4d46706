"""Show this node's meshes to the operator: the configuration in the kernel, and the counters."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from saltext_wgmesh.core.device import desired
from saltext_wgmesh.core.device.state import MAIN_TABLE, Device, PeerConfig, PeerStats, RouteEntry
from saltext_wgmesh.minion.state import store
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system import files, kernel
from saltext_wgmesh.minion.system.host import Host


def forwarded(host: Host) -> int:
    """Return how many packets this node has forwarded since it booted, IPv4 and IPv6 (RFC 4293, OutForwDatagrams)."""
    total = 0
    lines = (files.read_file(host.proc_net / "snmp") or "").splitlines()
    for head, values in pairwise(line.split() for line in lines):
        if head[0] == values[0] == "Ip:":
            total += int(dict(zip(head, values, strict=True))["ForwDatagrams"])
    for line in (files.read_file(host.proc_net / "snmp6") or "").splitlines():
        name, _, value = line.partition(" ")
        total += int(value) if name == "Ip6OutForwDatagrams" else 0
    return total


def show(host: Host, mesh: str | None = None) -> dict[str, Any]:
    """Return mesh → digest of the applied view, devices with their peers, routes and rules; no secrets."""
    chosen = [name for name in store.meshes(host) if mesh in (None, name)]
    snapshot = kernel.snapshot(host) if chosen else None
    return {name: _mesh(Store(host=host, mesh=name), snapshot) for name in chosen if snapshot}


def _mesh(stored: Store, snapshot: kernel.Snapshot) -> dict[str, Any]:
    view, owned = stored.view(), stored.owned()
    actual = kernel.mesh_state(stored.host, snapshot, stored.mesh, owned.interfaces, owned.prefixes, ())
    nodes = desired.node_by_key(view) if view else {}
    stats = {(s.device, s.public_key): s for s in snapshot.stats(d.name for d in actual.devices)}
    return {
        "digest": view.digest() if view else None,
        "devices": {device.name: _device(device, nodes, stats) for device in actual.devices},
        "routes": [_route(route) for route in actual.routes],
        "rules": [f"IPv{rule.family} from {rule.device}: table {rule.table}" for rule in actual.rules],
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
        "preshared_key": peer.psk_id is not None,
        "handshake_age": None if stats.handshake_at is None else max(0, int(time.time()) - stats.handshake_at),
        "received": stats.received,
        "sent": stats.sent,
    }


def _route(route: RouteEntry) -> str:
    where = "" if route.table == MAIN_TABLE else f" in table {route.table}"
    return f"{route.prefix}{where}: {route.device or 'unreachable'}"
