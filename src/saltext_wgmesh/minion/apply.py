"""A view becomes this node's devices, routes and rules, by the fewest changes; or goes away again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

from saltext_wgmesh.core import names, routes, turns, wanted, wording
from saltext_wgmesh.core.device import MAIN_TABLE, NodeState
from saltext_wgmesh.core.diff import Change, RouteChange, diff
from saltext_wgmesh.core.errors import HostError, TakenBack, WgmeshError
from saltext_wgmesh.core.linkstate import LinkState
from saltext_wgmesh.core.renaming import renamed
from saltext_wgmesh.core.types import Kind, View
from saltext_wgmesh.minion import (
    boot,
    files,
    keys,
    linkfile,
    observe,
    preshared,
    renaming,
    resting,
    selfcheck,
    trials,
    turning,
    unjudged,
)
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.running import run
from saltext_wgmesh.minion.selfcheck import Master
from saltext_wgmesh.minion.store import Owned, Store, TakenBackView, meshes

log = logging.getLogger(__name__)

NO_KEY = "(not made yet)"
MOVE = 0.5
"""Seconds in which the watcher has said why it moved a route."""
UNWATCHED = 2.0
"""Seconds in which the watcher has seen that a mesh is gone."""
AGAIN = 600.0
"""Seconds in which a view that was taken back is not tried again, unless somebody insists."""


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


def apply(
    host: Host,
    view: View,
    *,
    dry_run: bool = False,
    given: Mapping[str, str] = MappingProxyType({}),
    master: Master | None = None,
    insists: bool = True,
) -> Report:
    """This node holds *view*: devices, peers, addresses, routes, rules, kernel settings, and the files for boot.

    *given* are preshared keys by their identifiers; those that the node has already need not be among them. Only what
    differs is touched. HostError if a command fails, if a device of that name is somebody else's, if a preshared key
    is nowhere, or if after the changes something still differs; what was done until then stays, and the next apply
    goes on.

    TakenBack if the node then lacks what it had: a link, every relay, or *master*. It holds the view before again, and
    within AGAIN seconds the same view is tried anew only if the caller *insists*.
    """
    store = Store(host=host, mesh=view.mesh)
    if dry_run:
        work = _look_settled(host, store, view, keys.chosen(host, view.turn_to) or NO_KEY)
        _refuse_routed(host, store, view, work.changes)
        return _report(store, store.view(), view, work.changes, boot.write(host, view.mesh, work.boot, dry_run=True))
    with store.locked():
        _judge_first(host, store, view)
        if not insists:
            _refuse_again(store, view)
        preshared.keep(store, view, given)
        return _apply(host, store, view, master)


def _apply(host: Host, store: Store, view: View, master: Master | None) -> Report:
    def take_up(each: View) -> tuple[wording.Entry, ...]:
        return _take_up(host, store, each, view, master)

    held, steps = store.view(), renaming.steps(host, store, view)
    if steps:
        _refuse_foreign(host, store, view, observe.snapshot(host, rules=False))
    changes = (*renaming.go_through(host, view.mesh, steps, take_up), *take_up(view))
    if held and steps:
        store.restore(view, held)
    store.keep_taken_back(None)
    preshared.drop(store)
    if turning.finish(host):
        # At boot all meshes now run the new key, and the preshared keys that go with it.
        for mesh in meshes(host):
            _write_boot(host, Store(host=host, mesh=mesh))
    return Report(mesh=view.mesh, digest=view.digest(), changes=changes)


def _write_boot(host: Host, store: Store) -> None:
    view = store.view()
    if view:
        boot.write(host, store.mesh, _look(host, store, view, keys.chosen(host, view.turn_to) or NO_KEY).boot)


def _take_up(host: Host, store: Store, view: View, asked: View, master: Master | None) -> tuple[wording.Entry, ...]:
    """The node holds *view*, the one that it was *asked* for or one on the way; returns what changed."""
    public_key = keys.chosen(host, view.turn_to)
    if public_key is None:
        raise HostError(f"{host.key_file} is not there: 'salt-call state.apply wgmesh' makes a key and publishes it")
    work = _look_settled(host, store, view, public_key)
    trial = trials.begin(host, store, view, work.changes, master)
    if work.changes:
        _refuse_routed(host, store, view, work.changes)
        store.own(_owns(view) | store.owned())
    with _judged_by_others(store, view, asked.digest(), trial):
        if work.changes:
            try:
                unresolved = trials.make(host, view.mesh, trial, lambda: _look(host, store, view, public_key).changes)
            except (HostError, trials.Broken) as error:
                if not trial.plan.turns:
                    raise
                raise _take_back(host, store, view, asked.digest(), trial, str(error)) from error
            if unresolved:
                raise HostError("; ".join(unresolved))
            _confirm(host, store, view, public_key)
        report = _report(store, store.view(), view, work.changes, boot.write(host, view.mesh, work.boot))
        store.keep(view)
        store.own(_owns(view))
        if work.changes:
            lacking = selfcheck.missing(host, view, trial.before, trial.awaited, trial.one_of, selfcheck.PATIENCE)
            if lacking:
                raise _take_back(host, store, view, asked.digest(), trial, "; ".join(lacking))
    return report.changes


@contextmanager
def _judged_by_others(store: Store, view: View, asked: str, trial: trials.Trial) -> Iterator[None]:
    """If this process dies inside, and the apply may have broken what carried, others judge it."""
    if trial.plan.disturbs or trial.before.master:
        unjudged.keep(store, unjudged.Unjudged(view=view, asked=asked, trial=trial, boot=unjudged.boot(store.host)))
    try:
        yield
    except Exception:
        unjudged.forget(store)
        raise
    unjudged.forget(store)


def judge(host: Host, mesh: str) -> None:
    """Of an apply that died, the node has either all that it had before, or the view before. TakenBack if it had to go
    back to that, and HostError as above; nothing if no apply died."""
    store = Store(host=host, mesh=mesh)
    with store.locked():
        _judge(host, store)


def _judge(host: Host, store: Store) -> None:
    left = unjudged.read(store)
    if left:
        log.warning("wgmesh %s: the apply of %s died: the node is looked at now", store.mesh, left.asked[:8])
        # Links that it had rest would do so for a while.
        files.remove(resting.path(host, store.mesh))
        trial = left.trial
        lacking = selfcheck.missing(host, left.view, trial.before, trial.awaited, trial.one_of, selfcheck.LATE_PATIENCE)
        if lacking:
            # What is half made, or was made anew by a boot, may lack something for that alone: it can be tried again.
            blames = store.view() == left.view and left.boot == unjudged.boot(host)
            raise _take_back(host, store, left.view, left.asked, trial, "; ".join(lacking), blames=blames)
    unjudged.forget(store)


def _judge_first(host: Host, store: Store, view: View) -> None:
    """An apply that died is judged. TakenBack if that was one of this *view*, and that is to blame; whatever else came
    of it, the node goes on from there."""
    try:
        _judge(host, store)
    except TakenBack:
        taken = store.taken_back()
        if taken and taken.digest == view.digest():
            raise
    except HostError as error:
        log.warning("wgmesh %s: %s", store.mesh, error)
        unjudged.forget(store)


def remove(host: Host, mesh: str, *, dry_run: bool = False) -> Report:
    """Nothing of *mesh* is on this node: no device, route, rule, file for boot or memory of it."""
    store = Store(host=host, mesh=mesh)
    if dry_run:
        changes = diff(_live(host, store, None, ()), NodeState())
        return _report(store, store.view(), None, changes, boot.remove(host, mesh, dry_run=True))
    with store.locked():
        report = _remove(host, store)
        files.remove(store.lock)
        return report


def _remove(host: Host, store: Store) -> Report:
    held = store.view()
    # The watcher would put back routes that it finds missing, for as long as it knows of the mesh.
    store.end()
    deadline = time.monotonic() + UNWATCHED
    while linkfile.watched(host, store.mesh) and time.monotonic() < deadline:
        time.sleep(0.05)
    changes = diff(_live(host, store, None, ()), NodeState())
    run(host, changes, store.mesh)
    report = _report(store, held, None, changes, boot.remove(host, store.mesh))
    preshared.forget(store)
    store.forget()
    linkfile.remove(host, store.mesh)
    return report


def reroute(host: Host, view: View) -> None:
    """The routes go by the links that the link file says are up; nothing else is touched. HostError as above."""
    store = Store(host=host, mesh=view.mesh)
    with store.locked():
        changes = _look(host, store, view, keys.chosen(host, view.turn_to) or NO_KEY).changes
        run(host, tuple(c for c in changes if _is_move(c)), view.mesh)


def rollback(host: Host, mesh: str, master: Master | None = None) -> Report:
    """This node holds the view that it held before the present one, until the next apply of the master's."""
    previous = Store(host=host, mesh=mesh).previous()
    if previous is None:
        raise HostError(f"this node holds no earlier view of {mesh}: there is nothing to go back to")
    return apply(host, previous, master=master)


