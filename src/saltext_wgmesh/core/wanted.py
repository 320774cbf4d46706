"""A node's view → what its kernel should hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from saltext_wgmesh.core import names, preshared
from saltext_wgmesh.core.device import (
    MAIN_TABLE,
    Device,
    NodeState,
    PeerConfig,
    RouteEntry,
    RuleEntry,
    family_of,
)
from saltext_wgmesh.core.routes import TRUNK, KernelRoute
from saltext_wgmesh.core.types import Interface, Kind, Peer, View, host_prefixes
from saltext_wgmesh.core.wgtext import is_name

PeerKey = tuple[str, str]
"""A peer on this node: device name and public key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What a node knows of itself and no view tells."""

    public_key: str
    families: frozenset[int]
    """4, and 6 where IPv6 is enabled: what belongs to another family is left out silently."""
    advertised: tuple[str, ...] = ()
    """Devices by which the node has its IPv6 default route from router advertisements."""


def state(view: View, routes: Iterable[KernelRoute], own: Own) -> NodeState:
    """All that *view*, with its *routes* as chosen for the links that are up, asks of a node's kernel."""
    addresses = tuple(a for a in view.addresses if family_of(a) in own.families)
    devices = sorted((_device(view, i, addresses, own) for i in view.interfaces), key=lambda d: d.name)
    entries = (route_entry(view.mesh, r, addresses) for r in routes if family_of(r.prefix) in own.families)
    families = {family_of(n) for n in view.networks} & own.families
    return NodeState(
        devices=tuple(devices),
        routes=tuple(sorted(entries, key=lambda r: r.place)),
        rules=tuple(sorted(_rules(view, families))),
        sysctls=tuple(sorted(_sysctls(view, families, own.advertised), key=_in_time)),
    )


def _device(view: View, interface: Interface, addresses: tuple[str, ...], own: Own) -> Device:
    configs = (shared(view, own.public_key, p, one) for p in interface.peers for one in peer_configs(p))
    peers = sorted(configs, key=lambda p: p.public_key)
    return Device(
        name=interface.name,
        public_key=own.public_key,
        listen_port=interface.listen_port,
        mtu=view.mtu,
        up=True,
        # On every interface: with rp_filter=2 a packet is dropped where the receiving one has no address.
        addresses=tuple(sorted(host_prefixes(addresses))),
        peers=tuple(peers),
    )


def peer_configs(peer: Peer, holder: str | None = None) -> tuple[PeerConfig, ...]:
    """*peer* under each of its keys. Its allowed-ips are the *holder*'s, one of these, by default that which it ran
    last: an allowed-ip stands on one. The other is there for the node to begin with."""
    holder = holder or peer.public_key
    return tuple(
        PeerConfig(
            public_key=key,
            endpoint=peer.endpoint,
            keepalive=peer.keepalive if key == holder else 0,
            allowed_ips=tuple(sorted(peer.allowed_ips)) if key == holder else (),
        )
        for key in peer.keys
    )


def shared(view: View, own: str, peer: Peer, config: PeerConfig) -> PeerConfig:
    """*config*, one of *peer* of *view*, with its preshared key while this node runs its public key *own*."""
    return replace(config, preshared=preshared.between(view, own, peer, config.public_key))


def route_entry(mesh: str, route: KernelRoute, addresses: tuple[str, ...]) -> RouteEntry:
    """*route* as the kernel of a node with these *addresses* holds it."""
    family = family_of(route.prefix)
    return RouteEntry(
        table=names.trunk_table(mesh) if route.table == TRUNK else MAIN_TABLE,
        prefix=route.prefix,
        device=route.device,
        source=next((a for a in addresses if family_of(a) == family), None) if route.device else None,
    )


def _rules(view: View, families: Iterable[int]) -> Iterator[RuleEntry]:
    table = names.trunk_table(view.mesh)
    for interface in view.interfaces:
        if interface.kind is Kind.TRUNK:
            for family in families:
                yield RuleEntry(family=family, device=interface.name, table=table)


def _in_time(sysctl: tuple[str, str]) -> tuple[bool, tuple[str, str]]:
    """Before forwarding is switched on: at that moment the kernel drops the default routes that advertisements gave,
    but those of devices that accept them all the same (rt6_purge_dflt_routers)."""
    return not sysctl[0].endswith("/accept_ra"), sysctl


def _sysctls(view: View, families: Collection[int], advertised: Iterable[str]) -> Iterator[tuple[str, str]]:
    for interface in view.interfaces:
        # Paths may differ in the two directions, so a packet may come in where its answer would not go out.
        yield f"net/ipv4/conf/{interface.name}/rp_filter", "2"
        # A relay forwards out of the interface that a packet came in by: the kernel would send redirects.
        yield f"net/ipv4/conf/{interface.name}/send_redirects", "0"
    if view.forward:
        yield "net/ipv4/ip_forward", "1"
        # Redirects are sent if either the interface or "all" says so (Documentation/networking/ip-sysctl).
        yield "net/ipv4/conf/all/send_redirects", "0"
        if 6 in families:
            yield "net/ipv6/conf/all/forwarding", "1"
            # A node that forwards ignores advertisements unless told otherwise, and would lose its default route.
            yield from ((f"net/ipv6/conf/{device}/accept_ra", "2") for device in advertised)


