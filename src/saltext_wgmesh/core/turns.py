"""The changes of an apply → in which turns they are made, so that a node never changes two of its ways at once.

What only adds comes first, all at once. What disturbs an interface that carries, such as another port, is made
interface by interface, each while its links rest. An interface that gets another name is made anew: the device of the
old name falls silent in the same turn. Routes and removals come last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from saltext_wgmesh.core.device import PeerConfig
from saltext_wgmesh.core.diff import AddressChange, Change, DeviceChange, PeerChange, Setting, SettingChange
from saltext_wgmesh.core.renaming import renamed
from saltext_wgmesh.core.types import Interface, Kind, View

DISTURBING = (Setting.KEY, Setting.PORT, Setting.MTU)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Changes that are made together, while the links to *neighbours* rest."""

    interfaces: tuple[str, ...]
    neighbours: frozenset[str]
    """Whose links the changes disturb; none: the turn only waits for a port that another gives up."""
    awaited: frozenset[str]
    """Those of them that can be heard again as soon as this node has made the changes: it opens the connection itself,
    and both ends stay who they are. Of the others, the other end may have to follow first."""
    changes: tuple[Change, ...]
    makes_anew: bool = False
    """Whether a device takes the place of another: its links are heard when the watcher has the view with it."""

    @property
    def changes_key(self) -> bool:
        """Whether this node is somebody else afterwards; all neighbours know both."""
        return any(isinstance(c, SettingChange) and c.setting is Setting.KEY for c in self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """All changes of one apply."""

    first: tuple[Change, ...] = ()
    turns: tuple[Turn, ...] = ()
    last: tuple[Change, ...] = ()

    @property
    def awaited(self) -> frozenset[str]:
        """Of all turns."""
        return frozenset().union(*(turn.awaited for turn in self.turns))

    @property
    def disturbs(self) -> bool:
        """Whether anything that carried may not carry any more."""
        return bool(self.turns) or any(_removes(change) for change in self.last)


@dataclass(slots=True, kw_only=True)
class _Group:
    """The changes of one interface, in their order."""

    interface: str
    changes: list[DeviceChange | SettingChange | AddressChange | PeerChange] = field(default_factory=list)
    neighbours: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    """Interfaces that hold a port that this one is to get."""


def split(changes: Iterable[Change], before: View | None, after: View, up: Set[str]) -> Turns:
    """The turns of *changes*, which ``diff`` made, from the view *before* to *after*; *up* are the neighbours whose
    links carry. What is broken has its turn first, the access interface last; what gives up a port before what gets it.

    A ring of interfaces that would have to wait for each other's ports is one turn.
    """
    have = {i.name: i for i in before.interfaces} if before else {}
    listed = list(changes)
    anew = _anew(listed, renamed(before, after))
    groups, last = _groups(listed, have, after, anew)
    freed = {c.old: anew.get(c.device, c.device) for c in listed if isinstance(c, SettingChange) and _frees(c)}
    for group in groups.values():
        gets = {c.new for c in group.changes if isinstance(c, SettingChange) and c.setting is Setting.PORT}
        group.after = frozenset(freed[p] for p in gets if p in freed and freed[p] != group.interface)
    if not any(group.neighbours for group in groups.values()):
        return Turns(first=tuple(c for c in listed if c not in set(last)), last=tuple(last))
    calm = [g for g in groups.values() if not g.neighbours and not g.after and not any(map(_frees, g.changes))]
    rest = [g for g in groups.values() if g not in calm]
    return Turns(
        first=tuple(c for group in calm for c in group.changes),
        turns=tuple(_turn(together, before, after, anew) for together in _ordered(rest, up, _access(after))),
        last=tuple(last),
    )


def last_of(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Those of *changes* that come after all turns."""
    return tuple(c for c in changes if _removes(c) or not isinstance(c, _OF_DEVICES))


def moved(changes: Iterable[Change], keys: Collection[str]) -> tuple[Change, ...]:
    """Those of *changes* by which peers with these public *keys* are called elsewhere, and nothing else of them
    changes."""
    return tuple(
        c
        for c in changes
        if isinstance(c, PeerChange)
        and c.public_key in keys
        and c.old
        and c.new
        and replace(c.new, endpoint=c.old.endpoint) == c.old
    )


def _anew(changes: Iterable[Change], names: Mapping[str, str]) -> dict[str, str]:
    """Those of *names*, old to new, where a device goes and one comes."""
    made = {(c.device, c.new) for c in changes if isinstance(c, DeviceChange)}
    return {old: new for old, new in names.items() if {(old, False), (new, True)} <= made}


def _groups(
    changes: Iterable[Change], have: Mapping[str, Interface], after: View, anew: Mapping[str, str]
) -> tuple[dict[str, _Group], list[Change]]:
    """The changes of each interface that are made before the routes switch, and those that are made after."""
    keys = {(i.name, p.public_key): p.node for i in after.interfaces for p in i.peers}
    had = {(name, p.public_key): p.node for name, i in have.items() for p in i.peers}
    made = {c.device for c in changes if isinstance(c, DeviceChange) and c.new}
    groups: dict[str, _Group] = {}
    last: list[Change] = []
    replaced = {
        (c.device, keys.get((c.device, c.public_key)))
        for c in changes
        if isinstance(c, PeerChange) and c.old is None and c.device not in made
    } & {(device, node) for (device, _), node in had.items()}
    # What goes of a device that is made anew goes first.
    for change in sorted(changes, key=lambda c: not (isinstance(c, _OF_DEVICES) and c.device in anew)):
        is_replaced = (
            isinstance(change, PeerChange)
            and change.new is None
            and (change.device, had.get((change.device, change.public_key))) in replaced
        )
        if isinstance(change, DeviceChange) and change.device in anew:
            interface = have[change.device]
            group = groups.setdefault(anew[change.device], _Group(interface=anew[change.device]))
            group.changes += _silenced(interface)
            group.neighbours |= frozenset(p.node for p in interface.peers)
        if not is_replaced and (_removes(change) or not isinstance(change, _OF_DEVICES)):
            last.append(change)
            continue
        assert isinstance(change, _OF_DEVICES)
        name = anew.get(change.device, change.device)
        group = groups.setdefault(name, _Group(interface=name))
        group.changes.append(change)
        if change.device in have and change.device not in made:
            group.neighbours |= _disturbed(change, have[change.device], keys, had, replaced)
    return groups, last


def _silenced(interface: Interface) -> list[PeerChange]:
    """It says nothing more to anybody. The device itself stays until no route leads to it: the kernel would take those
    that have no other way with it, and the reverse path filter drops packets by what routes there are."""
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


def _frees(change: Change) -> bool:
    return isinstance(change, SettingChange) and change.setting is Setting.PORT and change.new == "0"


def _disturbed(
    change: Change,
    interface: Interface,
    keys: Mapping[tuple[str, str], str],
    had: Mapping[tuple[str, str], str],
    replaced: Set[tuple[str, str | None]],
) -> frozenset[str]:
    """The neighbours whose links may lose a packet by *change*."""
    if isinstance(change, SettingChange) and change.setting in DISTURBING:
        return frozenset(p.node for p in interface.peers)
    if not isinstance(change, PeerChange):
        return frozenset()
    place = (change.device, change.public_key)
    node = keys.get(place) or had.get(place)
    moved = change.old and change.new and change.new.endpoint and change.new.endpoint != change.old.endpoint
    return frozenset({node}) if node and (moved or (change.device, node) in replaced) else frozenset()


def _ordered(groups: list[_Group], up: Set[str], access: str) -> Iterable[list[_Group]]:
    """One after the other; those that wait for each other's ports together.

    The access interface comes last: leaves behind NAT may not hear a relay at its new port before they are told of it,
    and until then its trunks must carry what is for them.
    """
    left = sorted(groups, key=lambda g: (bool(g.neighbours & up), g.interface == access, g.interface))
    while left:
        names = {g.interface for g in left}
        ready = next((g for g in left if not g.after & names), None)
        together = [ready] if ready else [g for g in left if _waits_for_itself(g, left)]
        yield together
        left = [g for g in left if g not in together]


def _access(view: View) -> str:
    return next((i.name for i in view.interfaces if i.kind is Kind.ACCESS), "")


def _waits_for_itself(group: _Group, groups: Iterable[_Group]) -> bool:
    after = {g.interface: g.after for g in groups}
    seen: set[str] = set()
    ahead = set(group.after)
    while ahead:
        name = ahead.pop()
        if name == group.interface:
            return True
        if name not in seen:
            seen.add(name)
            ahead |= after.get(name, frozenset())
    return False


def _turn(together: list[_Group], before: View | None, after: View, anew: Mapping[str, str]) -> Turn:
    """A port that is given up is 0 meanwhile only in a ring: else its interface has its own new one before."""
    neighbours = frozenset().union(*(group.neighbours for group in together))
    changes = [c for group in together for c in group.changes]
    if len(together) > 1:
        changes.sort(key=lambda c: not _frees(c))
    else:
        ports = Counter(c.device for c in changes if isinstance(c, SettingChange) and c.setting is Setting.PORT)
        changes = [c for c in changes if not (_frees(c) and ports[c.device] > 1)]
    return Turn(
        interfaces=tuple(group.interface for group in together),
        neighbours=neighbours,
        awaited=neighbours & lasting(before, after),
        changes=tuple(changes),
        makes_anew=any(group.interface in anew.values() for group in together),
    )


def lasting(before: View | None, after: View) -> frozenset[str]:
    """The neighbours whose links stay between the same two ends in both views, and are opened by this one."""
    if before is None or before.addresses != after.addresses:
        return frozenset()
    names = renamed(before, after)
    had = {
        (names.get(i.name, i.name), p.node, p.address, key)
        for i in before.interfaces
        for p in i.peers
        for key in p.keys
    }
    return frozenset(
        p.node
        for i in after.interfaces
        for p in i.peers
        if p.endpoint and any((i.name, p.node, p.address, key) in had for key in p.keys)
    )
