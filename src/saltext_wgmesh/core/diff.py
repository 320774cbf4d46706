"""Live × wanted → the changes that lead from one to the other, ordered so that nothing is lost on the way.

A change has an old and a new side; None stands for nothing there. Commands, log lines and a state's
``changes`` all derive from these values.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from saltext_wgmesh.core.device import MAIN_TABLE, Device, NodeState, PeerConfig, RouteEntry, RuleEntry


class Setting(enum.Enum):
    """What a device has one of."""

    KEY = "public key"
    PORT = "listen port"
    MTU = "mtu"
    STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChange:
    """A device made or removed."""

    device: str
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """One setting of a device."""

    device: str
    setting: Setting
    old: str | None
    """None: the device is new."""
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressChange:
    """An address put on a device or taken from it."""

    device: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChange:
    """A peer made, altered or removed."""

    device: str
    old: PeerConfig | None
    new: PeerConfig | None
    taken: bool = False
    """True if peers altered before this one have taken the allowed-ips that it is to lose: nothing is left to set."""

    @property
    def public_key(self) -> str:
        """Of the side that exists."""
        return (self.new or self.old).public_key  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """A route made, replaced or removed."""

    old: RouteEntry | None
    new: RouteEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """A rule made or removed."""

    old: RuleEntry | None
    new: RuleEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SysctlChange:
    """One kernel setting, by its path below /proc/sys."""

    key: str
    old: str | None
    new: str


Change = DeviceChange | SettingChange | AddressChange | PeerChange | RouteChange | RuleChange | SysctlChange


def diff(live: NodeState, wanted: NodeState) -> tuple[Change, ...]:
    """The changes that make *live* into *wanted*, in an order that is safe to run; empty if there is nothing to do.

    Additions come first, then the switches (routes and rules), then removals, so that a packet always finds one
    way that works. In *wanted*, port 0 and endpoint None stand for whatever is there.
    """
    have = {d.name: d for d in live.devices}
    want = {d.name: d for d in wanted.devices}
    return (
        *_freed_ports(have, want),
        *(change for name in sorted(want) for change in _additions(have.get(name), want[name])),
        *_sysctls(live, wanted),
        *_switches(live, wanted),
        *(RuleChange(old=rule, new=None) for rule in sorted(set(live.rules) - set(wanted.rules))),
        *(RouteChange(old=route, new=None) for route in _gone(live.routes, wanted.routes)),
        *(change for name in sorted(want) if name in have for change in _removals(have[name], want[name])),
        *(DeviceChange(device=name, new=False) for name in sorted(have.keys() - want.keys())),
    )


def _freed_ports(have: Mapping[str, Device], want: Mapping[str, Device]) -> Iterator[SettingChange]:
    """Ports that one device holds and another is to get are let go first: a port has one socket."""
    for name, device in sorted(have.items()):
        own = want[name].listen_port if name in want else 0
        others = {d.listen_port for d in want.values() if d.name != name}
        if device.listen_port and device.listen_port != own and device.listen_port in others:
            yield SettingChange(device=name, setting=Setting.PORT, old=str(device.listen_port), new="0")


def _additions(have: Device | None, want: Device) -> Iterator[Change]:
    """All that a device gains, in the order in which it may be gained: up comes last, when it can answer."""
    if have is None:
        yield DeviceChange(device=want.name, new=True)
    yield from _settings(have, want, Setting.KEY, Setting.PORT)
    yield from _peers(have.peers if have else (), want)
    yield from _settings(have, want, Setting.MTU)
    for address in want.addresses:
        if have is None or address not in have.addresses:
            yield AddressChange(device=want.name, old=None, new=address)
    yield from _settings(have, want, Setting.STATE)


def _settings(have: Device | None, want: Device, *settings: Setting) -> Iterator[SettingChange]:
    for setting in settings:
        old, new = (None if have is None else _value(have, setting)), _value(want, setting)
        if old != new and not (setting is Setting.PORT and want.listen_port == 0):
            yield SettingChange(device=want.name, setting=setting, old=old, new=new)


def _value(device: Device, setting: Setting) -> str:
    if setting is Setting.KEY:
        return device.public_key or "none"
    if setting is Setting.PORT:
        return str(device.listen_port)
    if setting is Setting.MTU:
        return str(device.mtu)
    return "up" if device.up else "down"


def _peers(have: tuple[PeerConfig, ...], want: Device) -> Iterator[PeerChange]:
    """Peers made and altered, those that gain allowed-ips first: an allowed-ip moves in one step, by being gained."""
    old = {p.public_key: p for p in have}
    changed = [p for p in want.peers if not _same(old.get(p.public_key), p)]
    gained = {p.public_key: _gained(old.get(p.public_key), p) for p in changed}
    taken: set[str] = set()
    for peer in sorted(changed, key=lambda p: (not gained[p.public_key], p.public_key)):
        before = old.get(peer.public_key)
        yield PeerChange(device=want.name, old=before, new=peer, taken=_taken(before, peer, taken))
        taken |= gained[peer.public_key]


def _same(old: PeerConfig | None, new: PeerConfig) -> bool:
    """True if nothing is to be set: a wanted endpoint of None is content with any."""
    return old is not None and old == (replace(new, endpoint=old.endpoint) if new.endpoint is None else new)


def _gained(old: PeerConfig | None, new: PeerConfig) -> set[str]:
    return set(new.allowed_ips) - set(old.allowed_ips if old else ())


def _taken(old: PeerConfig | None, new: PeerConfig, taken: set[str]) -> bool:
    """True if *old* less *taken* leaves just what *new* allows."""
    return old is not None and set(old.allowed_ips) - taken == set(new.allowed_ips)


def _sysctls(live: NodeState, wanted: NodeState) -> Iterator[SysctlChange]:
    have = dict(live.sysctls)
    for key, new in wanted.sysctls:
        if have.get(key) != new:
            yield SysctlChange(key=key, old=have.get(key), new=new)


def _switches(live: NodeState, wanted: NodeState) -> Iterator[RouteChange | RuleChange]:
    """Routes, those of trunk tables before those of main, then the rules that lead into a table now filled."""
    have = {route.place: route for route in live.routes}
    fresh = set(wanted.routes) - set(live.routes)
    for route in sorted(fresh, key=lambda r: (r.table == MAIN_TABLE, r.family, r.prefix)):
        yield RouteChange(old=have.get(route.place), new=route)
    for rule in sorted(set(wanted.rules) - set(live.rules)):
        yield RuleChange(old=None, new=rule)


def _gone(live: Iterable[RouteEntry], wanted: Iterable[RouteEntry]) -> list[RouteEntry]:
    """Routes whose place no wanted route takes."""
    places = {route.place for route in wanted}
    return sorted((r for r in live if r.place not in places), key=lambda r: (r.table, r.family, r.prefix))


def _removals(have: Device, want: Device) -> Iterator[Change]:
    kept = {p.public_key for p in want.peers}
    for peer in have.peers:
        if peer.public_key not in kept:
            yield PeerChange(device=have.name, old=peer, new=None)
    for address in have.addresses:
        if address not in want.addresses:
            yield AddressChange(device=have.name, old=address, new=None)
