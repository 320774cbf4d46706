"""The minion that holds this host's key and meshes: a host may run several minions, and only one of them may.

The record lies beside the key. A minion is known by the folder of its Salt key, since two minions of one host have two
such folders. A copied disk has the same folder under another id, and may go on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.state import store
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host

DEFAULT_PKI_DIR = "/etc/salt/pki/minion"
"""Where the main minion of a host has its Salt key, unless the operator moved it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minion:
    """One minion of this host."""

    id: str
    pki_dir: str
    """The folder of its Salt key."""

    @classmethod
    def of(cls, opts: dict[str, Any]) -> Minion:
        """Return the minion with these options."""
        return cls(id=str(opts["id"]), pki_dir=str(opts["pki_dir"]))


def holder_file(host: Host) -> Path:
    """Return the path of the record, beside the key."""
    return host.key_file.with_name(f"{host.key_file.name}.minion")


def require_holder(host: Host, minion: Minion) -> None:
    """Return if *minion* may read and change this host's key and meshes; HostError if another minion holds them."""
    other = _other_holder(host, minion)
    if other:
        raise HostError(
            f"this host's mesh belongs to its minion {other.id} ({other.pki_dir}), not to {minion.id}: "
            f"take {minion.id} out of the policy, and run 'salt {minion.id} mine.delete wgmesh.facts'"
        )


def take_hold(host: Host, minion: Minion) -> None:
    """Record *minion* as the holder. HostError if another minion is."""
    require_holder(host, minion)
    if _recorded(host) != minion:
        files.write_file(holder_file(host), json.dumps(asdict(minion)) + "\n")


def _other_holder(host: Host, minion: Minion) -> Minion | None:
    recorded = _recorded(host)
    if recorded is None:
        return _holder_by_views(host, minion)
    return recorded if recorded.pki_dir != minion.pki_dir and _has_salt_key(recorded.pki_dir) else None


def _holder_by_views(host: Host, minion: Minion) -> Minion | None:
    """Return the minion that applied the views of this host, if that is another one; for hosts without a record."""
    views = [view for mesh in store.meshes(host) if (view := Store(host=host, mesh=mesh).view())]
    if minion.pki_dir == DEFAULT_PKI_DIR or not _has_salt_key(DEFAULT_PKI_DIR):
        # Without a main minion, this one may have been renamed: an error would name a minion that does not exist.
        return None
    if not views or any(view.node == minion.id for view in views):
        return None
    return Minion(id=views[0].node, pki_dir=DEFAULT_PKI_DIR)


def _has_salt_key(pki_dir: str) -> bool:
    return Path(pki_dir, "minion.pem").exists()


def _recorded(host: Host) -> Minion | None:
    """Return the recorded holder; None if there is none, or the record can't be read."""
    try:
        raw = json.loads(files.read_file(holder_file(host)) or "null")
        return Minion(id=str(raw["id"]), pki_dir=str(raw["pki_dir"]))
    except files.DAMAGE:
        return None
