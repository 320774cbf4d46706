"""Revoked Salt keys: those that nodes of a mesh still rely on, and a cheap look for those that are revoked just now."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from saltext_wgmesh.master.records import inventory
from saltext_wgmesh.master.records.mesh_records import MeshRecords

LOOK_INTERVAL = 0.5
"""Seconds between two reads of all keys, where the master keeps them anywhere else than in a folder."""
LOCAL_KEYS = (None, "localfs_key")
"""Drivers of Salt's that keep each accepted key as a file of one folder. Salt before 3008 has no driver."""

Identity = tuple[str, str]
"""A minion id, and the fingerprint of its Salt key."""


def untold(meshes: Collection[MeshRecords], accepted: Mapping[str, str], confirm: Collection[str]) -> set[Identity]:
    """The members of *meshes* whose Salt keys are not *accepted* any longer, and which the next plan leaves out.

    Members whose loss is held stay, unless *confirm* has the digest of that loss.
    """
    found = set()
    for records in meshes:
        loss = records.guard.held
        held = set(loss.nodes) if loss and loss.digest not in confirm else set()
        found |= {
            (node, facts.salt_key)
            for node, facts in records.head.facts.items()
            if node not in held and accepted.get(node) != facts.salt_key
        }
    return found


class KeyWatch:
    """Tells whether one of the keys that were *accepted* is so no longer. No minion can cause that.

    It is asked many times a second. A read of all keys takes a while, so the folder of the keys is looked at first.
    """

    def __init__(self, opts: dict[str, Any], accepted: Mapping[str, str]) -> None:
        self._opts = opts
        self._accepted = accepted
        self._folder = _folder(opts)
        self._seen: int | None = None
        """When the folder was changed last, as of the last read of all keys."""
        self._looked_at = float("-inf")
        self._is_revoked = False

    def __call__(self) -> bool:
        """Return whether a key was revoked; once it was, this does not change."""
        if not self._is_revoked and self._may_have_changed():
            self._is_revoked = inventory.is_key_revoked(self._opts, self._accepted)
        return self._is_revoked

    def _may_have_changed(self) -> bool:
        changed_at = _changed_at(self._folder) if self._folder else None
        if changed_at is not None:
            # Before the keys are read: what changes during the read is seen at the next look.
            is_other = changed_at != self._seen
            self._seen = changed_at
            return is_other
        now = time.monotonic()
        is_due = now - self._looked_at >= LOOK_INTERVAL
        self._looked_at = now if is_due else self._looked_at
        return is_due


def _folder(opts: Mapping[str, Any]) -> Path | None:
    """The folder of the accepted keys; None if they are kept in another way."""
    # The masters of a cluster share their keys.
    parent = opts.get("cluster_pki_dir") if opts.get("cluster_id") else opts.get("pki_dir")
    return Path(parent, "minions") if parent and opts.get("keys.cache_driver") in LOCAL_KEYS else None


def _changed_at(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None
