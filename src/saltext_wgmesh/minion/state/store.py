"""The state that this node keeps of its meshes on disk, in one folder per mesh.

It is what the node needs to compare its kernel with its view, to roll back, and to know which devices are its own.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device.commands import KeyPaths
from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.state import former_version
from saltext_wgmesh.minion.state.former_version import PENDING_APPLY_FILE, ROLLED_BACK_FILE
from saltext_wgmesh.minion.state.view_result import ViewResult
from saltext_wgmesh.minion.system import files, moment
from saltext_wgmesh.minion.system.host import Host

OUTCOMES = constants.OUTCOMES_FILE
UNDERLAY = constants.UNDERLAY_FILE
VIEW = "view.json"
APPLIED = "applied.json"
"""The moment at which VIEW was set."""
PREVIOUS_VIEW = "previous.json"
OWNED = "owned.json"
LEDGER = "ledger.json"
_PSK_DIR = "preshared"
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """The parts of the kernel that a mesh owns. They are recorded before they are made: a crash leaves no orphans."""

    interfaces: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    """Prefixes that may have an unreachable route, which names no interface."""

    @classmethod
    def by(cls, view: View) -> Owned:
        """Return what a node that holds *view* owns."""
        return cls(
            interfaces=frozenset(i.name for i in view.interfaces),
            prefixes=frozenset(p for route in view.routes for p in route.prefixes) | frozenset(view.networks),
        )

    def __or__(self, other: Owned) -> Owned:
        return Owned(interfaces=self.interfaces | other.interfaces, prefixes=self.prefixes | other.prefixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBackView:
    """The view that this node rolled back last."""

    digest: str
    reason: str
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The folder of one mesh."""

    host: Host
    mesh: str

    @property
    def folder(self) -> Path:
        """Where the state of the mesh lies."""
        return self.host.state_dir / self.mesh

    @property
    def lock(self) -> Path:
        """The lock file of the mesh. It lies beside the folder, which a removal deletes."""
        return self.host.state_dir / f"{self.mesh}{constants.LOCK_SUFFIX}"

    @property
    def psk_dir(self) -> Path:
        """The folder of the mesh's preshared keys."""
        return self.folder / _PSK_DIR

    @property
    def key_paths(self) -> KeyPaths:
        """Where ``wg`` finds the keys of the mesh."""
        return KeyPaths(key_file=str(self.host.key_file), psk_folder=str(self.psk_dir))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block, no other process changes this mesh on this node."""
        with files.locked(self.lock):
            yield

    def is_locked(self) -> bool:
        """Return whether a process changes this mesh."""
        return files.is_locked(self.lock)

    def view(self) -> View | None:
        """Return the view that was last applied in full; None if there is none."""
        return self._view(VIEW)

    def age(self) -> float:
        """Return the seconds since the last applied view was set; infinite if there is none.

        A view of another boot, or of a moment that this boot has not had, counts as set now: it gets old from now on.
        """
        if not (self.folder / VIEW).exists():
            return math.inf
        applied = _stored(self.folder / APPLIED, files.read_file, moment.decode_moment)
        age = applied.age(self.host) if applied else None
        if age is None:
            self._note_applied()
        return age or 0.0

    def _note_applied(self) -> None:
        files.write_file(self.folder / APPLIED, moment.present(self.host).encode() + "\n")

    def previous(self) -> View | None:
        """Return the view that was applied before the present one; None if there is none."""
        return self._view(PREVIOUS_VIEW)

    def set_view(self, view: View) -> None:
        """Record *view* as applied, and the one before it, if it differs, as the previous one."""
        before = self.view()
        if before == view:
            return
        if before is not None:
            files.write_file(self.folder / PREVIOUS_VIEW, _text(before.as_dict()))
        # Before the view: a process that is killed in between leaves a view that differs, and the next one writes both.
        self._note_applied()
        files.write_file(self.folder / VIEW, _text(view.as_dict()))

    def restore(self, view: View, previous: View | None) -> None:
        """Record *view* as applied and *previous* as the one before it, as if no other had been applied since."""
        if previous is not None:
            files.write_file(self.folder / PREVIOUS_VIEW, _text(previous.as_dict()))
        else:
            files.remove_file(self.folder / PREVIOUS_VIEW)
        self._note_applied()
        files.write_file(self.folder / VIEW, _text(view.as_dict()))

    def rolled_back(self) -> RolledBackView | None:
        """Return the view that was rolled back last; None if the last apply succeeded."""
        return _read(self.folder / ROLLED_BACK_FILE, _rolled_back)

    def set_rolled_back(self, view: RolledBackView | None) -> None:
        """Record *view* as rolled back; None: no view is."""
        if view is None:
            former_version.remove_both(self.folder / ROLLED_BACK_FILE)
        else:
            former_version.write_present(self.folder / ROLLED_BACK_FILE, _text(asdict(view)))

    def owned(self) -> Owned:
        """Return what was recorded as owned by the mesh; empty if nothing was."""
        return _read(self.folder / OWNED, _owned) or Owned()

    def set_owned(self, owned: Owned) -> None:
        """Record exactly *owned* as owned by the mesh."""
        if owned != self.owned():
            raw = {"interfaces": sorted(owned.interfaces), "prefixes": sorted(owned.prefixes)}
            files.write_file(self.folder / OWNED, _text(raw))

    def ledger(self) -> str | None:
        """Return the name of the master's ledger that the applied view is from; None if it is not known."""
        return _read(self.folder / LEDGER, _ledger)

    def set_ledger(self, name: str) -> None:
        """Record *name* as the ledger that the applied view is from."""
        if name != self.ledger():
            files.write_file(self.folder / LEDGER, _text(name))

    def deactivate(self) -> None:
        """Record that no view of the mesh is applied, and that no apply is to be recovered."""
        former_version.remove_both(self.folder / PENDING_APPLY_FILE)
        # The journal went first: by a journal that is left, the watcher would restore the mesh.
        files.remove_file(self.folder / VIEW)
        files.remove_file(self.folder / APPLIED)

    def purge(self) -> None:
        """Delete the state of the mesh, except its preshared keys. OWNED goes last, so that a crash can be finished."""
        for name in (PENDING_APPLY_FILE, VIEW, APPLIED, PREVIOUS_VIEW, ROLLED_BACK_FILE, LEDGER, OWNED):
            former_version.remove_both(self.folder / name)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def has_damaged_view(self) -> bool:
        """Return whether a view was applied that can't be read: only another apply can replace it."""
        return (self.folder / VIEW).exists() and self.view() is None

    def _view(self, name: str) -> View | None:
        # Also None if it is of an unknown version: the next apply compares its view with the kernel alone.
        return _stored(self.folder / name, files.read_file, _parsed_view)


