"""One attempt to apply a view: its changes in an order that keeps links up, and what must be up afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from saltext_wgmesh.core.device import change_plan
from saltext_wgmesh.core.device.diff import Change
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import executor, health_check
from saltext_wgmesh.minion.apply.comparison import NodeMesh
from saltext_wgmesh.minion.apply.health_check import Baseline, Master
from saltext_wgmesh.minion.state import admin_down
from saltext_wgmesh.minion.state.store import Store


class LinkLost(Exception):
    """A link did not come up again after its disruptive step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How the changes are made, what the node had before them, and what it must have afterwards."""

    plan: change_plan.ChangePlan
    baseline: Baseline
    old_view: View | None
    """The view that was applied before; None: this is the first one."""
    older_view: View | None
    """The view before *old_view*, which a rollback makes the previous one again."""
    required: frozenset[str] = frozenset()
    """The neighbours whose links must all be up."""
    required_any: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    """Name of a group → the neighbours of which at least one link must be up."""
    abort_on_loss: bool = True
    """Whether a link that does not come up after its step ends the attempt."""

    def for_rollback(self, plan: change_plan.ChangePlan) -> Attempt:
        """Return the attempt that rolls this one back by *plan*. It is made to the end, whatever link is lost."""
        return replace(self, plan=plan, required=plan.must_return, abort_on_loss=False)

    def lost(self, node: NodeMesh, timeout: float) -> tuple[str, ...]:
        """Return in words what *node* has lost by this attempt, after at most *timeout* seconds; empty if nothing."""
        return health_check.lost_since(node, self.baseline, self.required, self.required_any, timeout)


def prepare(node: NodeMesh, view: View, changes: tuple[Change, ...], master: Master | None) -> Attempt:
    """Return the attempt to apply *view* by *changes*.

    Without a watcher no link can be held down, and nothing reports whether it is up: all changes are made at once.
    """
    old_view = node.store.view()
    before = health_check.baseline(node)
    plan = change_plan.plan_changes(changes, old_view, view, before.links_up)
    if plan.is_disruptive or (changes and master and health_check.may_route_master(master, old_view, view)):
        before = before.with_master(master)
    lasting = change_plan.self_initiated_links(old_view, view)
    required_any = {
        "relay": health_check.required_relays(old_view, view, before, lasting) if plan.is_disruptive else frozenset(),
        # A device with another name may lose all its links: a firewall may know interfaces by their names.
        **{
            f"neighbour on {t.interfaces[0]}": t.neighbours & before.links_up
            for t in plan.disruptive
            if t.recreates_device
        },
    }
    return Attempt(
        plan=plan if node.watcher_is_alive else change_plan.ChangePlan(harmless=changes),
        baseline=before,
        old_view=old_view,
        older_view=_previous(node.store) if changes else None,
        required=plan.must_return & before.links_up,
        required_any=MappingProxyType(required_any),
    )


def execute(node: NodeMesh, attempt: Attempt, changes_left: Callable[[], tuple[Change, ...]]) -> list[str]:
    """Make the changes, step by step; return the errors about names that do not resolve.

    *changes_left* compares the node again. The cleanup at the end is taken from it, since the watcher moves routes
    during the steps. LinkLost if a link that was up is not up after its step; then the rest is left undone.
    """
    plan, links_up = attempt.plan, attempt.baseline.links_up
    unresolved = executor.run_all(node, plan.harmless)
    for step in plan.disruptive:
        with admin_down.links_admin_down(node.host, node.mesh, step.neighbours):
            unresolved += executor.run_all(node, step.changes)
        if step.recreates_device:
            # The watcher knows the new device only from the view that has it: the links are checked at the end.
            continue
        missing, more_unresolved = _wait_for_step(node, attempt, step, changes_left)
        unresolved += more_unresolved
        if step.changes_key:
            # Also wait for neighbours that initiate the link: the next step may disrupt their only other path.
            admin_down.wait_for_links(node.host, node.mesh, step.neighbours & links_up, node.timeouts.optional_link)
        if missing and attempt.abort_on_loss:
            changed = f"after the changes of {', '.join(step.interfaces)}"
            raise LinkLost("; ".join(f"{n} is no longer reachable {changed}" for n in missing))
        # Most of the other neighbours learn the new endpoint from this node's first packet. Those behind a NAT need a
        # view of their own for it, so they are not waited for any longer than this.
        admin_down.wait_for_links(node.host, node.mesh, step.neighbours & links_up, node.timeouts.follow_up)
    cleanup = change_plan.cleanup_of(changes_left()) if plan.disruptive else plan.cleanup
    return unresolved + executor.run_all(node, cleanup)


def _wait_for_step(
    node: NodeMesh, attempt: Attempt, step: change_plan.DisruptiveStep, changes_left: Callable[[], tuple[Change, ...]]
) -> tuple[tuple[str, ...], list[str]]:
    """Return the neighbours whose links are not up after *step* though they must be, and errors about names."""
    required = step.must_return & attempt.required
    timeout = node.timeouts.link if attempt.abort_on_loss else node.timeouts.optional_link
    missing = admin_down.wait_for_links(node.host, node.mesh, required, timeout / 2)
    if not missing:
        return (), []
    # If both ends moved at once, each sends to the old endpoint of the other: then the view has the right one.
    moves = change_plan.endpoint_moves(changes_left(), _public_keys(attempt.old_view, missing))
    unresolved = executor.run_all(node, moves)
    return admin_down.wait_for_links(node.host, node.mesh, required, timeout / 2), unresolved


def _public_keys(view: View | None, nodes: Collection[str]) -> frozenset[str]:
    """Return the public keys that *nodes* have in *view*."""
    peers = (p for i in view.interfaces for p in i.peers) if view else ()
    return frozenset(key for p in peers if p.node in nodes for key in p.keys)


def _previous(store: Store) -> View | None:
    """Return the view before the applied one. A damaged file is no reason to fail: then there is none."""
    try:
        return store.previous()
    except HostError:
        return None
