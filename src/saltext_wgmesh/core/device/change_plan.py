"""The order in which an apply makes its changes, so that a node never disturbs two of its paths at once.

Changes that only add come first, all at once. Changes that disturb an interface in use, such as another port, are made
interface by interface, each while its links are admin-down. An interface with a new name is recreated: the device with
the old name loses its peers in the same step. Routes and removals come last.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from saltext_wgmesh.core.device.diff import AddressChange, Change, DeviceChange, PeerChange, Setting, SettingChange
from saltext_wgmesh.core.device.state import PeerConfig
from saltext_wgmesh.core.model.view import Interface, Kind, View
from saltext_wgmesh.core.transition.interface_rename import interface_renames

DISRUPTIVE_SETTINGS = (Setting.KEY, Setting.PORT, Setting.MTU)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptiveStep:
    """Changes that are made together, while the links to *neighbours* are admin-down."""

    interfaces: tuple[str, ...]
    neighbours: frozenset[str]
    """The neighbours whose links the changes disturb. Empty: the step only waits for a port that another releases."""
    must_return: frozenset[str]
    """Those of *neighbours* whose links come up as soon as this node has made the changes.

    This node initiates them, and both their ends keep address and key. For the others, the far end may have to follow
    first.
    """
    changes: tuple[Change, ...]
    recreates_device: bool = False
    """Whether a device replaces another: its links can come up only when the watcher has the view with it."""

    @property
    def changes_key(self) -> bool:
        """Whether this node runs another key afterwards; all neighbours have both keys."""
        return any(isinstance(c, SettingChange) and c.setting is Setting.KEY for c in self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePlan:
    """All changes of one apply, in the order of the fields."""

    harmless: tuple[Change, ...] = ()
    disruptive: tuple[DisruptiveStep, ...] = ()
    cleanup: tuple[Change, ...] = ()

    @property
    def must_return(self) -> frozenset[str]:
        """The neighbours of all steps whose links must come up again."""
        return frozenset().union(*(step.must_return for step in self.disruptive))

    @property
    def is_disruptive(self) -> bool:
        """Whether a path that works now may stop working."""
        return bool(self.disruptive) or any(_removes(change) for change in self.cleanup)


@dataclass(slots=True, kw_only=True)
class _Group:
    """The changes of one interface, in their order."""

    interface: str
    changes: list[DeviceChange | SettingChange | AddressChange | PeerChange] = field(default_factory=list)
    neighbours: set[str] = field(default_factory=set)
    after: frozenset[str] = frozenset()
    """Interfaces that must release a port before this one gets it."""


def plan_changes(changes: Iterable[Change], before: View | None, after: View, up: Set[str]) -> ChangePlan:
    """Return the order of *changes*, the result of ``diff``, on the way from the view *before* to the view *after*.

    *up* are the neighbours whose links carry packets. Interfaces whose links are down come first, the access interface
    last; an interface that releases a port comes before the one that gets it. Interfaces that would wait for each
    other's ports in a ring share a step.
    """
    have = {i.name: i for i in before.interfaces} if before else {}
    listed = list(changes)
    recreated = _recreations(listed, interface_renames(before, after))
    groups, cleanup = _groups(listed, have, after, recreated)
    released = {
        c.old: recreated.get(c.device, c.device) for c in listed if isinstance(c, SettingChange) and _releases_port(c)
    }
    for group in groups.values():
        ports = {c.new for c in group.changes if isinstance(c, SettingChange) and c.setting is Setting.PORT}
        group.after = frozenset(released[p] for p in ports if p in released and released[p] != group.interface)
    # Without a link that could be lost, the changes need no steps.
    if not any(group.neighbours for group in groups.values()):
        last = set(cleanup)
        return ChangePlan(harmless=tuple(c for c in listed if c not in last), cleanup=tuple(cleanup))
    harmless = [
        g for g in groups.values() if not g.neighbours and not g.after and not any(map(_releases_port, g.changes))
    ]
    are_harmless = {g.interface for g in harmless}
    disruptive = [g for g in groups.values() if g.interface not in are_harmless]
    lasting, created = self_initiated_links(before, after), frozenset(recreated.values())
    return ChangePlan(
        harmless=tuple(c for group in harmless for c in group.changes),
        disruptive=tuple(
            _disruptive_step(together, lasting, created)
            for together in _ordered(disruptive, up, _access_interface(after))
        ),
        cleanup=tuple(cleanup),
    )


def cleanup_of(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return those of *changes* that come after all steps."""
    return tuple(c for c in changes if _removes(c) or not isinstance(c, _OF_DEVICES))


