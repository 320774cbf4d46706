"""Restore the view that the node had before an apply that broke it."""

from __future__ import annotations

import logging
import time
from typing import NoReturn

from saltext_wgmesh.core.device import change_plan
from saltext_wgmesh.core.device.diff import Change
from saltext_wgmesh.core.errors import HostError, RolledBack
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import attempt, health_check, journal, untracked
from saltext_wgmesh.minion.apply.comparison import NodeMesh
from saltext_wgmesh.minion.apply.journal import PendingApply
from saltext_wgmesh.minion.apply.removal import remove_locked
from saltext_wgmesh.minion.state import boot_files
from saltext_wgmesh.minion.state.store import Owned, RolledBackView

log = logging.getLogger(__name__)


def roll_back(node: NodeMesh, pending: PendingApply, reason: str, *, blame_view: bool = True) -> NoReturn:
    """Restore the view that the node had before *pending*, and raise RolledBack with *reason*.

    If *blame_view* is set, the requested view is recorded as rolled back, so that it is not tried again at once. A
    key activation is undone too: the old key file is deleted only after a successful apply. HostError with both reasons
    if restoring fails.
    """
    log.warning("wgmesh %s: rolling back the view %s: %s", node.mesh, pending.requested_digest[:8], reason)
    old_view = pending.attempt.old_view
    try:
        if old_view is None:
            remove_locked(node)
        else:
            _restore(node, old_view, pending)
    except HostError as error:
        raise HostError(f"{reason}; and restoring the previous view failed: {error}") from error
    # Marked before the journal goes: a process that dies between leaves both, and the view is not tried at once.
    if blame_view:
        node.store.set_rolled_back(RolledBackView(digest=pending.requested_digest, reason=reason, at=time.time()))
    journal.clear_pending(node.store)
    raise RolledBack(reason, old_view.digest() if old_view else None)


def _restore(node: NodeMesh, old_view: View, pending: PendingApply) -> None:
    """Make the node hold *old_view* again, step by step where a watcher runs, even if links don't come up."""
    store, broken_view = node.store, pending.view
    # The devices of either view may exist now. If this process dies, a removal must find all of them.
    store.set_owned(Owned.by(old_view) | Owned.by(broken_view) | store.owned())
    comparison = node.compare(old_view, endpoints_set_by=broken_view)
    plan = change_plan.ChangePlan(harmless=comparison.changes)
    if node.watcher_is_alive:
        plan = change_plan.plan_changes(comparison.changes, broken_view, old_view, health_check.baseline(node).links_up)

    def changes_left() -> tuple[Change, ...]:
        return node.compare(old_view, endpoints_set_by=broken_view).changes

    attempt.execute(node, pending.attempt.for_rollback(plan), changes_left)
    boot_files.write_boot_files(node.host, node.mesh, comparison.at_boot)
    untracked.apply_table(node.host, old_view)
    store.restore(old_view, pending.attempt.older_view)
    store.set_owned(Owned.by(old_view))
