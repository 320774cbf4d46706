"""This node's preshared keys: a file each, named by the identifier that views have, for ``wg`` to read by itself.

They are there before anything asks for them, and as long as the view applied last or the one before it does: for a
peer that the watcher adds anew, for the boot, and for the way back.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from saltext_wgmesh.core import preshared, sealed
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.types import Peer, View
from saltext_wgmesh.minion import files, keys
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Store

CHANGING = 600.0
"""Seconds after which both ends of every link have another key, or never will: the session before died within 180."""


def unseal(host: Host, mesh: str, box: Any) -> dict[str, str]:
    """Identifier → key, of the *box* that the master sealed for this node; nothing if there is none. HostError if it
    was sealed for another key than this node's, or holds something else."""
    private = keys.private_keys(host)
    if box is None or not private:
        return {}
    for key in private:
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            found = json.loads(sealed.unseal(str(box), mesh, key))
            return {name: text for name, text in found.items() if preshared.identifier(text) == name}
    raise HostError(
        f"the preshared keys of {mesh} in this node's pillar were not sealed for the key that it has: "
        "apply the formula here, so that the master hears of this key"
    )


def keep(store: Store, view: View, given: Mapping[str, str]) -> None:
    """Every key that *view* asks for is in its file, readable by its owner only; HostError names the peers whose keys
    are neither *given* nor here, and then nothing was written."""
    wanted = set(preshared.identifiers(view))
    have = _have(store) if wanted else set()
    missing = wanted - have - given.keys()
    if missing:
        peers = sorted(p.node for i in view.interfaces for p in i.peers if missing.intersection(p.preshared))
        raise HostError(
            f"the preshared keys with {', '.join(peers)} are neither in this node's pillar nor on it: "
            "'salt-run wgmesh.converge' delivers them"
        )
    if wanted - have:
        store.preshared.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in sorted(wanted - have):
        files.write(store.preshared / name, given[name] + "\n")


def to_try(store: Store, view: View, peer: Peer, ends: tuple[str, str]) -> tuple[str | None, ...]:
    """Identifiers of the keys by which *peer* of *view* may be heard, where *ends* are the public keys of this node and
    of it: that of the view, and for a while after it was taken up the one before. The other end may not have heard of
    the new one, and nobody may be there to tell it. None: without one."""
    own, other = ends
    found = preshared.between(view, own, peer, other)
    before = store.previous() if store.age() < CHANGING else None
    if before is None or (before.keys and own not in before.keys):
        return (found,)
    peers = (p for i in before.interfaces for p in i.peers)
    had = [preshared.between(before, own, p, other) for p in peers if p.node == peer.node and other in p.keys]
    return tuple(dict.fromkeys((found, *had)))


def drop(store: Store) -> None:
    """No key is left that neither the view applied last nor the one before it asks for."""
    needed = {name for view in (store.view(), store.previous()) if view for name in preshared.identifiers(view)}
    for name in sorted(_names(store) - needed):
        files.remove(store.preshared / name)
    if not needed:
        with contextlib.suppress(OSError):
            store.preshared.rmdir()


def forget(store: Store) -> None:
    """No key of the mesh is left."""
    for name in sorted(_names(store)):
        files.remove(store.preshared / name)
    with contextlib.suppress(OSError):
        store.preshared.rmdir()


def _have(store: Store) -> set[str]:
    """The identifiers of the keys that are here, whole."""
    return {
        name
        for name in _names(store)
        if preshared.identifier((files.read(store.preshared / name) or "").strip()) == name
    }


def _names(store: Store) -> set[str]:
    """All files of the folder; half-written ones begin with a dot."""
    try:
        return {path.name for path in store.preshared.iterdir()}
    except FileNotFoundError:
        return set()
