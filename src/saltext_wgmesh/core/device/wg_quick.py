"""Files for wg-quick, which restore the desired state of a node's kernel at boot, without Salt.

Each interface has its own file, and the interfaces may come up in any order. The files have no secret keys.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from saltext_wgmesh.core.device import ip_cli, wg_cli
from saltext_wgmesh.core.device.commands import KeyPaths
from saltext_wgmesh.core.device.state import MAIN_TABLE, Device, KernelState, PeerConfig, RouteEntry

HEADER = "# Written by saltext-wgmesh for mesh {mesh}: the next apply writes it again."


def header(mesh: str) -> str:
    """Return the first line of each file of *mesh*, by which a later run recognizes it."""
    return HEADER.format(mesh=mesh)


def texts(mesh: str, desired: KernelState, paths: KeyPaths) -> dict[str, str]:
    """Return interface → text of its file. Settings that belong to no interface are in the first file."""
    lines = _kernel_lines(desired)
    return {
        device.name: "\n".join((header(mesh), *_interface(device, paths, lines[device.name]), *_peers(device), ""))
        for device in desired.devices
    }


def _interface(device: Device, paths: KeyPaths, kernel_lines: Iterable[str]) -> Iterator[str]:
    yield "[Interface]"
    yield f"Address = {', '.join(device.addresses)}"
    if device.listen_port:
        yield f"ListenPort = {device.listen_port}"
    yield f"MTU = {device.mtu}"
    # Several interfaces allow the whole mesh, so wg-quick must not make routes of allowed-ips.
    yield "Table = off"
    for peer in device.peers:
        if peer.psk_id:
            # Before the private key, without which there is no handshake. A lost file must not affect other peers.
            yield f"PostUp = wg set %i {shlex.join(wg_cli.set_psk(peer, paths.psk_folder))} || true"
    yield f"PostUp = wg set %i private-key {shlex.quote(paths.key_file)}"
    for peer in device.peers:
        if peer.endpoint and wg_cli.is_host_name(peer.endpoint):
            # At boot DNS may not answer yet: the interface must come up without it, and without a delay.
            yield f"PostUp = wg set %i peer {peer.public_key} endpoint {peer.endpoint} >/dev/null 2>&1 &"
    for peer in device.peers:
        if peer.keepalive:
            # Last, since a new keepalive starts the handshake, which needs the private key.
            yield f"PostUp = wg set %i peer {peer.public_key} persistent-keepalive {peer.keepalive}"
    yield from kernel_lines


def _kernel_lines(desired: KernelState) -> dict[str, list[str]]:
    """Return interface → its lines for kernel settings, routes and rules: one pass for all, as there are many routes.

    The first interface has those that belong to none.
    """
    lines: dict[str, list[str]] = {device.name: [] for device in desired.devices}
    first = next(iter(lines), "")
    for key, value in desired.sysctls:
        devices = lines.keys() & key.split("/")[1:-1]
        # The device of an accept_ra may be gone: that must not keep the interface down.
        lenient = " || true" if key.endswith("/accept_ra") and not devices else ""
        for device in devices or {first}:
            lines[device].append(f"PostUp = echo {value} > /proc/sys/{key}{lenient}")
    for route in desired.routes:
        device = route.device or first
        if device in lines:
            lines[device].append(f"PostUp = ip -{route.family} {_route(route)}")
    for rule in desired.rules:
        if rule.device in lines:
            # The rule outlives the device, so it may exist already.
            words = " ".join(ip_cli.rule_line("add", rule))
            lines[rule.device].append(f"PostUp = ip -{rule.family} {words} 2>/dev/null || true")
    return lines


def _route(route: RouteEntry) -> str:
    """Return the words that set *route* at boot; the route may be there from a run before."""
    if route.table != MAIN_TABLE:
        return " ".join(ip_cli.route_line("replace", route))
    # "add" leaves a route of the node's own network in its place, where "replace" would remove it.
    return f"{' '.join(ip_cli.route_line('add', route))} || true"


def _peers(device: Device) -> Iterator[str]:
    for peer in device.peers:
        yield ""
        yield from _peer(peer)


def _peer(peer: PeerConfig) -> Iterator[str]:
    yield "[Peer]"
    yield f"PublicKey = {peer.public_key}"
    if peer.endpoint and not wg_cli.is_host_name(peer.endpoint):
        yield f"Endpoint = {peer.endpoint}"
    if peer.allowed_ips:
        yield f"AllowedIPs = {', '.join(peer.allowed_ips)}"