def _take_back(
    host: Host, store: Store, view: View, asked: str, trial: trials.Trial, why: str, *, blames: bool = True
) -> WgmeshError:
    """The node holds what it held before *view*, and, if that is to blame, remembers by its digest that it took back
    what it was *asked* for; the error that says so. Of two keys, it runs again the one that *view* had it leave: that
    is not destroyed before all is well."""
    log.warning("wgmesh %s: the view %s is taken back: %s", view.mesh, asked[:8], why)
    held = trial.view
    try:
        if held is None:
            _remove(host, store)
        else:
            _return_to(host, store, held, view, trial)
    except HostError as error:
        return HostError(f"{why}; and going back to the view before failed: {error}")
    if blames:
        store.keep_taken_back(TakenBackView(digest=asked, why=why, at=time.time()))
    unjudged.forget(store)
    return TakenBack(why, held.digest() if held else None)


def _return_to(host: Host, store: Store, held: View, view: View, trial: trials.Trial) -> None:
    store.own(_owns(held) | _owns(view) | store.owned())

    def look() -> _Work:
        return _look(host, store, held, keys.chosen(host, held.turn_to) or NO_KEY, applied=view)

    work = look()
    up = selfcheck.look(host, view.mesh).up
    plan = (
        turns.split(work.changes, view, held, up)
        if linkfile.watched(host, view.mesh)
        else turns.Turns(first=work.changes)
    )
    trials.make(host, view.mesh, trial.back(plan), lambda: look().changes)
    boot.write(host, view.mesh, work.boot)
    store.restore(held, trial.previous)
    store.own(_owns(held))


