"""Changes in words: log lines, a state's ``changes`` and a dry run all say the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from saltext_wgmesh.core.device import MAIN_TABLE, PeerConfig, RouteEntry, RuleEntry
from saltext_wgmesh.core.diff import (
    AddressChange,
    Change,
    DeviceChange,
    PeerChange,
    RouteChange,
    RuleChange,
    SettingChange,
    SysctlChange,
)

PRESHARED = "preshared key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change as a person reads it."""

    subject: str
    """A device, ``routes``, ``rules`` or ``sysctl``."""
    item: str
    """What of it; empty: the device itself."""
    old: str | None
    """None: was not there."""
    new: str | None
    """None: is to go."""

    def __str__(self) -> str:
        what = f"{self.subject} {self.item}".rstrip()
        if self.old is None:
            return f"+ {what}: {self.new}"
        return f"- {what}: {self.old}" if self.new is None else f"~ {what}: {self.old} -> {self.new}"


def entry(change: Change, labels: Mapping[str, str]) -> Entry:
    """*change* in words; *labels* gives nodes their names by public key."""
    if isinstance(change, DeviceChange):
        old, new = (None, "present") if change.new else ("present", None)
        return Entry(subject=change.device, item="", old=old, new=new)
    if isinstance(change, SettingChange):
        return Entry(subject=change.device, item=change.setting.value, old=change.old, new=change.new)
    if isinstance(change, AddressChange):
        return Entry(subject=change.device, item="address", old=change.old, new=change.new)
    if isinstance(change, PeerChange):
        return _peer_entry(change, labels)
    if isinstance(change, SysctlChange):
        return Entry(subject="sysctl", item=change.key.replace("/", "."), old=change.old, new=change.new)
    return _switch_entry(change)


def _peer_entry(change: PeerChange, labels: Mapping[str, str]) -> Entry:
    old = _peer(change.old) if change.old else {}
    new = _peer(change.new) if change.new else {}
    if change.old and change.new:
        old[PRESHARED], new[PRESHARED] = secrecy(change.old.preshared, change.new.preshared)
        # A wanted endpoint of None is content with the one that is there.
        differ = [k for k in old if old[k] != new[k] and not (k == "endpoint" and change.new.endpoint is None)]
        old, new = {k: old[k] for k in differ}, {k: new[k] for k in differ}
    return Entry(
        subject=change.device,
        item=f"peer {labels.get(change.public_key, change.public_key)}",
        old=" ".join(f"{k} {v}" for k, v in old.items()) or None,
        new=" ".join(f"{k} {v}" for k, v in new.items()) or None,
    )


def secrecy(old: object, new: object) -> tuple[str, str]:
    """What to say of two preshared keys of one peer, by their identifiers: not more than whether they differ."""
    return "set" if old else "none", ("another" if old and old != new else "set") if new else "none"


def _peer(peer: PeerConfig) -> dict[str, str]:
    return {
        "endpoint": peer.endpoint or "none",
        "keepalive": str(peer.keepalive),
        "allowed-ips": ",".join(peer.allowed_ips) or "none",
        "key": peer.public_key,
        **({PRESHARED: "set"} if peer.preshared else {}),
    }


def _switch_entry(change: RouteChange | RuleChange) -> Entry:
    if isinstance(change, RuleChange):
        rule = change.new or change.old
        assert rule is not None
        return Entry(
            subject="rules",
            item=f"IPv{rule.family} from {rule.device}",
            old=_rule(change.old),
            new=_rule(change.new),
        )
    route = change.new or change.old
    assert route is not None
    where = "" if route.table == MAIN_TABLE else f" in table {route.table}"
    return Entry(subject="routes", item=f"{route.prefix}{where}", old=_route(change.old), new=_route(change.new))


def _rule(rule: RuleEntry | None) -> str | None:
    return f"table {rule.table}" if rule else None


def _route(route: RouteEntry | None) -> str | None:
    if route is None:
        return None
    source = f" from {route.source}" if route.source else ""
    return f"{route.device}{source}" if route.device else "unreachable"


def as_changes(entries: Iterable[Entry]) -> dict[str, dict[str, dict[str, str | None]]]:
    """Subject → item → old and new, for a state's ``changes``. Of an item told twice: the first old, the last new."""
    told: dict[str, dict[str, dict[str, str | None]]] = {}
    for one in entries:
        items = told.setdefault(one.subject, {})
        item = one.item or "device"
        # Two addresses of a device are two items.
        if item == "address":
            item = f"address {one.new or one.old}"
        before = items.get(item, {"old": one.old})
        items[item] = {"old": before["old"], "new": one.new}
    return told
