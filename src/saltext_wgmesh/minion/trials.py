"""One try of a view: its changes in turns, and what must be there afterwards since it was before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from saltext_wgmesh.core import turns
from saltext_wgmesh.core.diff import Change
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.types import View
from saltext_wgmesh.minion import linkfile, resting, selfcheck
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.running import run_all
from saltext_wgmesh.minion.selfcheck import Master
from saltext_wgmesh.minion.store import Store

FOLLOW = 2.0
"""Seconds in which the other ends of a turn's links are given time to follow, before the next turn."""
BACK = 3.0
"""Seconds that a link has to be heard again, on the way back or with another key, before the next one has its turn."""


class Broken(Exception):
    """A link does not come back from its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How the changes are made, what there was before, and what of it must be there afterwards."""

    plan: turns.Turns
    before: selfcheck.Before
    view: View | None
    previous: View | None
    awaited: frozenset[str] = frozenset()
    one_of: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    """The words for none → of these one at least."""
    patience: float = selfcheck.PATIENCE
    """Seconds that a link has to be heard again after its turn."""
    insists: bool = True
    """Whether all ends when one is not."""

    def back(self, plan: turns.Turns) -> Trial:
        """The way back: *plan* is gone through, whoever is heard or not."""
        return replace(self, plan=plan, awaited=plan.awaited, patience=BACK, insists=False)


def begin(host: Host, store: Store, view: View, changes: tuple[Change, ...], master: Master | None) -> Trial:
    """Where no watcher runs, nobody can have links rest or say whether they are up: all is done at once."""
    held = store.view()
    before = selfcheck.look(host, view.mesh)
    plan = turns.split(changes, held, view, before.up)
    if plan.disturbs or (changes and master and selfcheck.concerns(master, held, view)):
        before = before.with_master(master)
    stays = turns.lasting(held, view)
    return Trial(
        plan=plan if linkfile.watched(host, view.mesh) else turns.Turns(first=changes),
        before=before,
        view=held,
        previous=_previous(store) if changes else None,
        awaited=plan.awaited & before.up,
        one_of=MappingProxyType(
            {
                "no relay": selfcheck.relays(held, view, before, stays) if plan.disturbs else frozenset(),
                # A firewall, for one, may know interfaces by their names.
                **{f"nobody on {t.interfaces[0]}": t.neighbours & before.up for t in plan.turns if t.makes_anew},
            }
        ),
    )


def make(host: Host, mesh: str, trial: Trial, look: Callable[[], tuple[Change, ...]]) -> list[str]:
    """The changes are made, in turns; what is returned are errors about names that do not resolve. Broken, with the
    rest left undone, if a link that was heard before its turn is not afterwards.

    What comes last, routes above all, is what *look* finds after the turns: the watcher has moved some meanwhile. So
    are endpoints of peers that are not heard at the one that they had.
    """
    unresolved = run_all(host, trial.plan.first, mesh)
    for turn in trial.plan.turns:
        with resting.at_rest(host, mesh, turn.neighbours):
            unresolved += run_all(host, turn.changes, mesh)
        if turn.makes_anew:
            continue
        awaited = turn.awaited & trial.awaited
        silent = resting.unheard(host, mesh, awaited, trial.patience / 2)
        if silent:
            # If both ends moved at once, each calls the other where it was: then the view knows better.
            unresolved += run_all(host, turns.moved(look(), _keys(trial.view, silent)), mesh)
            silent = resting.unheard(host, mesh, awaited, trial.patience / 2)
        if turn.changes_key:
            # Those too who open the link themselves: the next turn may be that of their only other way.
            resting.unheard(host, mesh, turn.neighbours & trial.before.up, BACK)
        if silent and trial.insists:
            changed = f"after the changes of {', '.join(turn.interfaces)}"
            raise Broken("; ".join(f"{n} is not heard any more {changed}" for n in silent))
        # Most of the others hear this node at its new place as soon as it speaks; the rest must be told of it.
        resting.unheard(host, mesh, turn.neighbours & trial.before.up, FOLLOW)
    last = turns.last_of(look()) if trial.plan.turns else trial.plan.last
    return unresolved + run_all(host, last, mesh)


def _keys(view: View | None, nodes: Collection[str]) -> frozenset[str]:
    """The public keys of *nodes*, as *view* has them."""
    peers = (p for i in view.interfaces for p in i.peers) if view else ()
    return frozenset(key for p in peers if p.node in nodes for key in p.keys)


def _previous(store: Store) -> View | None:
    """The view before the one held; a damaged record of it is no reason to fail."""
    try:
        return store.previous()
    except HostError:
        return None
