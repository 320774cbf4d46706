"""Changes → the commands that make them, as argument lists; no shell ever sees them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from saltext_wgmesh.core import iptext, wgtext
from saltext_wgmesh.core.device import PeerConfig, family_of
from saltext_wgmesh.core.diff import (
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDevice:
    """Make a WireGuard device, by the kernel or in userspace."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSysctl:
    """Write one kernel setting."""

    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IpBatch:
    """Lines for one ``ip -<family> -batch -``."""

    family: int
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WgSet:
    """One ``wg set``."""

    argv: tuple[str, ...]
    looks_up: bool = False
    """True if it has a DNS name looked up, which may fail without harm to anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Where the keys lie that ``wg`` reads by itself."""

    key_file: str
    """The node's private key."""
    preshared: str
    """The folder of the preshared keys, each in a file with its identifier as name."""


Step = MakeDevice | WriteSysctl | IpBatch | WgSet
_Line = tuple[int, tuple[str, ...]]


def steps(changes: Iterable[Change], secrets: Secrets) -> Iterator[Step]:
    """The steps that make *changes*, in their order; neighbours that one command can do are one step."""
    for kind, group in groupby(changes, key=_tool):
        if kind == "ip":
            yield from _ip_batches(line for change in group for line in _ip_lines(change))
        elif kind.startswith("wg "):
            yield from _wg_sets(kind.removeprefix("wg "), list(group), secrets)
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


def _single(change: Change) -> Step:
    if isinstance(change, SysctlChange):
        return WriteSysctl(key=change.key, value=change.new)
    assert isinstance(change, DeviceChange)
    return MakeDevice(name=change.device)


def _ip_batches(lines: Iterable[_Line]) -> Iterator[IpBatch]:
    for family, group in groupby(lines, key=lambda line: line[0]):
        yield IpBatch(family=family, lines=tuple(words for _, words in group))


def _ip_lines(change: Change) -> Iterator[_Line]:
    """Lines with the family under which ``ip`` must run them."""
    if isinstance(change, DeviceChange):
        yield 4, ("link", "del", change.device)
    elif isinstance(change, SettingChange):
        words = ("mtu", change.new) if change.setting is Setting.MTU else (change.new,)
        yield 4, ("link", "set", "dev", change.device, *words)
    elif isinstance(change, AddressChange):
        verb, address = ("add", change.new) if change.new else ("del", change.old)
        yield family_of(address or ""), iptext.address_line(verb, change.device, address or "")
    elif isinstance(change, RouteChange):
        verb, route = ("replace", change.new) if change.new else ("del", change.old)
        if route:
            yield route.family, iptext.route_line(verb, route)
    elif isinstance(change, RuleChange):
        verb, rule = ("add", change.new) if change.new else ("del", change.old)
        if rule:
            yield rule.family, iptext.rule_line(verb, rule)


def _wg_sets(device: str, changes: list[Change], secrets: Secrets) -> Iterator[WgSet]:
    """Settings and peers in chunks, the settings first: another key of the node's own and the preshared keys that go
    with it are one command. Then the endpoints that are names, each by itself."""
    head = tuple(word for c in changes if isinstance(c, SettingChange) for word in _setting(c, secrets.key_file))
    peers = [c for c in changes if isinstance(c, PeerChange)]
    words = (head, *(_peer_words(c, secrets.preshared) for c in peers))
    yield from (WgSet(argv=argv) for argv in wgtext.commands(device, words))
    for change in peers:
        if change.new and _name_to_look_up(change.old, change.new):
            argv = ("wg", "set", device, *wgtext.set_endpoint(change.new))
            yield WgSet(argv=argv, looks_up=True)


def _setting(change: SettingChange, key_file: str) -> tuple[str, str]:
    return ("private-key", key_file) if change.setting is Setting.KEY else ("listen-port", change.new)


def _peer_words(change: PeerChange, folder: str) -> tuple[str, ...]:
    if change.new is None:
        return wgtext.remove_peer(change.public_key)
    if change.old is None:
        return wgtext.add_peer(change.new, folder)
    return wgtext.alter_peer(change.old, change.new, folder, allowed_ips=not change.taken)


def _name_to_look_up(old: PeerConfig | None, new: PeerConfig) -> bool:
    return bool(new.endpoint) and wgtext.is_name(new.endpoint or "") and (old is None or old.endpoint != new.endpoint)
