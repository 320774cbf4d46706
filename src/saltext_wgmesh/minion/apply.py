"""A view becomes this node's devices, routes and rules, by the fewest changes; or goes away again."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from saltext_wgmesh.core import names, routes, wanted, wording
from saltext_wgmesh.core.device import NodeState
from saltext_wgmesh.core.diff import Change, RouteChange, diff
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.script import IpBatch, MakeDevice, Step, WgSet, WriteSysctl, steps
from saltext_wgmesh.core.types import Kind, View
from saltext_wgmesh.minion import boot, keys, linkfile, observe
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Owned, Store

log = logging.getLogger(__name__)

NO_KEY = "(not made yet)"
MOVE = 0.5
"""Seconds in which the watcher has said why it moved a route."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an apply did, or in a dry run would do."""

    mesh: str
    digest: str | None
    """Of the view that now holds; None: the mesh is gone from this node."""
    changes: tuple[wording.Entry, ...]

    @property
    def changed(self) -> bool:
        """Whether anything was to do."""
        return bool(self.changes)

    @property
    def lines(self) -> list[str]:
        """The changes, one line each, in the order in which they are made."""
        return [str(change) for change in self.changes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One look at the node beside what it should hold."""

    live: NodeState
    target: NodeState
    """As the view says it."""
    goal: NodeState
    """The target, less the endpoints that may stay as they are."""
    boot: NodeState
    """The target as it is when nothing is known of the links yet."""

    @property
    def changes(self) -> tuple[Change, ...]:
        return diff(self.live, self.goal)


def apply(host: Host, view: View, *, dry_run: bool = False) -> Report:
    """This node holds *view*: devices, peers, addresses, routes, rules, kernel settings, and the files for boot.

    Only what differs is touched. HostError if a command fails, if a device of that name is somebody else's,
    or if after the changes something still differs; what was done until then stays, and the next apply goes on.
    """
    store = Store(host=host, mesh=view.mesh)
    if dry_run:
        work = _look_settled(host, store, view, keys.public_key(host) or NO_KEY)
        return _report(store, view, work.changes, boot.write(host, view.mesh, work.boot, dry_run=True))
    with store.locked():
        return _apply(host, store, view)


def _apply(host: Host, store: Store, view: View) -> Report:
    public_key = keys.public_key(host)
    if public_key is None:
        raise HostError(f"{host.key_file} is not there: 'salt-call state.apply wgmesh' makes a key and publishes it")
    work = _look_settled(host, store, view, public_key)
    changes = work.changes
    if changes:
        store.own(_owns(view) | store.owned())
        _run(host, changes, view.mesh)
        _confirm(host, store, view, public_key)
    report = _report(store, view, changes, boot.write(host, view.mesh, work.boot))
    store.keep(view)
    store.own(_owns(view))
    return report


def remove(host: Host, mesh: str, *, dry_run: bool = False) -> Report:
    """Nothing of *mesh* is on this node: no device, route, rule, file for boot or memory of it."""
    store = Store(host=host, mesh=mesh)
    if dry_run:
        changes = diff(_live(host, store, None, ()), NodeState())
        return _report(store, None, changes, boot.remove(host, mesh, dry_run=True))
    with store.locked():
        changes = diff(_live(host, store, None, ()), NodeState())
        _run(host, changes, mesh)
        report = _report(store, None, changes, boot.remove(host, mesh))
        store.forget()
        linkfile.remove(host, mesh)
        return report


def reroute(host: Host, view: View) -> None:
    """The routes go by the links that the link file says are up; nothing else is touched. HostError as above."""
    store = Store(host=host, mesh=view.mesh)
    with store.locked():
        changes = _look(host, store, view, keys.public_key(host) or NO_KEY).changes
        _run(host, tuple(c for c in changes if _is_move(c)), view.mesh)


def rollback(host: Host, mesh: str) -> Report:
    """This node holds the view that it held before the present one, until the next apply of the master's."""
    previous = Store(host=host, mesh=mesh).previous()
    if previous is None:
        raise HostError(f"this node holds no earlier view of {mesh}: there is nothing to go back to")
    return apply(host, previous)


def _look(host: Host, store: Store, view: View, public_key: str) -> _Work:
    """What the node holds, what it should, and what of that must change. A foreign device is an error."""
    families = frozenset({4, 6} if host.has_ipv6 else {4})
    advertised = observe.advertised(host) if view.forward else ()
    own = wanted.Own(public_key=public_key, families=families, advertised=advertised)
    target = wanted.state(view, _routes(host, view), own)
    seen = observe.snapshot(host, rules=_has_trunk(store, view))
    _refuse_foreign(host, store, view, seen)
    live = _part(host, store, view, seen, [key for key, _ in target.sysctls])
    applied = store.view()
    now = time.time()
    fresh = {
        (s.device, s.public_key)
        for s in seen.stats(d.name for d in live.devices)
        if s.handshake_at is not None and now - s.handshake_at < names.REJECT_AFTER_TIME
    }
    goal = wanted.keep_roamed(target, live, fresh, wanted.endpoints(applied) if applied else {})
    at_boot = wanted.state(view, routes.choose(view), own)
    return _Work(live=live, target=target, goal=goal, boot=at_boot)


def _look_settled(host: Host, store: Store, view: View, public_key: str) -> _Work:
    """A look while the watcher is not amid a move: it moves a route a moment before it says why."""
    work = _look(host, store, view, public_key)
    if work.changes and all(_is_move(c) for c in work.changes) and _is_watched(host, view) and store.view() == view:
        time.sleep(MOVE)
        work = _look(host, store, view, public_key)
    return work


def _is_move(change: Change) -> bool:
    """Whether a route takes another way, and nothing else changes."""
    return isinstance(change, RouteChange) and bool(change.old and change.new)


def _routes(host: Host, view: View) -> tuple[routes.KernelRoute, ...]:
    """By the links that the watcher says are up, where one runs. A link that it does not know yet is made before it
    is used."""
    report = linkfile.read(host, view.mesh)
    if report is None:
        return routes.choose(view)
    unknown = {p.node for i in view.interfaces for p in i.peers} - report.links.keys()
    return routes.choose(view, {**dict.fromkeys(unknown, 0.0), **report.down}, report.mute)


def _live(host: Host, store: Store, view: View | None, sysctls: tuple[str, ...]) -> NodeState:
    return _part(host, store, view, observe.snapshot(host), list(sysctls))


def _part(host: Host, store: Store, view: View | None, seen: observe.Snapshot, sysctls: list[str]) -> NodeState:
    owned = store.owned() | (_owns(view) if view else Owned())
    return observe.live(host, seen, store.mesh, owned.interfaces, owned.prefixes, sysctls)


def _owns(view: View) -> Owned:
    return Owned(
        interfaces=frozenset(i.name for i in view.interfaces),
        prefixes=frozenset(p for route in view.routes for p in route.prefixes) | frozenset(view.networks),
    )


def _has_trunk(store: Store, view: View) -> bool:
    """Whether the mesh has, or may still have, a trunk here, and so rules."""
    had = any(name.startswith(names.trunk_prefix(view.mesh)) for name in store.owned().interfaces)
    return had or any(i.kind is Kind.TRUNK for i in view.interfaces)


def _refuse_foreign(host: Host, store: Store, view: View, seen: observe.Snapshot) -> None:
    """A device that we did not make is nobody's to change; one that booted from our file is ours."""
    owned = store.owned().interfaces
    foreign = [
        i.name
        for i in view.interfaces
        if i.name in seen.links and i.name not in owned and not boot.is_ours(host, view.mesh, i.name)
    ]
    if foreign:
        raise HostError(
            f"{', '.join(foreign)} exists on this node and was not made by mesh {view.mesh}: nothing was changed; "
            f"remove it ('ip link del {foreign[0]}') or give the mesh another name"
        )
    boot.refuse_foreign(host, view.mesh, [i.name for i in view.interfaces])


def _confirm(host: Host, store: Store, view: View, public_key: str) -> None:
    """Return if the node now holds what it should; HostError with what it does not.

    Where a watcher runs, routes are not looked at: it moves them at any moment, by the view before until this one is
    kept, and then by this one.
    """
    work = _look(host, store, view, public_key)
    left = diff(work.live, wanted.keep_any(work.target, work.live))
    if _is_watched(host, view):
        left = tuple(change for change in left if not isinstance(change, RouteChange))
    if left:
        told = "; ".join(str(wording.entry(change, wanted.labels(view))) for change in left)
        raise HostError(f"after the apply of {view.mesh} this still differs: {told}")


def _is_watched(host: Host, view: View) -> bool:
    report = linkfile.read(host, view.mesh)
    return report is not None and report.watched


def _run(host: Host, changes: tuple[Change, ...], mesh: str) -> None:
    """Every change is made. A name that does not resolve is reported last: it is no reason to leave the rest undone."""
    unresolved: list[str] = []
    for step in steps(changes, str(host.key_file)):
        log.debug("wgmesh %s: %s", mesh, step)
        try:
            _do(host, step)
        except HostError as error:
            if not (isinstance(step, WgSet) and step.looks_up):
                raise
            unresolved.append(str(error))
    if unresolved:
        raise HostError("; ".join(unresolved))


def _do(host: Host, step: Step) -> None:
    if isinstance(step, MakeDevice):
        _make_device(host, step.name)
    elif isinstance(step, WriteSysctl):
        host.set_sysctl(step.key, step.value)
    elif isinstance(step, IpBatch):
        host.ip_batch(step.family, step.lines)
    else:
        host.run(*step.argv)


def _make_device(host: Host, name: str) -> None:
    """A device of the kernel's WireGuard, or where it has none of wireguard-go's."""
    try:
        host.run("ip", "link", "add", "dev", name, "type", "wireguard")
    except HostError as error:
        if not any(hint in str(error) for hint in ("Unknown device type", "not supported")):
            raise
        if not host.has("wireguard-go"):
            raise HostError(
                "this kernel has no WireGuard, and wireguard-go is not installed: apply the state wgmesh.tools"
            ) from error
        host.start("wireguard-go", name)


def _report(store: Store, view: View | None, changes: tuple[Change, ...], filed: tuple[wording.Entry, ...]) -> Report:
    before = store.view()
    labels = {**(wanted.labels(before) if before else {}), **(wanted.labels(view) if view else {})}
    told = tuple(wording.entry(change, labels) for change in changes)
    return Report(mesh=store.mesh, digest=view.digest() if view else None, changes=(*told, *filed))