@functools.lru_cache(maxsize=8)
def _parsed_view(text: str) -> View:
    """Return the view in *text*. It is cached, since the beacon reads the same text each second."""
    return former_version.view_from_text(text)


def meshes(host: Host) -> tuple[str, ...]:
    """Return the meshes that have something on this node, sorted; also the remains of an apply that failed early."""
    found = (former_version.meshes_with(host.state_dir, name) for name in (OWNED, ROLLED_BACK_FILE, _PSK_DIR))
    return tuple(sorted(set().union(*found)))


def owned_interfaces(host: Host) -> frozenset[str]:
    """Return the interfaces of all meshes of this node."""
    return frozenset().union(*(Store(host=host, mesh=mesh).owned().interfaces for mesh in meshes(host)))


def leftovers(host: Host) -> list[str]:
    """Return the files that belong to no single mesh, sorted: a node without meshes has no use for them."""
    return sorted(str(path) for name in (OUTCOMES, UNDERLAY) if (path := host.state_dir / name).exists())


def purge_all(host: Host) -> None:
    """Delete the state that belongs to no single mesh. The node must have no mesh."""
    for name in (OUTCOMES, UNDERLAY):
        files.remove_file(host.state_dir / name)
    for lock in host.state_dir.glob(f"*{constants.LOCK_SUFFIX}"):
        with files.locked(lock):
            files.remove_file(lock)
    with contextlib.suppress(OSError):
        host.state_dir.rmdir()


