"""The changes from the live to the desired state, ordered so that no packet is lost on the way.

A change has an old and a new side; None: the object is absent. Commands, log lines and a state's ``changes`` all
derive from these values.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from saltext_wgmesh.core.device.state import MAIN_TABLE, Device, KernelState, PeerConfig, RouteEntry, RuleEntry


class Setting(enum.Enum):
    """A property that a device has exactly once."""

    KEY = "public key"
    PORT = "listen port"
    MTU = "mtu"
    STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChange:
    """A device created or removed."""

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
    """An address added to a device or removed from it."""

    device: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChange:
    """A peer added, changed or removed."""

    device: str
    old: PeerConfig | None
    new: PeerConfig | None
    allowed_ips_already_moved: bool = False
    """True if the allowed-ips that it loses moved to peers changed before it: the kernel already took them away."""

    @property
    def public_key(self) -> str:
        """The public key of the side that exists."""
        return (self.new or self.old).public_key  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """A route added, replaced or removed."""

    old: RouteEntry | None
    new: RouteEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """A rule added or removed."""

    old: RuleEntry | None
    new: RuleEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SysctlChange:
    """One kernel setting, by its path below /proc/sys."""

    key: str
    old: str | None
    new: str


Change = DeviceChange | SettingChange | AddressChange | PeerChange | RouteChange | RuleChange | SysctlChange


def diff(live: KernelState, desired: KernelState) -> tuple[Change, ...]:
    """Return the changes that turn *live* into *desired*, in an order that is safe to run; empty if they agree.

    Additions come first, then routes and rules, then removals, so that a packet always finds a path that works. In
    *desired*, port 0 and endpoint None accept any value.
    """
    have = {d.name: d for d in live.devices}
    want = {d.name: d for d in desired.devices}
    return (
        *_freed_ports(have, want),
        *(change for name in sorted(want) for change in _additions(have.get(name), want[name])),
        *_sysctls(live, desired),
        *_route_changes(live, desired),
        # Rules go before the routes of their table: no packet is looked up in a table that is being emptied.
        *(RuleChange(old=rule, new=None) for rule in sorted(set(live.rules) - set(desired.rules))),
        *(RouteChange(old=route, new=None) for route in _removed_routes(live.routes, desired.routes)),
        *(change for name in sorted(want) if name in have for change in _removals(have[name], want[name])),
        *(DeviceChange(device=name, new=False) for name in sorted(have.keys() - want.keys())),
    )


def _freed_ports(have: Mapping[str, Device], want: Mapping[str, Device]) -> Iterator[SettingChange]:
    """Yield the release of each port that one device has and another one is to get: a port has one socket."""
    wanted = {d.listen_port for d in want.values()}
    for name, device in sorted(have.items()):
        own = want[name].listen_port if name in want else 0
        # A port that stays, or that no other device gets, is not released: that would interrupt its links.
        if device.listen_port and device.listen_port != own and device.listen_port in wanted:
            yield SettingChange(device=name, setting=Setting.PORT, old=str(device.listen_port), new="0")


def _additions(have: Device | None, want: Device) -> Iterator[Change]:
    """Yield the additions of a device in a safe order: it goes up last, when it can answer."""
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
        # Port 0 accepts the port that the kernel chose.
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
    """Yield peers added and changed, those that gain allowed-ips first.

    The kernel moves an allowed-ip to the peer that gains it, in one step, so that it is never without a peer.
    """
    old = {p.public_key: p for p in have}
    changed = [p for p in want.peers if not _same(old.get(p.public_key), p)]
    gained = {p.public_key: _gained(old.get(p.public_key), p) for p in changed}
    moved: set[str] = set()
    for peer in sorted(changed, key=lambda p: (not gained[p.public_key], p.public_key)):
        before = old.get(peer.public_key)
        has_moved = _only_loses(before, peer, moved)
        yield PeerChange(device=want.name, old=before, new=peer, allowed_ips_already_moved=has_moved)
        moved |= gained[peer.public_key]


def _same(old: PeerConfig | None, new: PeerConfig) -> bool:
    """Return whether there is nothing to set: a desired endpoint of None accepts any."""
    return old is not None and old == (replace(new, endpoint=old.endpoint) if new.endpoint is None else new)


def _gained(old: PeerConfig | None, new: PeerConfig) -> set[str]:
    return set(new.allowed_ips) - set(old.allowed_ips if old else ())


def _only_loses(old: PeerConfig | None, new: PeerConfig, moved: set[str]) -> bool:
    """Return whether the allowed-ips of *old* without those *moved* are exactly those of *new*."""
    return old is not None and set(old.allowed_ips) - moved == set(new.allowed_ips)


def _sysctls(live: KernelState, desired: KernelState) -> Iterator[SysctlChange]:
    have = dict(live.sysctls)
    for key, new in desired.sysctls:
        if have.get(key) != new:
            yield SysctlChange(key=key, old=have.get(key), new=new)


def _route_changes(live: KernelState, desired: KernelState) -> Iterator[RouteChange | RuleChange]:
    """Yield routes, those of trunk tables before those of main, then the rules that lead into a table now filled."""
    have = {route.key: route for route in live.routes}
    changed = set(desired.routes) - set(live.routes)
    for route in sorted(changed, key=lambda r: (r.table == MAIN_TABLE, r.family, r.prefix)):
        yield RouteChange(old=have.get(route.key), new=route)
    for rule in sorted(set(desired.rules) - set(live.rules)):
        yield RuleChange(old=None, new=rule)


def _removed_routes(live: Iterable[RouteEntry], desired: Iterable[RouteEntry]) -> list[RouteEntry]:
    """Return the live routes that no desired route replaces."""
    keys = {route.key for route in desired}
    return sorted((r for r in live if r.key not in keys), key=lambda r: (r.table, r.family, r.prefix))


def _removals(have: Device, want: Device) -> Iterator[Change]:
    remaining = {p.public_key for p in want.peers}
    for peer in have.peers:
        if peer.public_key not in remaining:
            yield PeerChange(device=have.name, old=peer, new=None)
    for address in have.addresses:
        if address not in want.addresses:
            yield AddressChange(device=have.name, old=address, new=None)
