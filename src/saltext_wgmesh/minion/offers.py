"""What the master offers this node in its pillar, mesh by mesh: a view, or the reason why there is none."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.errors import TakenBack, ViewError, WgmeshError
from saltext_wgmesh.core.types import View
from saltext_wgmesh.core.wording import Entry
from saltext_wgmesh.minion import apply, preshared, store
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.selfcheck import Master


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The master has no place for this node in the mesh."""

    mesh: str
    reason: str
    digest: str | None
    """What the master takes as proof that the node heard it."""
    removed: bool
    """True: the node was a member and is told to leave. False: whatever it runs, it keeps."""
    pending: bool
    """True: it is a member as soon as other nodes are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one mesh's offer. A failure is a value here, so that one mesh does not hold up another."""

    mesh: str
    digest: str | None = None
    generation: int | None = None
    changes: tuple[Entry, ...] = ()
    reason: str | None = None
    """Why this node is no member."""
    pending: bool = False
    """Whether it will be one as soon as other nodes are there."""
    error: str | None = None
    taken_back: bool = False
    """Whether the view broke this node, which went back to the one before: *digest* is that one's."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values; what is not there is left out."""
        return {
            **self.gist(),
            "changed": bool(self.changes),
            "changes": [str(change) for change in self.changes],
        }

    def gist(self) -> dict[str, Any]:
        """All but the changes: what is worth keeping."""
        told = {"digest": self.digest, "generation": self.generation, "reason": self.reason, "error": self.error}
        flags = {"pending": self.pending, "taken_back": self.taken_back}
        return {k: v for k, v in told.items() if v is not None} | {k: True for k, v in flags.items() if v}


def parse(mesh: str, raw: Any) -> View | Refusal:
    """The offer for *mesh*; ViewError if it is neither a view of that mesh nor a reason."""
    if isinstance(raw, Mapping) and "interfaces" not in raw and isinstance(raw.get("reason"), str):
        return Refusal(
            mesh=mesh,
            reason=raw["reason"],
            digest=raw.get("digest"),
            removed=raw.get("removed") is True,
            pending=raw.get("pending") is True,
        )
    view = View.from_dict(raw)
    if view.mesh != mesh:
        raise ViewError(f"the view in this node's pillar under {mesh} is one of {view.mesh}: converge again")
    return view


def take(
    host: Host,
    offers: Any,
    mesh: str | None = None,
    *,
    sealed: Any = None,
    dry_run: bool = False,
    master: Master | None = None,
    insists: bool = False,
) -> tuple[Outcome, ...]:
    """Each offer, or the one for *mesh*, is taken up; in order of the meshes' names. *sealed* has the preshared keys.

    A mesh that is not offered at all is left as it is: an empty pillar is a fault, not an instruction. Asking for
    it by name is an error. *master* must be reached afterwards, if it was; a view that was taken back a while ago is
    tried again only if the caller *insists*.
    """
    found = offers if isinstance(offers, Mapping) else {}
    if mesh is not None and mesh not in found:
        error = f"the master offers this node no view of {mesh}: 'salt-run wgmesh.plan' says why"
        return (Outcome(mesh=mesh, error=error),)
    chosen = sorted(name for name in found if mesh in (None, name))
    boxes = sealed if isinstance(sealed, Mapping) else {}
    trial = functools.partial(apply.apply, host, dry_run=dry_run, master=master, insists=insists)
    outcomes = tuple(_take_one(host, name, found[name], boxes.get(name), trial, dry_run=dry_run) for name in chosen)
    if not dry_run and chosen:
        others = store.outcomes(host) if mesh else {}
        store.keep_outcomes(host, {**others, **{o.mesh: o.gist() for o in outcomes}})
    return outcomes


def is_old(host: Host, offers: Any) -> bool:
    """Whether this node took up a later generation of a mesh already: the pillar was compiled before that."""
    known = store.outcomes(host)
    return any(
        isinstance(raw, Mapping)
        and isinstance(raw.get("generation"), int)
        and raw["generation"] < _generation(known, mesh)
        for mesh, raw in (offers.items() if isinstance(offers, Mapping) else ())
    )


def _generation(known: Mapping[str, Mapping[str, Any]], mesh: str) -> int:
    return int(known.get(mesh, {}).get("generation") or 0)


def _take_one(
    host: Host, mesh: str, raw: Any, box: Any, trial: Callable[..., apply.Report], *, dry_run: bool
) -> Outcome:
    generation = raw.get("generation") if isinstance(raw, Mapping) else None
    try:
        offer = parse(mesh, raw)
        if isinstance(offer, Refusal):
            return _take_refusal(host, offer, generation, dry_run=dry_run)
        report = trial(offer, given={} if dry_run else preshared.unseal(host, mesh, box))
        return Outcome(mesh=mesh, digest=report.digest, generation=generation, changes=report.changes)
    except TakenBack as error:
        return Outcome(mesh=mesh, digest=error.digest, generation=generation, error=str(error), taken_back=True)
    except (WgmeshError, OSError) as error:
        return Outcome(mesh=mesh, generation=generation, error=str(error))


def _take_refusal(host: Host, offer: Refusal, generation: int | None, *, dry_run: bool) -> Outcome:
    changes: tuple[Entry, ...] = ()
    if offer.removed and offer.mesh in store.meshes(host):
        changes = apply.remove(host, offer.mesh, dry_run=dry_run).changes
    return Outcome(
        mesh=offer.mesh,
        digest=offer.digest,
        generation=generation,
        changes=changes,
        reason=offer.reason,
        pending=offer.pending,
    )
