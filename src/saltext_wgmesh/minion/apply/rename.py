"""Rename interfaces one after the other, each while its links are held down and the others carry the traffic."""

from __future__ import annotations

from collections.abc import Callable

from saltext_wgmesh.core.device.descriptions import ChangeText
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.transition import interface_rename
from saltext_wgmesh.minion.apply import health_check
from saltext_wgmesh.minion.apply.comparison import NodeMesh
from saltext_wgmesh.minion.state import admin_down


def rename_steps(node: NodeMesh, view: View) -> tuple[interface_rename.RenameStep, ...]:
    """Return the steps by which interfaces get the names that they have in *view*.

    Without a watcher there are none: no link can be held down, and all interfaces are renamed at once.
    """
    return interface_rename.views_of_rename(node.store.view(), view) if node.watcher_is_alive else ()


def apply_steps(
    node: NodeMesh, steps: tuple[interface_rename.RenameStep, ...], apply_view: Callable[[View], tuple[ChangeText, ...]]
) -> tuple[ChangeText, ...]:
    """Apply the view of each of *steps* by *apply_view*, and return what changed.

    After each step, wait until the neighbours that were up before it are up again, or the timeout is over. An error of
    *apply_view* ends the renaming at that step.
    """
    changes: tuple[ChangeText, ...] = ()
    for step in steps:
        # Read for each step: a neighbour that went down in between would delay every later step by the whole timeout.
        up = health_check.baseline(node).links_up
        changes += apply_view(step.view)
        admin_down.wait_for_links(node.host, node.mesh, step.neighbours & up, node.timeouts.verify)
    return changes