def endpoint_moves(changes: Iterable[Change], keys: Collection[str]) -> tuple[Change, ...]:
    """Return those of *changes* that only change the endpoint of a peer with one of these public *keys*."""
    return tuple(
        c
        for c in changes
        if isinstance(c, PeerChange)
        and c.public_key in keys
        and c.old
        and c.new
        and replace(c.new, endpoint=c.old.endpoint) == c.old
    )


def _recreations(changes: Iterable[Change], names: Mapping[str, str]) -> dict[str, str]:
    """Return those of *names*, old → new, whose old device is removed and whose new one is created."""
    devices = {(c.device, c.new) for c in changes if isinstance(c, DeviceChange)}
    return {old: new for old, new in names.items() if {(old, False), (new, True)} <= devices}


def _groups(
    changes: Iterable[Change], have: Mapping[str, Interface], after: View, recreated: Mapping[str, str]
) -> tuple[dict[str, _Group], list[Change]]:
    """Return the changes of each interface before the routes switch, and the changes after that."""
    keys = {(i.name, p.public_key): p.node for i in after.interfaces for p in i.peers}
    old_keys = {(name, p.public_key): p.node for name, i in have.items() for p in i.peers}
    created = {c.device for c in changes if isinstance(c, DeviceChange) and c.new}
    groups: dict[str, _Group] = {}
    cleanup: list[Change] = []
    # Neighbours that come back with another key: both their peers change in one step, as they share allowed-ips.
    replaced = {
        (c.device, keys.get((c.device, c.public_key)))
        for c in changes
        if isinstance(c, PeerChange) and c.old is None and c.device not in created
    } & {(device, node) for (device, _), node in old_keys.items()}
    # The old device of a recreated one goes first: it has the port that the new device gets.
    for change in sorted(changes, key=lambda c: not (isinstance(c, _OF_DEVICES) and c.device in recreated)):
        is_replaced = (
            isinstance(change, PeerChange)
            and change.new is None
            and (change.device, old_keys.get((change.device, change.public_key))) in replaced
        )
        if isinstance(change, DeviceChange) and change.device in recreated:
            interface = have[change.device]
            group = groups.setdefault(recreated[change.device], _Group(interface=recreated[change.device]))
            group.changes += _peer_removals(interface)
            group.neighbours.update(p.node for p in interface.peers)
        if not is_replaced and (_removes(change) or not isinstance(change, _OF_DEVICES)):
            cleanup.append(change)
            continue
        assert isinstance(change, _OF_DEVICES)
        name = recreated.get(change.device, change.device)
        group = groups.setdefault(name, _Group(interface=name))
        group.changes.append(change)
        # A new device has no link yet that could lose a packet.
        if change.device in have and change.device not in created:
            group.neighbours |= _disturbed(change, have[change.device], keys, old_keys, replaced)
    return groups, cleanup


def _peer_removals(interface: Interface) -> list[PeerChange]:
    """Return the removal of all peers, after which the device sends nothing.

    The device itself stays until no route uses it. The kernel would remove its routes with it, also those without
    another path, and the reverse path filter drops packets by the routes that exist.
    """
    keys = [key for peer in interface.peers for key in peer.keys]
    return [
        PeerChange(
            device=interface.name, old=PeerConfig(public_key=key, endpoint=None, keepalive=0, allowed_ips=()), new=None
        )
        for key in keys
    ]


_OF_DEVICES = (DeviceChange, SettingChange, AddressChange, PeerChange)


def _removes(change: Change) -> bool:
    if isinstance(change, DeviceChange):
        return not change.new
    return isinstance(change, AddressChange | PeerChange) and change.new is None


def _releases_port(change: Change) -> bool:
    return isinstance(change, SettingChange) and change.setting is Setting.PORT and change.new == "0"


