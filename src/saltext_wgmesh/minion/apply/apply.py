"""Apply a view: make this node's devices, routes and rules what the view says, by the fewest changes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from saltext_wgmesh.core.device.descriptions import ChangeText
from saltext_wgmesh.core.device.diff import Change, RouteChange
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import attempt, executor, preconditions, untracked
from saltext_wgmesh.minion.apply.comparison import NodeMesh
from saltext_wgmesh.minion.apply.health_check import Master
from saltext_wgmesh.minion.apply.journal import PendingApply, journaled
from saltext_wgmesh.minion.apply.outcome import ApplyResult, describe_result
from saltext_wgmesh.minion.apply.recover import recover_first
from saltext_wgmesh.minion.apply.rename import apply_steps, rename_steps
from saltext_wgmesh.minion.apply.rollback import roll_back
from saltext_wgmesh.minion.apply.timeouts import DEFAULT, Timeouts
from saltext_wgmesh.minion.state import boot_files, keys, psk_files
from saltext_wgmesh.minion.state.store import Owned, meshes
from saltext_wgmesh.minion.system import kernel
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.system.moment import boot_id


def apply(
    host: Host,
    view: View,
    *,
    dry_run: bool = False,
    psks: Mapping[str, str] = MappingProxyType({}),
    master: Master | None = None,
    retry_rolled_back: bool = True,
    timeouts: Timeouts = DEFAULT,
) -> ApplyResult:
    """Make this node hold *view*: devices, peers, addresses, routes, rules, kernel settings and boot files.

    Only what differs is changed. *psks* are PSK id → key; keys that the node already has may be left out. HostError if
    a command fails, a device of that name is foreign, a PSK is missing, or something still differs after the changes.
    Changes that were made until then stay, and the next apply continues.

    RolledBack if the node has then lost a link, all relays, or *master*. It holds the previous view again. If
    *retry_rolled_back* is False, a view that was rolled back recently is refused with RolledBack.
    """
    node = NodeMesh(host=host, mesh=view.mesh, timeouts=timeouts)
    if dry_run:
        return _dry_run(node, view)
    with node.store.locked():
        recover_first(node, view)
        if not retry_rolled_back:
            preconditions.refuse_if_recently_rolled_back(node.store, view)
        # Before the changes: the commands and the files for wg-quick name the files of PSKs.
        psk_files.save(node.store, view, psks)
        return _apply(node, view, master)


def rollback(host: Host, mesh: str, master: Master | None = None) -> ApplyResult:
    """Apply the previous view of *mesh*, until the master's next apply. HostError if there is no such view."""
    previous = NodeMesh(host=host, mesh=mesh).store.previous()
    if previous is None:
        raise HostError(f"this node has no earlier view of {mesh}: there is nothing to roll back to")
    return apply(host, previous, master=master)


def reroute(host: Host, view: View) -> None:
    """Move the routes of *view* to links that the report has as up; change nothing else. HostError as above."""
    node = NodeMesh(host=host, mesh=view.mesh)
    with node.store.locked():
        executor.run_changes(node, node.compare(view).route_moves)


def _dry_run(node: NodeMesh, view: View) -> ApplyResult:
    preconditions.refuse_clashing_mesh(node.store, view)
    comparison = node.compare(view, when_stable=True)
    changes = comparison.changes
    preconditions.refuse_route_conflicts(node.store, view, changes)
    boot_changes = boot_files.write_boot_files(node.host, view.mesh, comparison.at_boot, dry_run=True)
    described = describe_result(changes, node.store.view(), view)
    firewall_changes = untracked.apply_table(node.host, view, dry_run=True)
    described = (*described, *firewall_changes, *boot_changes)
    return ApplyResult(mesh=view.mesh, digest=view.digest(), changes=described)


