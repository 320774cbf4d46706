"""The desired state of a node's kernel, made from its view."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device.route_selection import TRUNK, KernelRoute
from saltext_wgmesh.core.device.state import MAIN_TABLE, Device, KernelState, PeerConfig, RouteEntry, RuleEntry
from saltext_wgmesh.core.keys import psk
from saltext_wgmesh.core.model.addresses import address_family, host_prefixes
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, View

PeerKey = tuple[str, str]
"""A peer of this node: device name and public key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNode:
    """Facts of the node itself that are in no view."""

    public_key: str
    families: frozenset[int]
    """4, and 6 if IPv6 is enabled: addresses and routes of other families are left out silently."""
    advertised: tuple[str, ...] = ()
    """Devices that give the node its IPv6 default route by router advertisements."""


def desired_state(view: View, routes: Iterable[KernelRoute], own: LocalNode) -> KernelState:
    """Return the state that *view* demands of a node's kernel, with *routes* as selected for the links that are up."""
    addresses = tuple(a for a in view.addresses if address_family(a) in own.families)
    devices = sorted((_device(view, i, addresses, own) for i in view.interfaces), key=lambda d: d.name)
    entries = (route_entry(view.mesh, r, addresses) for r in routes if address_family(r.prefix) in own.families)
    families = {address_family(n) for n in view.networks} & own.families
    return KernelState(
        devices=tuple(devices),
        routes=tuple(sorted(entries, key=lambda r: r.key)),
        rules=rule_entries(view, own.families),
        sysctls=tuple(sorted(_sysctls(view, families, own.advertised), key=_write_order)),
    )


def _device(view: View, interface: Interface, addresses: tuple[str, ...], own: LocalNode) -> Device:
    configs = (with_psk(view, own.public_key, p, one) for p in interface.peers for one in peer_configs(p))
    peers = sorted(configs, key=lambda p: p.public_key)
    return Device(
        name=interface.name,
        public_key=own.public_key,
        listen_port=interface.listen_port,
        mtu=view.mtu,
        up=True,
        # On every interface: with rp_filter=2 a packet is dropped if the receiving interface has no address.
        addresses=tuple(sorted(host_prefixes(addresses))),
        peers=tuple(peers),
    )


def peer_configs(peer: Peer, active_key: str | None = None) -> tuple[PeerConfig, ...]:
    """Return *peer* once for each of its keys; allowed-ips and keepalive are with *active_key*.

    The default is the key that the peer ran last. WireGuard gives an allowed-ip to one peer only, so the other key has
    none; it is there so that the node can start to use it.
    """
    active_key = active_key or peer.public_key
    return tuple(
        PeerConfig(
            public_key=key,
            endpoint=peer.endpoint,
            keepalive=peer.keepalive if key == active_key else 0,
            allowed_ips=tuple(sorted(peer.allowed_ips)) if key == active_key else (),
        )
        for key in peer.keys
    )


def with_psk(view: View, own: str, peer: Peer, config: PeerConfig) -> PeerConfig:
    """Return *config*, one of *peer* of *view*, with the preshared key that goes with this node's public key *own*."""
    return replace(config, psk_id=psk.psk_id_between(view, own, peer, config.public_key))


def route_entry(mesh: str, route: KernelRoute, addresses: tuple[str, ...]) -> RouteEntry:
    """Return *route* as the kernel of a node with these *addresses* holds it."""
    family = address_family(route.prefix)
    return RouteEntry(
        table=constants.trunk_table(mesh) if route.table == TRUNK else MAIN_TABLE,
        prefix=route.prefix,
        device=route.device,
        source=next((a for a in addresses if address_family(a) == family), None) if route.device else None,
    )


def rule_entries(view: View, families: Collection[int]) -> tuple[RuleEntry, ...]:
    """Return the rules of *view* for those of its networks that are of *families*, sorted."""
    used = {address_family(n) for n in view.networks}.intersection(families)
    table, trunks = constants.trunk_table(view.mesh), [i.name for i in view.interfaces if i.kind is Kind.TRUNK]
    return tuple(sorted(RuleEntry(family=f, device=name, table=table) for name in trunks for f in used))


def _write_order(sysctl: tuple[str, str]) -> tuple[bool, tuple[str, str]]:
    """Sort ``accept_ra`` before all others, so that it is written before forwarding is switched on.

    At that moment the kernel drops the default routes of router advertisements, except on devices that accept them
    while forwarding (rt6_purge_dflt_routers).
    """
    return not sysctl[0].endswith("/accept_ra"), sysctl


def _sysctls(view: View, families: Collection[int], advertised: Iterable[str]) -> Iterator[tuple[str, str]]:
    for interface in view.interfaces:
        # Paths may differ in the two directions: a packet may arrive on another interface than its answer leaves by.
        yield f"net/ipv4/conf/{interface.name}/rp_filter", "2"
        # A relay forwards out of the interface on which a packet arrived: the kernel would send redirects.
        yield f"net/ipv4/conf/{interface.name}/send_redirects", "0"
    if view.forward:
        yield "net/ipv4/ip_forward", "1"
        # Redirects are sent if either the interface or "all" says so (Documentation/networking/ip-sysctl).
        yield "net/ipv4/conf/all/send_redirects", "0"
        if 6 in families:
            yield "net/ipv6/conf/all/forwarding", "1"
            # A node that forwards ignores advertisements by default, and would lose its default route.
            yield from ((f"net/ipv6/conf/{device}/accept_ra", "2") for device in advertised)


def view_endpoints(view: View) -> dict[PeerKey, str | None]:
    """Return the endpoints of *view* by peer."""
    return {(i.name, key): p.endpoint for i in view.interfaces for p in i.peers for key in p.keys}


def node_by_key(view: View) -> dict[str, str]:
    """Return public key → node, for texts that an operator reads."""
    peers = [p for i in view.interfaces for p in i.peers]
    return {
        **{p.next_key: f"{p.node} (next key)" for p in peers if p.next_key},
        **{p.public_key: p.node for p in peers},
    }
