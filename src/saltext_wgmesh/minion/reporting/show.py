"""Show this node's meshes to the operator: the configuration in the kernel, and the counters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from saltext_wgmesh.core.device import desired
from saltext_wgmesh.core.device.state import MAIN_TABLE, Device, PeerConfig, PeerStats, RouteEntry, RuleEntry
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPeer:
    """One peer of a device."""

    config: PeerConfig
    stats: PeerStats
    handshake_age: int | None
    """Seconds since the last handshake; None: there was none."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as ``wgmesh.show`` returns them: no key but the public one."""
        return {
            "public_key": self.config.public_key,
            "endpoint": self.stats.endpoint,
            "keepalive": self.config.keepalive,
            "allowed_ips": list(self.config.allowed_ips),
            "preshared_key": self.config.psk_id is not None,
            "handshake_age": self.handshake_age,
            "received": self.stats.received,
            "sent": self.stats.sent,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDevice:
    """One device of a mesh."""

    config: Device
    peers: Mapping[str, ShownPeer]
    """Keyed by node, or by public key where the view does not say which node has it."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as ``wgmesh.show`` returns them."""
        return {
            "public_key": self.config.public_key,
            "listen_port": self.config.listen_port,
            "mtu": self.config.mtu,
            "up": self.config.up,
            "addresses": list(self.config.addresses),
            "peers": {name: peer.as_dict() for name, peer in self.peers.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMesh:
    """One mesh as the kernel has it now."""

    digest: str | None
    """The digest of the applied view; None: none was applied."""
    devices: Mapping[str, ShownDevice]
    routes: tuple[RouteEntry, ...]
    rules: tuple[RuleEntry, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as ``wgmesh.show`` returns them; routes and rules in words."""
        return {
            "digest": self.digest,
            "devices": {name: device.as_dict() for name, device in self.devices.items()},
            "routes": [_route(route) for route in self.routes],
            "rules": [f"IPv{rule.family} from {rule.device}: table {rule.table}" for rule in self.rules],
        }


def show(host: Host, mesh: str | None = None) -> dict[str, ShownMesh]:
    """Return mesh → digest of the applied view, devices with their peers, routes and rules; no secrets."""
    chosen = [name for name in store.meshes(host) if mesh in (None, name)]
    snapshot = kernel.snapshot(host) if chosen else None
    return {name: _mesh(Store(host=host, mesh=name), snapshot) for name in chosen if snapshot}


def _mesh(stored: Store, snapshot: kernel.Snapshot) -> ShownMesh:
    view, owned = stored.view(), stored.owned()
    actual = kernel.mesh_state(stored.host, snapshot, stored.mesh, owned.interfaces, owned.prefixes, ())
    nodes = desired.node_by_key(view) if view else {}
    stats = {(s.device, s.public_key): s for s in snapshot.stats(d.name for d in actual.devices)}
    return ShownMesh(
        digest=view.digest() if view else None,
        devices={device.name: _device(device, nodes, stats) for device in actual.devices},
        routes=tuple(actual.routes),
        rules=tuple(actual.rules),
    )


def _device(device: Device, nodes: dict[str, str], stats: dict[tuple[str, str], PeerStats]) -> ShownDevice:
    peers = {
        nodes.get(peer.public_key, peer.public_key): _peer(peer, stats[device.name, peer.public_key])
        for peer in device.peers
    }
    return ShownDevice(config=device, peers=peers)


def _peer(peer: PeerConfig, stats: PeerStats) -> ShownPeer:
    age = None if stats.handshake_at is None else max(0, int(time.time()) - stats.handshake_at)
    return ShownPeer(config=peer, stats=stats, handshake_age=age)


def _route(route: RouteEntry) -> str:
    where = "" if route.table == MAIN_TABLE else f" in table {route.table}"
    return f"{route.prefix}{where}: {route.device or 'unreachable'}"