def purge_outcome(host: Host, mesh: str) -> None:
    """Delete the record of what came of the master's last assignment for *mesh*."""
    known = outcomes(host)
    if known.pop(mesh, None) is not None:
        set_outcomes(host, known)


def outcomes(host: Host) -> dict[str, ViewResult]:
    """Return mesh → what came of the master's last assignment, as recorded."""
    return _read(host.state_dir / OUTCOMES, _results) or {}


def outcomes_version(host: Host) -> tuple[int, int]:
    """Return a value that differs after each time that assignments were applied.

    It is to be compared for equality alone: the clock may be set at any time.
    """
    try:
        found = (host.state_dir / OUTCOMES).stat()
        return found.st_ino, found.st_mtime_ns
    except FileNotFoundError:
        return 0, 0


def set_outcomes(host: Host, results: Mapping[str, ViewResult]) -> None:
    """Record exactly *results*, by mesh, as of now, without their changes."""
    path = host.state_dir / OUTCOMES
    recorded = {mesh: result.outcome_as_dict() for mesh, result in results.items()}
    if path.exists() and recorded == {mesh: result.outcome_as_dict() for mesh, result in outcomes(host).items()}:
        # Equal results are news all the same: ``await_push`` compares the time of the file.
        os.utime(path)
    else:
        files.write_file(path, _text(recorded))


def published_underlay(host: Host) -> tuple[str, ...] | None:
    """Return the underlay addresses in the facts that this node published last; None: it published none."""
    return _read(host.state_dir / UNDERLAY, lambda raw: tuple(map(str, raw)))


def set_published_underlay(host: Host, addresses: Iterable[str]) -> None:
    """Record exactly *addresses* as published."""
    if published_underlay(host) != tuple(addresses):
        files.write_file(host.state_dir / UNDERLAY, _text(list(addresses)))


def _read(path: Path, parse: Callable[[Any], T]) -> T | None:
    return _stored(path, former_version.read_either, lambda text: parse(json.loads(text)))


def _stored(path: Path, read: Callable[[Path], str | None], parse: Callable[[str], T]) -> T | None:
    """Return what *parse* makes of the file *path*; None without one.

    None also if the file is damaged, as a full disk or a crash may leave it: no operator is needed, since the next
    apply writes it again.
    """
    try:
        text = read(path)
        return None if text is None else parse(text)
    except (ViewError, *files.DAMAGE) as error:
        _warn_once(path, type(error).__name__, path.stat().st_mtime_ns if path.exists() else 0)
        return None


@functools.lru_cache(maxsize=64)
def _warn_once(path: Path, reason: str, _changed_at: int) -> None:
    """Log that the file is not used, once for each change of it: the beacon reads it each second."""
    log.warning("%s is damaged (%s) and is not used: the next apply writes it again", path, reason)


def _rolled_back(raw: Any) -> RolledBackView:
    present = former_version.rolled_back(raw)
    return RolledBackView(digest=str(present["digest"]), reason=str(present["reason"]), at=float(present["at"]))


def _ledger(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


def _owned(raw: Any) -> Owned:
    return Owned(interfaces=frozenset(map(str, raw["interfaces"])), prefixes=frozenset(map(str, raw["prefixes"])))


def _results(raw: Any) -> dict[str, ViewResult]:
    return {mesh: ViewResult.from_outcome(mesh, one) for mesh, one in raw.items()}


def _text(raw: Any) -> str:
    return json.dumps(raw, indent=1, sort_keys=True) + "\n"