def _refuse_again(store: Store, view: View) -> None:
    """TakenBack if this very view was taken back a while ago: it would break the node once more."""
    taken = store.taken_back()
    if taken is None or taken.digest != view.digest() or not 0 <= time.time() - taken.at < AGAIN:
        return
    held = store.view()
    ago = time.time() - taken.at
    raise TakenBack(
        f"{taken.why} (it was tried {ago:.0f} s ago: the master tries it anew)", held.digest() if held else None
    )


def _look(host: Host, store: Store, view: View, public_key: str, applied: View | None = None) -> _Work:
    """What the node holds, what it should, and what of that must change. A foreign device is an error. *applied* is the
    view whose endpoints were set last, if it is not the one kept."""
    families = frozenset({4, 6} if host.has_ipv6 else {4})
    advertised = observe.advertised(host) if view.forward else ()
    own = wanted.Own(public_key=public_key, families=families, advertised=advertised)
    seen = observe.snapshot(host, rules=_has_trunk(store, view))
    _refuse_foreign(host, store, view, seen)
    # After the kernel: what the watcher believed before would put back a route that it has just moved.
    target = wanted.state(view, _routes(host, view, renamed(store.view(), view)), own)
    live = _part(host, store, view, seen, [key for key, _ in target.sysctls])
    applied = applied or store.view()
    now = time.time()
    fresh = {
        (s.device, s.public_key)
        for s in seen.stats(d.name for d in live.devices)
        if s.handshake_at is not None and now - s.handshake_at < names.REJECT_AFTER_TIME
    }
    target = wanted.keep_followed(target, live, view)
    if view.turn_to != public_key:
        target = wanted.keep_key(target, live, keys.lost(host), view)
    known = wanted.endpoints(applied) if applied else {}
    goal = wanted.keep_roamed(target, live, fresh, known, _heard(host, view))
    goal = wanted.keep_known(goal, live, renamed(applied, view), fresh, known)
    # A node that has the turn boots with the key that it had, until all its interfaces run the next one.
    booted = replace(own, public_key=keys.public_key(host) or public_key)
    at_boot = wanted.state(view, routes.choose(view), booted)
    return _Work(live=live, target=target, goal=goal, boot=at_boot)


