"""Remove a mesh from this node."""

from __future__ import annotations

import time

from saltext_wgmesh.core.device.diff import diff
from saltext_wgmesh.core.device.state import KernelState
from saltext_wgmesh.minion.apply import executor, untracked
from saltext_wgmesh.minion.apply.comparison import NodeMesh
from saltext_wgmesh.minion.apply.outcome import ApplyResult, describe_result
from saltext_wgmesh.minion.state import boot_files, link_report_file, psk_files
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host

WATCHER_RELEASE = 2.0
"""Seconds within which the watcher has noticed that a mesh was removed."""


def remove_mesh(host: Host, mesh: str, *, dry_run: bool = False) -> ApplyResult:
    """Remove everything of *mesh* from this node: devices, routes, rules, boot files and the state on disk."""
    node = NodeMesh(host=host, mesh=mesh)
    if dry_run:
        changes = describe_result(diff(node.kernel_state(), KernelState()), node.store.view())
        firewall_changes = untracked.remove_table(host, mesh, dry_run=True)
        boot_changes = boot_files.remove_boot_files(host, mesh, dry_run=True)
        return ApplyResult(mesh=mesh, digest=None, changes=(*changes, *firewall_changes, *boot_changes))
    with node.store.locked():
        result = remove_locked(node)
        files.remove_file(node.store.lock)
        return result


def remove_locked(node: NodeMesh) -> ApplyResult:
    """Remove the mesh, like ``remove_mesh``, while the caller holds its lock."""
    store, view = node.store, node.store.view()
    # As long as the watcher knows the mesh, it restores routes that it finds missing.
    store.deactivate()
    deadline = time.monotonic() + WATCHER_RELEASE
    while node.watcher_is_alive and time.monotonic() < deadline:
        time.sleep(0.05)
    changes = diff(node.kernel_state(), KernelState())
    executor.run_changes(node, changes)
    firewall_changes = untracked.remove_table(node.host, node.mesh)
    boot_changes = boot_files.remove_boot_files(node.host, node.mesh)
    psk_files.purge(store)
    # The record of what the mesh owns is deleted last: until then another removal can finish this one.
    store.purge()
    link_report_file.remove_report(node.host, node.mesh)
    described = (*describe_result(changes, view), *firewall_changes, *boot_changes)
    return ApplyResult(mesh=node.mesh, digest=None, changes=described)
