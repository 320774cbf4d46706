"""Drift that an apply tolerates: endpoints that roamed, and a key rotation in progress."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from saltext_wgmesh.core.device.desired import PeerKey, peer_configs, with_psk
from saltext_wgmesh.core.device.state import Device, KernelState, PeerConfig
from saltext_wgmesh.core.device.wg_cli import is_host_name
from saltext_wgmesh.core.model.view import View


def tolerate_roaming(
    desired: KernelState,
    live: KernelState,
    recently_handshaken: Collection[PeerKey],
    applied: Mapping[PeerKey, str | None],
    heard: Collection[PeerKey] = (),
) -> KernelState:
    """Return *desired*, without an endpoint for the peers that may keep the live one.

    A live endpoint that differs from the desired one has roamed, and is right as long as the peer answers there. It is
    set back in two cases only: the view names another endpoint than the one last *applied*, or the peer is not in
    *recently_handshaken* (no handshake within the life of a session).

    - A DNS name can't be compared with the address that it resolved to. It is resolved when the peer is made and when
      the view names another one, and is left alone otherwise.
    - A peer in *heard*, whose link is up now, keeps its endpoint if the view names another port of the same host. It
      listens at one port at a time, and has not moved yet. Its first packet from the new port updates the endpoint.
    """

    def may_keep(key: PeerKey, endpoint: str, has: str) -> bool:
        # The same host at another port: the peer has not moved yet.
        if key in heard and endpoint.rpartition(":")[0] == has.rpartition(":")[0]:
            return True
        return applied.get(key) == endpoint and (key in recently_handshaken or is_host_name(endpoint))

    return _clear_endpoints(desired, live, may_keep)


def carry_endpoints_over(
    desired: KernelState,
    live: KernelState,
    names: Mapping[str, str],
    recently_handshaken: Collection[PeerKey],
    applied: Mapping[PeerKey, str | None],
) -> KernelState:
    """Return *desired*, with the live endpoints of devices that get another name (*names*: old → new).

    The new device starts with the endpoints of the old one. So this node can also open links for which the view has no
    endpoint. An endpoint of the view takes precedence if it differs from the one last *applied*, or if the
    peer is not in *recently_handshaken*.
    """
    have = {(d.name, p.public_key): p.endpoint for d in live.devices for p in d.peers}
    # A new name that exists already is not a device to be created.
    old_names = {new: old for old, new in names.items() if new not in {d.name for d in live.devices}}

    def with_endpoint(device: Device, peer: PeerConfig) -> PeerConfig:
        old_key = (old_names[device.name], peer.public_key)
        may_keep = peer.endpoint is None or (old_key in recently_handshaken and applied.get(old_key) == peer.endpoint)
        return replace(peer, endpoint=have[old_key]) if may_keep and have.get(old_key) else peer

    devices = (
        replace(d, peers=tuple(with_endpoint(d, p) for p in d.peers)) if d.name in old_names else d
        for d in desired.devices
    )
    return replace(desired, devices=tuple(devices))


def follow_active_key(desired: KernelState, live: KernelState, view: View) -> KernelState:
    """Return *desired*, with the allowed-ips of a peer with two keys on the key that has them live.

    The watcher moves them to the key that the peer runs; an apply must not move them back.
    """
    have = {(d.name, p.public_key): p.allowed_ips for d in live.devices for p in d.peers}
    followed: dict[PeerKey, PeerConfig] = {}
    for interface in view.interfaces:
        for peer in interface.peers:
            allowed_ips = tuple(sorted(peer.allowed_ips))
            # Only if all its allowed-ips moved: the watcher moves them together.
            if peer.next_key and have.get((interface.name, peer.next_key)) == allowed_ips:
                for config in peer_configs(peer, peer.next_key):
                    followed[interface.name, config.public_key] = config
    if not followed:
        return desired

    def as_followed(device: Device, peer: PeerConfig) -> PeerConfig:
        return replace(followed.get((device.name, peer.public_key), peer), psk_id=peer.psk_id)

    devices = tuple(replace(d, peers=tuple(as_followed(d, p) for p in d.peers)) for d in desired.devices)
    return replace(desired, devices=devices)


def tolerate_running_key(desired: KernelState, live: KernelState, key: str | None, view: View) -> KernelState:
    """Return *desired*, with the public *key* and its preshared keys of *view* on the devices that run this key."""
    running = {d.name for d in live.devices if key and d.public_key == key}
    if not running:
        return desired
    view_peers = {(i.name, k): peer for i in view.interfaces for peer in i.peers for k in peer.keys}

    def with_running_key(device: Device) -> Device:
        peers = (with_psk(view, key or "", view_peers[device.name, p.public_key], p) for p in device.peers)
        return replace(device, public_key=key or "", peers=tuple(peers))

    return replace(desired, devices=tuple(with_running_key(d) if d.name in running else d for d in desired.devices))


def ignore_endpoints(desired: KernelState, live: KernelState) -> KernelState:
    """Return *desired* without the endpoints of peers that have one live: after an apply they may roam at any time."""
    return _clear_endpoints(desired, live, lambda _key, _endpoint, _has: True)


def _clear_endpoints(
    desired: KernelState, live: KernelState, may_keep: Callable[[PeerKey, str, str], bool]
) -> KernelState:
    have = {(d.name, p.public_key): p.endpoint for d in live.devices for p in d.peers}

    def without_endpoint(device: Device, peer: PeerConfig) -> PeerConfig:
        key = (device.name, peer.public_key)
        has = have.get(key)
        if peer.endpoint and has and may_keep(key, peer.endpoint, has):
            return replace(peer, endpoint=None)
        return peer

    devices = tuple(replace(d, peers=tuple(without_endpoint(d, p) for p in d.peers)) for d in desired.devices)
    return replace(desired, devices=devices)