def _disturbed(
    change: Change,
    interface: Interface,
    keys: Mapping[tuple[str, str], str],
    old_keys: Mapping[tuple[str, str], str],
    replaced: Set[tuple[str, str | None]],
) -> frozenset[str]:
    """Return the neighbours whose links may lose a packet by *change*."""
    if isinstance(change, SettingChange) and change.setting in DISRUPTIVE_SETTINGS:
        return frozenset(p.node for p in interface.peers)
    if not isinstance(change, PeerChange):
        return frozenset()
    peer_key = (change.device, change.public_key)
    node = keys.get(peer_key) or old_keys.get(peer_key)
    moved = change.old and change.new and change.new.endpoint and change.new.endpoint != change.old.endpoint
    return frozenset({node}) if node and (moved or (change.device, node) in replaced) else frozenset()


def _ordered(groups: list[_Group], up: Set[str], access: str) -> Iterable[list[_Group]]:
    """Yield the groups one by one; those that wait for each other's ports together.

    The access interface comes last. Leaves behind NAT may not hear a relay at its new port before they have the view
    with it. Until then its trunks must carry their packets.
    """
    order = sorted(groups, key=lambda g: (bool(g.neighbours & up), g.interface == access, g.interface))
    left = {g.interface: place for place, g in enumerate(order)}
    waiting = {g.interface: g.after & left.keys() for g in order}
    followers: dict[str, list[str]] = {}
    for interface, ahead in waiting.items():
        for name in ahead:
            followers.setdefault(name, []).append(interface)
    # Sorted, so it is a heap already: the first group in order that waits for no other.
    ready = [place for name, place in left.items() if not waiting[name]]
    while left:
        together = [order[heapq.heappop(ready)]] if ready else _in_rings([order[place] for place in left.values()])
        yield together
        for group in together:
            del left[group.interface]
        for name in {f for group in together for f in followers.get(group.interface, ()) if f in left}:
            if not waiting[name] & left.keys():
                heapq.heappush(ready, left[name])


def _access_interface(view: View) -> str:
    return next((i.name for i in view.interfaces if i.kind is Kind.ACCESS), "")


def _in_rings(groups: list[_Group]) -> list[_Group]:
    """Return those of *groups* that wait for each other in a ring: groups that no other waits for are left out."""
    by_name = {g.interface: g for g in groups}
    followers = Counter(name for g in groups for name in g.after if name in by_name)
    unawaited = [name for name in by_name if not followers[name]]
    while unawaited:
        group = by_name.pop(unawaited.pop())
        for name in group.after & by_name.keys():
            followers[name] -= 1
            if not followers[name]:
                unawaited.append(name)
    return list(by_name.values())


def _disruptive_step(together: list[_Group], lasting: Set[str], created: Set[str]) -> DisruptiveStep:
    """Return the step of the groups *together*.

    *lasting* are the neighbours whose links keep both ends, *created* the devices that replace others.
    """
    neighbours = frozenset().union(*(group.neighbours for group in together))
    changes = [c for group in together for c in group.changes]
    if len(together) > 1:
        # In a ring, all ports are released before any is set.
        changes.sort(key=lambda c: not _releases_port(c))
    else:
        # Alone, the interface gets its new port at once, so it need not be without one.
        ports = Counter(c.device for c in changes if isinstance(c, SettingChange) and c.setting is Setting.PORT)
        changes = [c for c in changes if not (_releases_port(c) and ports[c.device] > 1)]
    return DisruptiveStep(
        interfaces=tuple(group.interface for group in together),
        neighbours=neighbours,
        must_return=neighbours & lasting,
        changes=tuple(changes),
        recreates_device=any(group.interface in created for group in together),
    )


def self_initiated_links(before: View | None, after: View) -> frozenset[str]:
    """Return the neighbours whose links keep both their ends in the two views, and are initiated by this node."""
    if before is None or before.addresses != after.addresses:
        return frozenset()
    names = interface_renames(before, after)
    # Either key of a peer counts: a rotation does not change an end of the link.
    old_links = {
        (names.get(i.name, i.name), p.node, p.address, key)
        for i in before.interfaces
        for p in i.peers
        for key in p.keys
    }
    return frozenset(
        p.node
        for i in after.interfaces
        for p in i.peers
        if p.endpoint and any((i.name, p.node, p.address, key) in old_links for key in p.keys)
    )
