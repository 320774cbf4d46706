"""Recover applies that died: ``python -m saltext_wgmesh.minion.apply.recover MESH...``.

The watcher starts this program. The next apply of the mesh recovers too.
"""

from __future__ import annotations

import logging
import sys

from saltext_wgmesh.core.errors import HostError, RolledBack, WgmeshError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import journal
from saltext_wgmesh.minion.apply.comparison import NodeMesh
from saltext_wgmesh.minion.apply.rollback import roll_back
from saltext_wgmesh.minion.apply.timeouts import DEFAULT, Timeouts
from saltext_wgmesh.minion.state import admin_down
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.system.moment import boot_id

log = logging.getLogger(__name__)


def recover(host: Host, mesh: str, *, timeouts: Timeouts = DEFAULT) -> None:
    """Check the apply of *mesh* that died, and roll it back if the node lost something by it. Do nothing without one.

    RolledBack if the previous view was restored; HostError if that failed.
    """
    node = NodeMesh(host=host, mesh=mesh, timeouts=timeouts)
    with node.store.locked():
        _recover(node)


def recover_first(node: NodeMesh, view: View) -> None:
    """Recover an apply that died, before *view* is applied by the caller, which holds the lock.

    RolledBack if the apply that died was one of this same view, and the view is to blame. Any other outcome is logged,
    and the caller goes on: its view decides what the node holds.
    """
    try:
        _recover(node)
    except RolledBack:
        rolled_back = node.store.rolled_back()
        if rolled_back and rolled_back.digest == view.digest():
            raise
    except HostError as error:
        log.warning("wgmesh %s: %s", node.mesh, error)
        journal.clear_pending(node.store)


def _recover(node: NodeMesh) -> None:
    pending = journal.read_pending(node.store)
    if pending:
        log.warning("wgmesh %s: the apply of %s died: checking the node", node.mesh, pending.requested_digest[:8])
        # A request of the process that died would hold links down until it expires.
        files.remove_file(admin_down.request_path(node.host, node.mesh))
        # The apply may have died after its last change. To roll back a sound node would disrupt its links for nothing.
        lost = pending.attempt.lost(node, node.timeouts.recovery)
        if lost:
            # A view that was applied in part, or a node that booted, may lack something for that reason alone. Then the
            # view may be tried again at once.
            is_applied = node.store.view() == pending.view
            blame_view = is_applied and pending.boot_id == boot_id(node.host)
            roll_back(node, pending, "; ".join(lost), blame_view=blame_view)
    journal.clear_pending(node.store)


def main(meshes: list[str]) -> int:
    """Recover the applies of *meshes*; return the exit status, which is 1 if one had to be rolled back or failed."""
    status = 0
    for mesh in meshes:
        try:
            recover(Host(), mesh)
        except (WgmeshError, OSError) as error:
            log.error("%s: %s", mesh, error)
            status = 1
    return status


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(main(sys.argv[1:]))
