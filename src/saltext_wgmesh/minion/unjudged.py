"""What an apply that may break the node leaves on disk until it has judged itself: if it dies, another judges for it.

The next apply does, or else the watcher has it done within seconds, also after a reboot: the next apply may be one that
never comes, since the master is not reached any more.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core import turns
from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.types import View
from saltext_wgmesh.minion import files
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.selfcheck import Before, Master
from saltext_wgmesh.minion.store import UNJUDGED, Store
from saltext_wgmesh.minion.trials import Trial

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-I", "-m", "saltext_wgmesh.minion.judging")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjudged:
    """An apply, as far as it must be known to judge it and to take it back."""

    view: View
    """What the node took up."""
    asked: str
    """The digest of the view that it was asked for: *view*, or one to which that leads."""
    trial: Trial
    """Without its changes."""
    boot: str
    """Since when the machine runs: what is lost by a reboot is no fault of the view's."""


def keep(store: Store, found: Unjudged) -> None:
    """*found* is on disk, durably."""
    trial = found.trial
    raw = {
        "view": found.view.as_dict(),
        "asked": found.asked,
        "held": trial.view and trial.view.as_dict(),
        "previous": trial.previous and trial.previous.as_dict(),
        "up": sorted(trial.before.up),
        "master": trial.before.master and [trial.before.master.address, trial.before.master.port],
        "awaited": sorted(trial.awaited),
        "one_of": {nobody: sorted(nodes) for nobody, nodes in trial.one_of.items()},
        "boot": found.boot,
    }
    files.write(store.folder / UNJUDGED, json.dumps(raw, indent=1, sort_keys=True) + "\n")


def read(store: Store) -> Unjudged | None:
    """What was kept; None if nothing was, or if it can't be read: then the next apply looks at the kernel alone."""
    try:
        text = files.read(store.folder / UNJUDGED)
        return None if text is None else _parsed(json.loads(text))
    except (ValueError, LookupError, TypeError, AttributeError, ViewError) as error:
        log.warning("wgmesh %s: %s can't be read: %s", store.mesh, UNJUDGED, error)
        return None


def _parsed(raw: Mapping[str, Any]) -> Unjudged:
    def view(name: str) -> View | None:
        return View.from_dict(raw[name]) if raw[name] else None

    master = Master(address=raw["master"][0], port=raw["master"][1]) if raw["master"] else None
    return Unjudged(
        view=View.from_dict(raw["view"]),
        asked=raw["asked"],
        boot=raw["boot"],
        trial=Trial(
            plan=turns.Turns(),
            before=Before(up=frozenset(raw["up"]), master=master),
            view=view("held"),
            previous=view("previous"),
            awaited=frozenset(raw["awaited"]),
            one_of=MappingProxyType({nobody: frozenset(nodes) for nobody, nodes in raw["one_of"].items()}),
        ),
    )


def boot(host: Host) -> str:
    """What tells this run of the machine from others."""
    return (files.read(host.boot_id) or "").strip()


def forget(store: Store) -> None:
    """Nothing is left to judge."""
    files.remove(store.folder / UNJUDGED)


def left(host: Host) -> list[str]:
    """The meshes of which an apply has died that nobody has judged, sorted."""
    found = sorted(path.parent.name for path in host.state_dir.glob(f"*/{UNJUDGED}"))
    return [mesh for mesh in found if not Store(host=host, mesh=mesh).is_locked()]


def judge(meshes: list[str]) -> subprocess.Popen[bytes]:
    """The process that judges the applies of *meshes*, and takes back what broke the node."""
    return subprocess.Popen((*COMMAND, *meshes), stdin=subprocess.DEVNULL, cwd="/")