def keep_roamed(
    wanted: NodeState,
    live: NodeState,
    fresh: Collection[PeerKey],
    applied: Mapping[PeerKey, str | None],
    heard: Collection[PeerKey] = (),
) -> NodeState:
    """*wanted*, with no endpoint for the peers that may keep the one they have.

    A live endpoint that is not the wanted one has roamed, and is right as long as the peer answers there. It is
    set back only if the view itself now names another than the one last *applied*, or if the peer is not *fresh*
    (no handshake within the life of a session). A DNS name can't be compared with what it led to: it is looked up
    when the peer is made and when the view names another, and else left.

    A peer that is *heard* at this moment is left where it is if the view names another port of the same host: it hears
    at one port at a time, and has not moved yet. When it does, its first packet tells.
    """

    def may_keep(key: PeerKey, endpoint: str, has: str) -> bool:
        if key in heard and endpoint.rpartition(":")[0] == has.rpartition(":")[0]:
            return True
        return applied.get(key) == endpoint and (key in fresh or is_name(endpoint))

    return _release(wanted, live, may_keep)


def keep_known(
    wanted: NodeState,
    live: NodeState,
    names: Mapping[str, str],
    fresh: Collection[PeerKey],
    applied: Mapping[PeerKey, str | None],
) -> NodeState:
    """*wanted*, with each peer of a device that is to be made where that of the device in whose place it comes is
    (*names*: old → new). So this node opens links too that only the other end opens else. As above, an endpoint that
    the view names counts for more if it is another than before, or if the peer is not *fresh*."""
    have = {(d.name, p.public_key): p.endpoint for d in live.devices for p in d.peers}
    olds = {new: old for old, new in names.items() if new not in {d.name for d in live.devices}}

    def known(device: Device, peer: PeerConfig) -> PeerConfig:
        was = (olds[device.name], peer.public_key)
        may_keep = peer.endpoint is None or (was in fresh and applied.get(was) == peer.endpoint)
        return replace(peer, endpoint=have[was]) if may_keep and have.get(was) else peer

    devices = (replace(d, peers=tuple(known(d, p) for p in d.peers)) if d.name in olds else d for d in wanted.devices)
    return replace(wanted, devices=tuple(devices))


def keep_followed(wanted: NodeState, live: NodeState, view: View) -> NodeState:
    """*wanted*, with the allowed-ips of a peer that has two keys on the one that has them: the watcher gives them to
    the one that the node runs."""
    have = {(d.name, p.public_key): p.allowed_ips for d in live.devices for p in d.peers}
    followed: dict[PeerKey, PeerConfig] = {}
    for interface in view.interfaces:
        for peer in interface.peers:
            held = tuple(sorted(peer.allowed_ips))
            if peer.next_key and have.get((interface.name, peer.next_key)) == held:
                for config in peer_configs(peer, peer.next_key):
                    followed[interface.name, config.public_key] = config
    if not followed:
        return wanted

    def as_followed(device: Device, peer: PeerConfig) -> PeerConfig:
        return replace(followed.get((device.name, peer.public_key), peer), preshared=peer.preshared)

    devices = tuple(replace(d, peers=tuple(as_followed(d, p) for p in d.peers)) for d in wanted.devices)
    return replace(wanted, devices=devices)


def keep_key(wanted: NodeState, live: NodeState, key: str | None, view: View) -> NodeState:
    """*wanted*, with the public *key*, and the preshared keys that go with it by *view*, on the devices that run it."""
    running = {d.name for d in live.devices if key and d.public_key == key}
    if not running:
        return wanted
    known = {(i.name, k): peer for i in view.interfaces for peer in i.peers for k in peer.keys}

    def kept(device: Device) -> Device:
        peers = (shared(view, key or "", known[device.name, p.public_key], p) for p in device.peers)
        return replace(device, public_key=key or "", peers=tuple(peers))

    return replace(wanted, devices=tuple(kept(d) if d.name in running else d for d in wanted.devices))


def keep_any(wanted: NodeState, live: NodeState) -> NodeState:
    """*wanted*, content with whatever endpoint a live peer has: after an apply it may roam at any moment."""
    return _release(wanted, live, lambda _key, _endpoint, _has: True)


def _release(wanted: NodeState, live: NodeState, may_keep: Callable[[PeerKey, str, str], bool]) -> NodeState:
    have = {(d.name, p.public_key): p.endpoint for d in live.devices for p in d.peers}

    def released(device: Device, peer: PeerConfig) -> PeerConfig:
        key = (device.name, peer.public_key)
        has = have.get(key)
        if peer.endpoint and has and may_keep(key, peer.endpoint, has):
            return replace(peer, endpoint=None)
        return peer

    devices = tuple(replace(d, peers=tuple(released(d, p) for p in d.peers)) for d in wanted.devices)
    return replace(wanted, devices=devices)


def endpoints(view: View) -> dict[PeerKey, str | None]:
    """The endpoints that *view* names, by peer."""
    return {(i.name, key): p.endpoint for i in view.interfaces for p in i.peers for key in p.keys}


def labels(view: View) -> dict[str, str]:
    """Public key → node, for everything that a person reads."""
    peers = [p for i in view.interfaces for p in i.peers]
    return {
        **{p.next_key: f"{p.node} (next key)" for p in peers if p.next_key},
        **{p.public_key: p.node for p in peers},
    }
