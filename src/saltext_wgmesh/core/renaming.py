"""Interfaces that get other names: which they are, and the views by which a node goes through that one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from saltext_wgmesh.core import names
from saltext_wgmesh.core.types import Interface, Kind, View

_Part = tuple[Kind, bool, frozenset[str]]
"""What an interface is for: its kind, whether it has a port of its own, its neighbours unless these come and go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One interface has its new name."""

    view: View
    neighbours: frozenset[str]
    """Whose links it has."""


def renamed(held: View | None, view: View) -> dict[str, str]:
    """Name in *held* → name in *view*, of the interfaces that have another there: the access interface, and each that
    is for the same neighbours."""
    before, after = ({} if v is None else _by_part(v) for v in (held, view))
    pairs = ((before[part].name, after[part].name) for part in sorted(before.keys() & after.keys(), key=_order))
    return {old: new for old, new in pairs if old != new}


def unfinished(view: View) -> tuple[str, ...]:
    """The interfaces of *view* that are not called after its access interface, sorted: on the way to other names."""
    access = next((i.name for i in view.interfaces if i.kind is Kind.ACCESS), "")
    others = (i.name for i in view.interfaces if i.kind is not Kind.ACCESS)
    return tuple(sorted(name for name in others if names.stem(name) != access))


def steps(held: View | None, view: View) -> tuple[Step, ...]:
    """The views between *held* and *view*, each *held* with one interface more that has its new name, the access
    interface last; one whose new name another has is passed over until that has given it up. None if *held* is None."""
    return () if held is None else tuple(_steps(held, renamed(held, view)))


def _steps(held: View, left: Mapping[str, str]) -> Iterator[Step]:
    while left:
        taken = {i.name for i in held.interfaces}
        old = next((old for old, new in left.items() if new not in taken), None)
        if old is None:
            # Another that goes has it, or they would change places: that is left to the view itself.
            return
        one = next(i for i in held.interfaces if i.name == old)
        # In its place: detours are taken in the order of the interfaces.
        listed = tuple(replace(i, name=left[old]) if i is one else i for i in held.interfaces)
        held = replace(held, interfaces=listed)
        yield Step(view=held, neighbours=frozenset(p.node for p in one.peers))
        left = {name: new for name, new in left.items() if name != old}


def _by_part(view: View) -> dict[_Part, Interface]:
    """The interfaces by what they are for, without those that are for the same."""
    count = Counter(map(_part, view.interfaces))
    return {_part(i): i for i in view.interfaces if count[_part(i)] == 1}


def _part(interface: Interface) -> _Part:
    nodes = () if interface.kind is Kind.ACCESS else (p.node for p in interface.peers)
    # An uplink that takes the place of a trunk is another link.
    return interface.kind, interface.listen_port > 0, frozenset(nodes)


def _order(part: _Part) -> tuple[bool, list[str]]:
    kind, _, nodes = part
    return kind is Kind.ACCESS, sorted(nodes)
