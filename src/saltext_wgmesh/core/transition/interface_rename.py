"""Interfaces that get other names, and the views by which a node renames one interface at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.view import Interface, Kind, View

_Purpose = tuple[Kind, bool, frozenset[str]]
"""The identity of an interface apart from its name: its kind, whether it has a fixed port, and its neighbours. The
neighbours of the access interface come and go, so they don't count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameStep:
    """A view in which one interface more has its new name."""

    view: View
    neighbours: frozenset[str]
    """The neighbours whose links use the renamed interface."""


def interface_renames(held: View | None, view: View) -> dict[str, str]:
    """Return name in *held* → name in *view*, for each interface that has another name there.

    Two interfaces are the same if both are the access interface, or if they have the same purpose.
    """
    before, after = ({} if v is None else _by_purpose(v) for v in (held, view))
    common = sorted(before.keys() & after.keys(), key=_order)
    pairs = ((before[purpose].name, after[purpose].name) for purpose in common)
    return {old: new for old, new in pairs if old != new}


def half_renamed(view: View) -> tuple[str, ...]:
    """Return the interfaces of *view* that are not named after its access interface, sorted.

    There are such interfaces only while a node renames its interfaces.
    """
    access = next((i.name for i in view.interfaces if i.kind is Kind.ACCESS), "")
    others = (i.name for i in view.interfaces if i.kind is not Kind.ACCESS)
    return tuple(sorted(name for name in others if constants.stem(name) != access))


def views_of_rename(held: View | None, view: View) -> tuple[RenameStep, ...]:
    """Return the views between *held* and *view*: each renames one interface more of *held*, the access interface last.

    An interface whose new name is in use waits until that name is free. Empty if *held* is None.
    """
    return () if held is None else tuple(_rename_steps(held, interface_renames(held, view)))


def _rename_steps(held: View, left: Mapping[str, str]) -> Iterator[RenameStep]:
    while left:
        in_use = {i.name for i in held.interfaces}
        old = next((old for old, new in left.items() if new not in in_use), None)
        if old is None:
            # Two interfaces exchange their names, or one that is removed has the name: the view itself solves that.
            return
        renamed = next(i for i in held.interfaces if i.name == old)
        # The position stays: relays try detours in the order of the interfaces.
        interfaces = tuple(replace(i, name=left[old]) if i is renamed else i for i in held.interfaces)
        held = replace(held, interfaces=interfaces)
        yield RenameStep(view=held, neighbours=frozenset(p.node for p in renamed.peers))
        left = {name: new for name, new in left.items() if name != old}


def _by_purpose(view: View) -> dict[_Purpose, Interface]:
    """Return purpose → interface, without purposes that several interfaces have."""
    count = Counter(map(_purpose, view.interfaces))
    return {_purpose(i): i for i in view.interfaces if count[_purpose(i)] == 1}


def _purpose(interface: Interface) -> _Purpose:
    nodes = () if interface.kind is Kind.ACCESS else (p.node for p in interface.peers)
    # An uplink that replaces a trunk is another link, so the kind counts.
    return interface.kind, interface.listen_port > 0, frozenset(nodes)


def _order(purpose: _Purpose) -> tuple[bool, list[str]]:
    kind, _, nodes = purpose
    return kind is Kind.ACCESS, sorted(nodes)
