"""What this node remembers of its meshes, one folder each: enough to compare, to go back, and to know its own."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saltext_wgmesh.core.errors import HostError, ViewError
from saltext_wgmesh.core.script import Secrets
from saltext_wgmesh.core.types import View
from saltext_wgmesh.minion import files
from saltext_wgmesh.minion.host import Host

OUTCOMES = "outcomes.json"
UNDERLAY = "underlay.json"
UNJUDGED = "unjudged.json"
_TAKEN_BACK = "taken_back.json"
_PRESHARED = "preshared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """What of the kernel belongs to a mesh, written before it is made, so that a crash leaves no orphans."""

    interfaces: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    """Prefixes that may have an unreachable route, which names no interface."""

    def __or__(self, other: Owned) -> Owned:
        return Owned(interfaces=self.interfaces | other.interfaces, prefixes=self.prefixes | other.prefixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBackView:
    """The view that this node took back last."""

    digest: str
    why: str
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The folder of one mesh."""

    host: Host
    mesh: str

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.host.state_dir / self.mesh

    @property
    def lock(self) -> Path:
        """The file of the lock."""
        return self.host.state_dir / f"{self.mesh}.lock"

    @property
    def preshared(self) -> Path:
        """The folder of its preshared keys."""
        return self.folder / _PRESHARED

    @property
    def secrets(self) -> Secrets:
        """Where ``wg`` finds the keys of the mesh."""
        return Secrets(key_file=str(self.host.key_file), preshared=str(self.preshared))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process works on this mesh of this node."""
        with files.locked(self.lock):
            yield

    def is_locked(self) -> bool:
        """Whether a process does; of one that this process may not see, no."""
        return files.holder(self.lock, self.host.proc_locks) is not None

    def view(self) -> View | None:
        """The view last applied in full; None if there was none."""
        return self._view("view.json")

    def age(self) -> float:
        """Seconds since the view last applied was taken up; infinite if there is none."""
        try:
            return max(0.0, time.time() - (self.folder / "view.json").stat().st_mtime)
        except FileNotFoundError:
            return math.inf

    def previous(self) -> View | None:
        """The view applied before that one; None if there was none."""
        return self._view("previous.json")

    def keep(self, view: View) -> None:
        """*view* is the one applied; the one before, if it differs, is the previous one."""
        before = self.view()
        if before == view:
            return
        if before is not None:
            files.write(self.folder / "previous.json", _text(before.as_dict()))
        files.write(self.folder / "view.json", _text(view.as_dict()))

    def restore(self, view: View, previous: View | None) -> None:
        """*view* is the one applied and *previous* the one before, as if none had come after."""
        if previous is not None:
            files.write(self.folder / "previous.json", _text(previous.as_dict()))
        else:
            files.remove(self.folder / "previous.json")
        files.write(self.folder / "view.json", _text(view.as_dict()))

    def taken_back(self) -> TakenBackView | None:
        """The view that was taken back last; None if the last one that was applied held."""
        raw = _read(self.folder / _TAKEN_BACK)
        return None if raw is None else TakenBackView(digest=raw["digest"], why=raw["why"], at=raw["at"])

    def keep_taken_back(self, taken: TakenBackView | None) -> None:
        """Exactly *taken* is recorded."""
        if taken is None:
            files.remove(self.folder / _TAKEN_BACK)
        else:
            files.write(self.folder / _TAKEN_BACK, _text(asdict(taken)))

    def owned(self) -> Owned:
        """What was recorded as ours; nothing if nothing was."""
        raw = _read(self.folder / "owned.json")
        if raw is None:
            return Owned()
        return Owned(interfaces=frozenset(raw["interfaces"]), prefixes=frozenset(raw["prefixes"]))

    def own(self, owned: Owned) -> None:
        """Exactly *owned* is recorded as ours."""
        if owned != self.owned():
            raw = {"interfaces": sorted(owned.interfaces), "prefixes": sorted(owned.prefixes)}
            files.write(self.folder / "owned.json", _text(raw))

    def end(self) -> None:
        """No view of the mesh is applied, and none is to be judged."""
        files.remove(self.folder / UNJUDGED)
        files.remove(self.folder / "view.json")

    def forget(self) -> None:
        """Nothing is remembered of the mesh. What is ours goes last, so that a crash can be finished."""
        for name in (UNJUDGED, "view.json", "previous.json", _TAKEN_BACK, "owned.json"):
            files.remove(self.folder / name)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _view(self, name: str) -> View | None:
        path = self.folder / name
        text = files.read(path)
        try:
            return None if text is None else _parsed_view(text)
        except ViewError:
            # Written by another version: the next apply compares with the kernel alone.
            return None
        except ValueError:
            raise _damaged(path) from None


@functools.lru_cache(maxsize=8)
def _parsed_view(text: str) -> View:
    """Kept, since the beacon reads the same text each second."""
    return View.from_dict(json.loads(text))


def meshes(host: Host) -> tuple[str, ...]:
    """The meshes that have something on this node, sorted; be it what an apply left that did not come far."""
    found = (host.state_dir.glob(f"*/{name}") for name in ("owned.json", _TAKEN_BACK, _PRESHARED))
    return tuple(sorted({path.parent.name for paths in found for path in paths}))


def owned_interfaces(host: Host) -> frozenset[str]:
    """The interfaces of all meshes of this node."""
    return frozenset().union(*(Store(host=host, mesh=mesh).owned().interfaces for mesh in meshes(host)))


def remembered(host: Host) -> list[str]:
    """What is remembered of no mesh, sorted."""
    return sorted(str(path) for name in (OUTCOMES, UNDERLAY) if (path := host.state_dir / name).exists())


def forget_all(host: Host) -> None:
    """A node without meshes remembers nothing at all."""
    for name in (OUTCOMES, UNDERLAY):
        files.remove(host.state_dir / name)
    for lock in host.state_dir.glob("*.lock"):
        with files.locked(lock):
            files.remove(lock)
    with contextlib.suppress(OSError):
        host.state_dir.rmdir()


def forget_outcome(host: Host, mesh: str) -> None:
    """Nothing is remembered of what the master offered of *mesh*."""
    known = outcomes(host)
    if known.pop(mesh, None) is not None:
        keep_outcomes(host, known)


def outcomes(host: Host) -> dict[str, dict[str, Any]]:
    """Mesh → what came of the master's last offer, as recorded."""
    return dict(_read(host.state_dir / OUTCOMES) or {})


