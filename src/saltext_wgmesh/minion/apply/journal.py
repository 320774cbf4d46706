"""The journal of an apply: a file that lets another process check and roll back an apply that died.

It is written before a change that may break the node, and deleted once the apply has checked itself. If the apply dies,
the next apply recovers it, or the watcher does within seconds, also after a reboot. Without the watcher the node might
stay unreachable for the master, and no next apply would come.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.device import change_plan
from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply.attempt import Attempt
from saltext_wgmesh.minion.apply.health_check import Baseline, Master
from saltext_wgmesh.minion.state import former_version
from saltext_wgmesh.minion.state.former_version import PENDING_APPLY_FILE
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-I", "-m", "saltext_wgmesh.minion.apply.recover")


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingApply:
    """An apply, as far as it must be known to check it and to roll it back."""

    view: View
    """The view that is being applied."""
    requested_digest: str
    """The digest of the view that the caller asked for: *view*, or the view to which *view* is a step."""
    attempt: Attempt
    """Read from the journal, it lacks its plan."""
    boot_id: str
    """The boot in which the apply began: a link that is lost by a reboot is no fault of the view."""


def write_pending(store: Store, pending: PendingApply) -> None:
    """Write *pending* to disk, durably."""
    attempt = pending.attempt
    master = attempt.baseline.master
    raw = {
        "view": pending.view.as_dict(),
        "requested_digest": pending.requested_digest,
        "old_view": attempt.old_view and attempt.old_view.as_dict(),
        "older_view": attempt.older_view and attempt.older_view.as_dict(),
        "links_up": sorted(attempt.baseline.links_up),
        "master": master and [master.address, master.port],
        "required": sorted(attempt.required),
        "required_any": {group: sorted(neighbours) for group, neighbours in attempt.required_any.items()},
        "boot_id": pending.boot_id,
    }
    former_version.write_present(store.folder / PENDING_APPLY_FILE, json.dumps(raw, indent=1, sort_keys=True) + "\n")


def read_pending(store: Store) -> PendingApply | None:
    """Return the apply in the journal; None if there is none.

    None also if it can't be read: then the next apply compares its view with the kernel alone.
    """
    try:
        text = former_version.read_either(store.folder / PENDING_APPLY_FILE)
        return None if text is None else _parsed(former_version.pending_apply(json.loads(text)))
    except (ViewError, *files.DAMAGE) as error:
        log.warning("wgmesh %s: %s can't be read, and is ignored: %s", store.mesh, PENDING_APPLY_FILE, error)
        return None


def _parsed(raw: Mapping[str, Any]) -> PendingApply:
    def view(name: str) -> View | None:
        return former_version.view(raw[name]) if raw[name] else None

    master = Master(address=raw["master"][0], port=raw["master"][1]) if raw["master"] else None
    required_any = {group: frozenset(neighbours) for group, neighbours in raw["required_any"].items()}
    return PendingApply(
        view=former_version.view(raw["view"]),
        requested_digest=raw["requested_digest"],
        boot_id=raw["boot_id"],
        attempt=Attempt(
            plan=change_plan.ChangePlan(),
            baseline=Baseline(links_up=frozenset(raw["links_up"]), master=master),
            old_view=view("old_view"),
            older_view=view("older_view"),
            required=frozenset(raw["required"]),
            required_any=MappingProxyType(required_any),
        ),
    )


@contextmanager
def journaled(store: Store, pending: PendingApply) -> Iterator[None]:
    """Within the block, the journal has *pending*, if that may break links that are up or the path to the master.

    The journal stays only if the process dies within the block.
    """
    if pending.attempt.plan.is_disruptive or pending.attempt.baseline.master:
        write_pending(store, pending)
    try:
        yield
    except Exception:
        # An error is no death: the caller has rolled back, or hears of it.
        clear_pending(store)
        raise
    clear_pending(store)


def clear_pending(store: Store) -> None:
    """Delete the journal: there is nothing to recover."""
    former_version.remove_both(store.folder / PENDING_APPLY_FILE)


def interrupted(host: Host) -> list[str]:
    """Return the meshes of which an apply died and was not recovered yet, sorted."""
    # An apply in progress has a journal too. It holds the lock of its mesh, which a process that died does not.
    found = sorted(former_version.meshes_with(host.state_dir, PENDING_APPLY_FILE))
    return [mesh for mesh in found if not Store(host=host, mesh=mesh).is_locked()]


def spawn_recovery(meshes: list[str]) -> subprocess.Popen[bytes]:
    """Start the process that recovers the interrupted applies of *meshes*, and return it."""
    return subprocess.Popen((*COMMAND, *meshes), stdin=subprocess.DEVNULL, cwd="/")