def _apply(node: NodeMesh, view: View, master: Master | None) -> ApplyResult:
    """Apply *view*, through the views that rename interfaces one by one, and clean up what only the old view needed."""
    host, store = node.host, node.store

    def apply_view(each: View) -> tuple[ChangeText, ...]:
        return _apply_view(node, each, view.digest(), master)

    preconditions.refuse_clashing_mesh(store, view)
    old_view, steps = store.view(), rename_steps(node, view)
    if steps:
        # The views of the steps have only some of the new names: a foreign device must be found before the first.
        preconditions.refuse_foreign_devices(store, view, kernel.snapshot(host, rules=False))
    changes = (*apply_steps(node, steps, apply_view), *apply_view(view))
    if old_view and steps:
        # The views of the steps are none to roll back to.
        store.restore(view, old_view)
    store.set_rolled_back(None)
    # Only after success: a rollback also makes the view before the last one the previous one, which needs its PSKs.
    psk_files.prune(store)
    if keys.retire_old_key(host):
        # From now on all meshes run the new key, and so they must boot with it and with the PSKs that belong to it.
        for mesh in meshes(host):
            _write_boot_files(NodeMesh(host=host, mesh=mesh))
    return ApplyResult(mesh=view.mesh, digest=view.digest(), changes=changes)


def _write_boot_files(node: NodeMesh) -> None:
    view = node.store.view()
    if view:
        boot_files.write_boot_files(node.host, node.mesh, node.compare(view).at_boot)


def _apply_view(node: NodeMesh, view: View, requested_digest: str, master: Master | None) -> tuple[ChangeText, ...]:
    """Make the node hold *view*, the requested view or one that leads to it. Return what changed."""
    host, store = node.host, node.store
    if keys.key_to_run(host, view.activate_key) is None:
        raise keys.missing_key(host)
    comparison = node.compare(view, when_stable=True)
    changes = comparison.changes
    pending = PendingApply(
        view=view,
        requested_digest=requested_digest,
        attempt=attempt.prepare(node, view, changes, master),
        boot_id=boot_id(host),
    )
    if changes:
        preconditions.refuse_route_conflicts(store, view, changes)
        # Before anything is made: if this process dies, the next one knows what is ours.
        store.set_owned(Owned.by(view) | store.owned())
    with journaled(store, pending):
        if changes:
            _execute(node, pending)
            _verify(node, view)
        described = describe_result(changes, store.view(), view)
        boot_changes = boot_files.write_boot_files(host, view.mesh, comparison.at_boot)
        firewall_changes = untracked.apply_table(host, view)
        # From here on the watcher takes the view as the one to watch, so the links of new interfaces can come up.
        store.set_view(view)
        store.set_owned(Owned.by(view))
        if changes:
            lost = pending.attempt.lost(node, node.timeouts.verify)
            if lost:
                roll_back(node, pending, "; ".join(lost))
    return (*described, *firewall_changes, *boot_changes)


def _execute(node: NodeMesh, pending: PendingApply) -> None:
    """Make the changes. If that fails after a link may have been disrupted, roll back."""

    def changes_left() -> tuple[Change, ...]:
        return node.compare(pending.view).changes

    try:
        unresolved = attempt.execute(node, pending.attempt, changes_left)
    except (HostError, attempt.LinkLost) as error:
        if not pending.attempt.plan.disruptive:
            # Nothing was disrupted. Changes that were made stay, and the next apply goes on from there.
            raise
        roll_back(node, pending, str(error))
    if unresolved:
        raise HostError("; ".join(unresolved))


def _verify(node: NodeMesh, view: View) -> None:
    """Raise HostError with what still differs from *view*.

    Routes are left out where a watcher runs: it may move them at any moment. Until *view* is recorded as applied, the
    watcher also goes by the view before.
    """
    unmet = node.compare(view).unmet
    if node.watcher_is_alive:
        unmet = tuple(change for change in unmet if not isinstance(change, RouteChange))
    if unmet:
        differences = "; ".join(map(str, describe_result(unmet, view)))
        raise HostError(f"after the apply of {view.mesh} this still differs: {differences}")