def outcomes_at(host: Host) -> float | None:
    """When the last offers were taken up, in seconds since the epoch; None: never."""
    try:
        return (host.state_dir / OUTCOMES).stat().st_mtime
    except FileNotFoundError:
        return None


def keep_outcomes(host: Host, told: dict[str, dict[str, Any]]) -> None:
    """Exactly *told* is recorded, as of now."""
    path = host.state_dir / OUTCOMES
    if path.exists() and told == outcomes(host):
        os.utime(path)
    else:
        files.write(path, _text(told))


def told_underlay(host: Host) -> tuple[str, ...] | None:
    """The addresses of the facts that this node published last; None: it published none."""
    told = _read(host.state_dir / UNDERLAY)
    return None if told is None else tuple(told)


def keep_told_underlay(host: Host, addresses: Iterable[str]) -> None:
    """Exactly these are recorded."""
    if told_underlay(host) != tuple(addresses):
        files.write(host.state_dir / UNDERLAY, _text(list(addresses)))


def _read(path: Path) -> Any:
    text = files.read(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        raise _damaged(path) from None


def _damaged(path: Path) -> HostError:
    return HostError(f"{path} is damaged: delete it and apply again")


def _text(raw: Any) -> str:
    return json.dumps(raw, indent=1, sort_keys=True) + "\n"