def _look_settled(host: Host, store: Store, view: View, public_key: str) -> _Work:
    """A look while the watcher is not amid a move: it moves a route a moment before it says why."""
    work = _look(host, store, view, public_key)
    if (
        work.changes
        and all(_is_move(c) for c in work.changes)
        and linkfile.watched(host, view.mesh)
        and store.view() == view
    ):
        time.sleep(MOVE)
        work = _look(host, store, view, public_key)
    return work


def _is_move(change: Change) -> bool:
    """Whether a route takes another way, and nothing else changes."""
    return isinstance(change, RouteChange) and bool(change.old and change.new)


def _routes(host: Host, view: View, names_now: Mapping[str, str]) -> tuple[routes.KernelRoute, ...]:
    """By the links that the watcher says are up, where one runs. A link that it does not know yet, or knows by another
    interface than one of those of *names_now*, old to new, is made before it is used."""
    report = linkfile.read(host, view.mesh)
    if report is None:
        return routes.choose(view)
    known = {(n, names_now.get(link.interface, link.interface)) for n, link in report.links.items()}
    unknown = {p.node for i in view.interfaces for p in i.peers if (p.node, i.name) not in known}
    return routes.choose(view, {**dict.fromkeys(unknown, 0.0), **report.down}, report.mute)


def _heard(host: Host, view: View) -> frozenset[wanted.PeerKey]:
    """The peers that the watcher hears at this moment."""
    report = linkfile.read(host, view.mesh)
    up = {n for n, link in report.links.items() if link.state is LinkState.UP} if report and report.watched else set()
    return frozenset((i.name, p.public_key) for i in view.interfaces for p in i.peers if p.node in up)


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
    had = any(map(names.may_be_trunk, store.owned().interfaces))
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
            f"remove it ('ip link del {foreign[0]}') or have the mesh use another interface"
        )
    boot.refuse_foreign(host, view.mesh, [i.name for i in view.interfaces])


def _refuse_routed(host: Host, store: Store, view: View, changes: tuple[Change, ...]) -> None:
    """HostError if a new route would take the place of one that somebody else made: nobody would bring that back. What
    the node's networks bring along is for the master to refuse."""
    new = {
        c.new.prefix
        for c in changes
        if isinstance(c, RouteChange) and c.new and not c.old and c.new.table == MAIN_TABLE
    }
    routed = observe.routed(host) if new else {}
    own = store.owned().interfaces
    foreign = sorted(prefix for prefix in new & routed.keys() if routed[prefix] not in own)
    if foreign:
        raise HostError(
            f"{', '.join(foreign)} of mesh {view.mesh} has a route by {routed[foreign[0]]} on this node already: "
            f"nothing was changed; remove that ('ip route del {foreign[0]}'), or take the prefix out of the mesh"
        )


def _confirm(host: Host, store: Store, view: View, public_key: str) -> None:
    """Return if the node now holds what it should; HostError with what it does not.

    Where a watcher runs, routes are not looked at: it moves them at any moment, by the view before until this one is
    kept, and then by this one.
    """
    work = _look(host, store, view, public_key)
    left = diff(work.live, wanted.keep_any(work.target, work.live))
    if linkfile.watched(host, view.mesh):
        left = tuple(change for change in left if not isinstance(change, RouteChange))
    if left:
        told = "; ".join(str(wording.entry(change, wanted.labels(view))) for change in left)
        raise HostError(f"after the apply of {view.mesh} this still differs: {told}")


def _report(
    store: Store, before: View | None, view: View | None, changes: tuple[Change, ...], filed: tuple[wording.Entry, ...]
) -> Report:
    labels = {**(wanted.labels(before) if before else {}), **(wanted.labels(view) if view else {})}
    told = tuple(wording.entry(change, labels) for change in changes)
    return Report(mesh=store.mesh, digest=view.digest() if view else None, changes=(*told, *filed))
