"""Changes as text, the same in log lines, in a state's ``changes`` and in a dry run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device.diff import (
    AddressChange,
    Change,
    DeviceChange,
    PeerChange,
    RouteChange,
    RuleChange,
    SettingChange,
    SysctlChange,
)
from saltext_wgmesh.core.device.state import MAIN_TABLE, PeerConfig, RouteEntry, RuleEntry

PSK_ITEM = "preshared key"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeText:
    """One change as an operator reads it."""

    subject: str
    """A device, ``routes``, ``rules`` or ``sysctl``."""
    item: str
    """The part of the subject that changes; empty: the device itself."""
    old: str | None
    """None: it was absent."""
    new: str | None
    """None: it is removed."""

    def __str__(self) -> str:
        name = f"{self.subject} {self.item}".rstrip()
        if self.old is None:
            return f"+ {name}: {self.new}"
        return f"- {name}: {self.old}" if self.new is None else f"~ {name}: {self.old} -> {self.new}"


def describe(change: Change, labels: Mapping[str, str]) -> ChangeText:
    """Return *change* as text; *labels* is public key → name of the node."""
    if isinstance(change, DeviceChange):
        old, new = (None, "present") if change.new else ("present", None)
        return ChangeText(subject=change.device, item="", old=old, new=new)
    if isinstance(change, SettingChange):
        return ChangeText(subject=change.device, item=change.setting.value, old=change.old, new=change.new)
    if isinstance(change, AddressChange):
        return ChangeText(subject=change.device, item="address", old=change.old, new=change.new)
    if isinstance(change, PeerChange):
        return _peer_text(change, labels)
    if isinstance(change, SysctlChange):
        return ChangeText(subject="sysctl", item=change.key.replace("/", "."), old=change.old, new=change.new)
    return _route_or_rule_text(change)


def _peer_text(change: PeerChange, labels: Mapping[str, str]) -> ChangeText:
    old = _peer(change.old) if change.old else {}
    new = _peer(change.new) if change.new else {}
    if change.old and change.new:
        # Replaces what ``_peer`` says: that alone would show two different keys as equal.
        old[PSK_ITEM], new[PSK_ITEM] = describe_psk(change.old.psk_id, change.new.psk_id)
        # A desired endpoint of None accepts the present one.
        differ = [k for k in old if old[k] != new[k] and not (k == "endpoint" and change.new.endpoint is None)]
        old, new = {k: old[k] for k in differ}, {k: new[k] for k in differ}
    return ChangeText(
        subject=change.device,
        item=f"peer {labels.get(change.public_key, change.public_key)}",
        old=" ".join(f"{k} {v}" for k, v in old.items()) or None,
        new=" ".join(f"{k} {v}" for k, v in new.items()) or None,
    )


def describe_psk(old: object, new: object) -> tuple[str, str]:
    """Return texts for the old and new preshared key of a peer, by their identifiers, which the texts do not show."""
    return "set" if old else "none", ("another" if old and old != new else "set") if new else "none"


def _peer(peer: PeerConfig) -> dict[str, str]:
    return {
        "endpoint": peer.endpoint or "none",
        "keepalive": str(peer.keepalive),
        "allowed-ips": ",".join(peer.allowed_ips) or "none",
        "key": peer.public_key,
        **({PSK_ITEM: "set"} if peer.psk_id else {}),
    }


def _route_or_rule_text(change: RouteChange | RuleChange) -> ChangeText:
    if isinstance(change, RuleChange):
        rule = change.new or change.old
        assert rule is not None
        return ChangeText(
            subject="rules",
            item=f"IPv{rule.family} from {rule.device}",
            old=_rule(change.old),
            new=_rule(change.new),
        )
    route = change.new or change.old
    assert route is not None
    suffix = "" if route.table == MAIN_TABLE else f" in table {route.table}"
    return ChangeText(subject="routes", item=f"{route.prefix}{suffix}", old=_route(change.old), new=_route(change.new))


def refused_rules_text(rules: Collection[RuleEntry]) -> str:
    """Return a sentence on *rules*, which ``parse_inverted_rules`` returned."""
    listed = ", ".join(sorted(f"{rule.device} (IPv{rule.family})" for rule in rules))
    return (
        f"the kernel takes no rule for packets from {listed}, since another program has one that differs by 'not' "
        f"alone: delete those that 'ip rule show priority {constants.RULE_PRIORITY}' lists"
    )


def _rule(rule: RuleEntry | None) -> str | None:
    return f"table {rule.table}" if rule else None


def _route(route: RouteEntry | None) -> str | None:
    if route is None:
        return None
    source = f" from {route.source}" if route.source else ""
    return f"{route.device}{source}" if route.device else "unreachable"


def salt_changes(texts: Iterable[ChangeText]) -> dict[str, dict[str, dict[str, str | None]]]:
    """Return subject → item → old and new, for a state's ``changes``.

    If an item changes twice, its entry has the first old and the last new value.
    """
    changes: dict[str, dict[str, dict[str, str | None]]] = {}
    for one in texts:
        items = changes.setdefault(one.subject, {})
        item = one.item or "device"
        # Two addresses of a device are two items.
        if item == "address":
            item = f"address {one.new or one.old}"
        before = items.get(item, {"old": one.old})
        items[item] = {"old": before["old"], "new": one.new}
    return changes
