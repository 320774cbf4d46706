"""The assignments of this node: for each mesh in its pillar a view, or the reason why it has no place there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device.descriptions import ChangeText
from saltext_wgmesh.core.errors import HostError, RolledBack, ViewError, WgmeshError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import apply, removal
from saltext_wgmesh.minion.apply.health_check import Master
from saltext_wgmesh.minion.apply.outcome import ApplyResult
from saltext_wgmesh.minion.apply.timeouts import DEFAULT, Timeouts
from saltext_wgmesh.minion.state import psk_files, store
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.state.view_result import ViewResult
from saltext_wgmesh.minion.system.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAssignment:
    """The master has no place for this node in the mesh."""

    mesh: str
    reason: str
    digest: str | None
    """The master takes it as the acknowledgement of this node."""
    removed: bool
    """True: the node was a member and must leave. False: it keeps what it runs."""
    pending: bool
    """True: the node becomes a member once other nodes are there."""


def parse(mesh: str, raw: Any) -> View | NoAssignment:
    """Return the assignment for *mesh*. ViewError if *raw* is neither a view of that mesh nor a reason."""
    if isinstance(raw, Mapping) and "interfaces" not in raw and isinstance(raw.get("reason"), str):
        return NoAssignment(
            mesh=mesh,
            reason=raw["reason"],
            digest=raw["digest"] if isinstance(raw.get("digest"), str) else None,
            removed=raw.get("removed") is True,
            pending=raw.get("pending") is True,
        )
    view = View.from_dict(raw)
    if view.mesh != mesh:
        raise ViewError(f"the view in this node's pillar under {mesh} is one of {view.mesh}: converge again")
    return view


def apply_assignments(
    host: Host,
    assignments: Any,
    mesh: str | None = None,
    *,
    sealed_psks: Any = None,
    dry_run: bool = False,
    master: Master | None = None,
    retry_rolled_back: bool = False,
    new_ledger: bool = False,
    timeouts: Timeouts = DEFAULT,
) -> tuple[ViewResult, ...]:
    """Apply each of *assignments*, by mesh, or only that of *mesh*; return the results in the same order.

    The meshes that the node is to leave come first, since another one may need their ports, names or tables.
    A mesh without an assignment is left as it is: an empty pillar is a fault, no instruction. To ask for such a mesh by
    name is an error. *sealed_psks* is mesh → the PSKs that the master sealed for this node. Assignments of another
    ledger than that of the applied view are refused, unless *new_ledger* is True. The other arguments are those of
    ``apply``.
    """
    found = {n: raw for n, raw in assignments.items() if isinstance(n, str)} if isinstance(assignments, Mapping) else {}
    if mesh is not None and mesh not in found:
        error = f"the pillar of this node has no view of {mesh}: 'salt-run wgmesh.plan' says why"
        return (ViewResult(mesh=mesh, error=error),)
    listed = sorted(name for name in found if mesh in (None, name))
    chosen = sorted(listed, key=lambda name: not _is_left(found[name]))
    boxes = sealed_psks if isinstance(sealed_psks, Mapping) else {}
    apply_view = functools.partial(
        apply.apply,
        host,
        dry_run=dry_run,
        master=master,
        retry_rolled_back=retry_rolled_back,
        timeouts=timeouts,
    )
    results = tuple(
        _apply_one(host, n, found[n], boxes.get(n), apply_view, dry_run=dry_run, new_ledger=new_ledger) for n in chosen
    )
    if not dry_run and chosen:
        # Results of other meshes stay. Without a name, meshes that are no longer assigned are dropped.
        others = store.outcomes(host) if mesh else {}
        store.set_outcomes(host, {**others, **{result.mesh: result for result in results}})
    return results


def _is_left(raw: Any) -> bool:
    return isinstance(raw, Mapping) and raw.get("removed") is True


def is_stale(host: Host, assignments: Any) -> bool:
    """Return whether this node applied a later generation of a mesh already, after the pillar was compiled."""
    recorded = store.outcomes(host)
    return any(
        isinstance(raw, Mapping)
        and isinstance(raw.get("generation"), int)
        and mesh in recorded
        and raw["generation"] < (recorded[mesh].generation or 0)
        for mesh, raw in (assignments.items() if isinstance(assignments, Mapping) else ())
    )


def _apply_one(
    host: Host,
    mesh: str,
    raw: Any,
    box: Any,
    apply_view: Callable[..., ApplyResult],
    *,
    dry_run: bool,
    new_ledger: bool,
) -> ViewResult:
    generation = raw.get("generation") if isinstance(raw, Mapping) else None
    generation = generation if isinstance(generation, int) else None
    try:
        assignment = parse(mesh, raw)
        ledger = _ledger(raw)
        if not new_ledger:
            _refuse_other_ledger(Store(host=host, mesh=mesh), ledger)
        if isinstance(assignment, NoAssignment):
            return _leave(host, assignment, generation, dry_run=dry_run)
        # A dry run writes no file, so it needs no PSK.
        result = apply_view(assignment, psks={} if dry_run else psk_files.open_psks(host, mesh, box))
        if ledger and not dry_run:
            Store(host=host, mesh=mesh).set_ledger(ledger)
        return ViewResult(mesh=mesh, digest=result.digest, generation=generation, changes=result.changes)
    except RolledBack as error:
        return ViewResult(mesh=mesh, digest=error.digest, generation=generation, error=str(error), rolled_back=True)
    except (WgmeshError, OSError) as error:
        return ViewResult(mesh=mesh, generation=generation, error=str(error))


def _ledger(raw: Any) -> str | None:
    """The name of the ledger that an assignment is from; None if it has none, as with earlier versions."""
    name = raw.get(constants.LEDGER_KEY) if isinstance(raw, Mapping) else None
    return name if isinstance(name, str) and name else None


def _refuse_other_ledger(known: Store, offered: str | None) -> None:
    """Raise HostError if the applied view is from another ledger than *offered*: two masters would plan one mesh."""
    present = known.ledger()
    if present and offered and present != offered:
        raise HostError(
            f"this assignment is from the ledger of {offered}, and this node follows that of {present}: nothing was "
            f"changed, since one master plans a mesh; to follow {offered} from now on, call "
            "'wgmesh.apply new_ledger=True' on this node"
        )


def _leave(host: Host, assignment: NoAssignment, generation: int | None, *, dry_run: bool) -> ViewResult:
    """Remove the mesh if this node was a member of it, and acknowledge *assignment*."""
    changes: tuple[ChangeText, ...] = ()
    if assignment.removed and assignment.mesh in store.meshes(host):
        changes = removal.remove_mesh(host, assignment.mesh, dry_run=dry_run).changes
    return ViewResult(
        mesh=assignment.mesh,
        digest=assignment.digest,
        generation=generation,
        changes=changes,
        reason=assignment.reason,
        pending=assignment.pending,
    )
