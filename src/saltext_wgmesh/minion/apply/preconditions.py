"""Reasons to refuse a view before anything is changed."""

from __future__ import annotations

import time
from collections.abc import Iterable

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device.diff import Change, RouteChange
from saltext_wgmesh.core.device.state import MAIN_TABLE
from saltext_wgmesh.core.errors import HostError, RolledBack
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.state import boot_files
from saltext_wgmesh.minion.state.store import Store, meshes
from saltext_wgmesh.minion.system import kernel

RETRY_AFTER_ROLLBACK = 600.0
"""Seconds within which a view that was rolled back is not tried again, unless the caller asks for it."""


def refuse_if_recently_rolled_back(store: Store, view: View) -> None:
    """Raise RolledBack if this same view was rolled back within RETRY_AFTER_ROLLBACK: it would break the node again."""
    rolled_back = store.rolled_back()
    if rolled_back is None or rolled_back.digest != view.digest():
        return
    age = time.time() - rolled_back.at
    # A time in the future was written before the clock was set back: it says nothing.
    if not 0 <= age < RETRY_AFTER_ROLLBACK:
        return
    applied = store.view()
    raise RolledBack(
        f"{rolled_back.reason} (it was tried {age:.0f} s ago: the master tries it again)",
        applied.digest() if applied else None,
    )


def refuse_foreign_devices(store: Store, view: View, snapshot: kernel.Snapshot) -> None:
    """Raise HostError if a device or boot file with a name of *view* was not made by this mesh.

    A device that booted from our file is ours, even if the state on disk was lost.
    """
    owned = store.owned().interfaces
    foreign = [
        i.name
        for i in view.interfaces
        if i.name in snapshot.links and i.name not in owned and not boot_files.is_ours(store.host, view.mesh, i.name)
    ]
    if foreign:
        raise HostError(
            f"{', '.join(foreign)} exists on this node and was not made by mesh {view.mesh}: nothing was changed; "
            f"remove it ('ip link del {foreign[0]}') or have the mesh use another interface"
        )
    boot_files.refuse_foreign(store.host, view.mesh, [i.name for i in view.interfaces])


def refuse_clashing_mesh(store: Store, view: View) -> None:
    """Raise HostError if another mesh of this node has a routing table, an interface or a UDP port of *view*.

    The master compares the meshes that it knows. A node may still have one that it was never told to leave.
    """
    names, ports = {i.name for i in view.interfaces}, {i.listen_port for i in view.interfaces} - {0}
    for mesh in meshes(store.host):
        if mesh == view.mesh:
            continue
        other = Store(host=store.host, mesh=mesh)
        applied = other.view()
        taken = {i.listen_port for i in applied.interfaces} if applied else set[int]()
        table = constants.trunk_table(mesh)
        shared = [
            *([f"routing table {table}"] if table == constants.trunk_table(view.mesh) else []),
            *(f"interface {name}" for name in sorted(names & other.owned().interfaces)),
            *(f"UDP port {port}" for port in sorted(ports & taken)),
        ]
        if shared:
            raise HostError(
                f"{shared[0]} of mesh {view.mesh} is also that of the mesh {mesh} on this node: nothing was changed; "
                f"if the node is to leave that one, call 'state.single wgmesh.absent {mesh}' on it, else change the "
                "policy of one of both"
            )


def refuse_route_conflicts(store: Store, view: View, changes: Iterable[Change]) -> None:
    """Raise HostError if *changes* add a route that takes the place of a foreign one.

    The master refuses a mesh that overlaps a network of the node. It knows what the node has published, and the node
    knows what it has now.
    """
    new = {
        c.new.prefix
        for c in changes
        if isinstance(c, RouteChange) and c.new and not c.old and c.new.table == MAIN_TABLE
    }
    own = {*store.owned().interfaces, *(i.name for i in view.interfaces)}
    devices = kernel.foreign_routes(store.host, own, new) if new else {}
    foreign = sorted(devices)
    if foreign:
        raise HostError(
            f"{', '.join(foreign)} of mesh {view.mesh} has a route by {devices[foreign[0]]} on this node already: "
            f"nothing was changed; remove that ('ip route del {foreign[0]}'), or take the prefix out of the mesh"
        )
