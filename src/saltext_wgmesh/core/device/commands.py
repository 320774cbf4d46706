"""The commands that make changes, as argument lists; they are never passed to a shell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from saltext_wgmesh.core.device import ip_cli, wg_cli
from saltext_wgmesh.core.device.diff import (
    AddressChange,
    Change,
    DeviceChange,
    PeerChange,
    RouteChange,
    RuleChange,
    Setting,
    SettingChange,
    SysctlChange,
)
from saltext_wgmesh.core.device.state import PeerConfig
from saltext_wgmesh.core.model.addresses import address_family


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDevice:
    """Create a WireGuard device, in the kernel or in userspace."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSysctl:
    """Write one kernel setting (sysctl)."""

    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IpBatch:
    """The lines of one ``ip -<family> -batch -``."""

    family: int
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WgSet:
    """One ``wg set`` command."""

    argv: tuple[str, ...]
    resolves_name: bool = False
    """True if it resolves a DNS name, which may fail without effect on other commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPaths:
    """The paths of the keys that ``wg`` reads by itself, so that no secret is in an argument."""

    key_file: str
    """The node's private key."""
    psk_folder: str
    """The folder of the preshared keys; each file is named by the key's identifier."""


Command = CreateDevice | WriteSysctl | IpBatch | WgSet
_Line = tuple[int, tuple[str, ...]]


def commands(changes: Iterable[Change], paths: KeyPaths) -> Iterator[Command]:
    """Yield the commands that make *changes*, in order; consecutive changes share a command if one can do both."""
    # Only consecutive changes are grouped: their order is part of their safety.
    for kind, group in groupby(changes, key=_tool):
        if kind == "ip":
            yield from _ip_batches(line for change in group for line in _ip_lines(change))
        elif kind.startswith("wg "):
            yield from _wg_sets(kind.removeprefix("wg "), list(group), paths)
        else:
            yield from (_single(change) for change in group)


def _tool(change: Change) -> str:
    if isinstance(change, PeerChange):
        return f"wg {change.device}"
    if isinstance(change, SettingChange) and change.setting in (Setting.KEY, Setting.PORT):
        return f"wg {change.device}"
    if isinstance(change, SysctlChange) or (isinstance(change, DeviceChange) and change.new):
        return "single"
    return "ip"


def _single(change: Change) -> Command:
    if isinstance(change, SysctlChange):
        return WriteSysctl(key=change.key, value=change.new)
    assert isinstance(change, DeviceChange)
    return CreateDevice(name=change.device)


def _ip_batches(lines: Iterable[_Line]) -> Iterator[IpBatch]:
    for family, group in groupby(lines, key=lambda line: line[0]):
        yield IpBatch(family=family, lines=tuple(words for _, words in group))


def _ip_lines(change: Change) -> Iterator[_Line]:
    """Yield lines with the family under which ``ip`` must run them."""
    if isinstance(change, DeviceChange):
        # Links have no family; any batch can have them.
        yield 4, ("link", "del", change.device)
    elif isinstance(change, SettingChange):
        # A state is its own keyword of ``ip link set``: up or down.
        words = ("mtu", change.new) if change.setting is Setting.MTU else (change.new,)
        yield 4, ("link", "set", "dev", change.device, *words)
    elif isinstance(change, AddressChange):
        verb, address = ("add", change.new) if change.new else ("del", change.old)
        yield address_family(address or ""), ip_cli.address_line(verb, change.device, address or "")
    elif isinstance(change, RouteChange):
        verb, route = ("replace", change.new) if change.new else ("del", change.old)
        if route:
            yield route.family, ip_cli.route_line(verb, route)
    elif isinstance(change, RuleChange):
        verb, rule = ("add", change.new) if change.new else ("del", change.old)
        if rule:
            yield rule.family, ip_cli.rule_line(verb, rule)


def _wg_sets(device: str, changes: list[Change], paths: KeyPaths) -> Iterator[WgSet]:
    """Yield settings and peers in chunks, the settings first, then each endpoint that is a name by itself.

    A new key of the node and the preshared keys that go with it are in one command: no handshake can start between.
    """
    head = tuple(word for c in changes if isinstance(c, SettingChange) for word in _setting(c, paths.key_file))
    peers = [c for c in changes if isinstance(c, PeerChange)]
    arguments = (head, *(_peer_arguments(c, paths.psk_folder) for c in peers))
    yield from (WgSet(argv=argv) for argv in wg_cli.wg_commands(device, arguments))
    for change in peers:
        if change.new and _has_new_host_name(change.old, change.new):
            argv = ("wg", "set", device, *wg_cli.set_endpoint(change.new))
            yield WgSet(argv=argv, resolves_name=True)


def _setting(change: SettingChange, key_file: str) -> tuple[str, str]:
    return ("private-key", key_file) if change.setting is Setting.KEY else ("listen-port", change.new)


def _peer_arguments(change: PeerChange, folder: str) -> tuple[str, ...]:
    if change.new is None:
        return wg_cli.remove_peer(change.public_key)
    if change.old is None:
        return wg_cli.add_peer(change.new, folder)
    return wg_cli.change_peer(change.old, change.new, folder, allowed_ips=not change.allowed_ips_already_moved)


def _has_new_host_name(old: PeerConfig | None, new: PeerConfig) -> bool:
    return (
        bool(new.endpoint) and wg_cli.is_host_name(new.endpoint or "") and (old is None or old.endpoint != new.endpoint)
    )
