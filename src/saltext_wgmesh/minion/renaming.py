"""Interfaces get their new names one after the other, each while its links rest and the node goes by the others."""

from __future__ import annotations

from collections.abc import Callable

from saltext_wgmesh.core import renaming
from saltext_wgmesh.core.types import View
from saltext_wgmesh.core.wording import Entry
from saltext_wgmesh.minion import linkfile, resting, selfcheck
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Store


def steps(host: Host, store: Store, view: View) -> tuple[renaming.Step, ...]:
    """What the node goes through on its way to *view*; nothing where no watcher runs: there all is done at once."""
    return renaming.steps(store.view(), view) if linkfile.watched(host, view.mesh) else ()


def go_through(
    host: Host, mesh: str, listed: tuple[renaming.Step, ...], take_up: Callable[[View], tuple[Entry, ...]]
) -> tuple[Entry, ...]:
    """The node holds the last of the steps that are *listed*; each is left when the neighbours are heard again that
    were before, or when that took too long. Returns what changed. What *take_up* raises ends it where it is then."""
    changes: tuple[Entry, ...] = ()
    for step in listed:
        up = selfcheck.look(host, mesh).up
        changes += take_up(step.view)
        resting.unheard(host, mesh, step.neighbours & up, selfcheck.PATIENCE)
    return changes
