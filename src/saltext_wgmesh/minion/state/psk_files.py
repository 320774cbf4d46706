"""This node's preshared keys: one file each, named by the PSK id that views use. ``wg`` reads the files itself.

A file exists before the first use of its key, and as long as the applied view or the previous one names it. The watcher
needs it to add a peer again, wg-quick needs it at boot, and a rollback needs it too.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.keys import psk, sealed_box
from saltext_wgmesh.core.model.view import Peer, View
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host

ROLLOVER_TIME = 600.0
"""Seconds after which both ends of a link have the new PSK or never will: the old session died within 180 s."""


def open_psks(host: Host, mesh: str, box: Any) -> dict[str, str]:
    """Return PSK id → key from *box*, which the master sealed for this node; empty without a box.

    HostError if it was sealed for another node's key, or holds something else.
    """
    private = keys.private_keys(host)
    if box is None or not private:
        return {}
    for key in private:
        with contextlib.suppress(*files.DAMAGE):
            found = json.loads(sealed_box.open_sealed(str(box), mesh, key))
            return {name: text for name, text in found.items() if psk.psk_id(text) == name}
    raise HostError(
        f"the preshared keys of {mesh} in this node's pillar were not sealed for the key that it has: "
        "apply the formula here, so that the master learns this key"
    )


def save(store: Store, view: View, psks: Mapping[str, str]) -> None:
    """Write the keys that *view* names to their files, readable by their owner only. *psks* are PSK id → key.

    HostError names the peers whose keys are neither in *psks* nor on this node. Then nothing was written.
    """
    wanted = set(psk.psk_ids(view))
    have = _have(store) if wanted else set()
    missing = wanted - have - psks.keys()
    if missing:
        peers = sorted(p.node for i in view.interfaces for p in i.peers if missing.intersection(p.psk_ids))
        raise HostError(
            f"the preshared keys with {', '.join(peers)} are neither in this node's pillar nor on it: "
            "'salt-run wgmesh.converge' delivers them"
        )
    if wanted - have:
        store.psk_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in sorted(wanted - have):
        files.write_file(store.psk_dir / name, psks[name] + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousPeers:
    """The view before the applied one, with its peers by node."""

    view: View
    peers: Mapping[str, tuple[Peer, ...]]


def previous_peers(store: Store) -> PreviousPeers | None:
    """Return the peers of the previous view, for ROLLOVER_TIME after the present one was applied; then None.

    A neighbour may not have the new PSK yet, and the master may be unable to reach it.
    """
    view = store.previous() if store.age() < ROLLOVER_TIME else None
    if view is None:
        return None
    peers: dict[str, tuple[Peer, ...]] = {}
    for interface in view.interfaces:
        for peer in interface.peers:
            peers[peer.node] = (*peers.get(peer.node, ()), peer)
    return PreviousPeers(view=view, peers=peers)


def candidate_psks(
    before: PreviousPeers | None, view: View, peer: Peer, ends: tuple[str, str]
) -> tuple[str | None, ...]:
    """Return the ids of the PSKs with which a handshake with *peer* of *view* may succeed; None stands for no PSK.

    *ends* are the public keys of this node and of the peer. The PSK of *view* comes first, then that of *before*.
    """
    own, other = ends
    found = psk.psk_id_between(view, own, peer, other)
    if before is None or (before.view.keys and own not in before.view.keys):
        return (found,)
    peers = before.peers.get(peer.node, ())
    had = [psk.psk_id_between(before.view, own, p, other) for p in peers if other in p.keys]
    return tuple(dict.fromkeys((found, *had)))


def prune(store: Store) -> None:
    """Delete the keys that neither the applied view nor the previous one names."""
    needed = {name for view in (store.view(), store.previous()) if view for name in psk.psk_ids(view)}
    for name in sorted(_names(store) - needed):
        files.remove_file(store.psk_dir / name)
    if not needed:
        with contextlib.suppress(OSError):
            store.psk_dir.rmdir()


def purge(store: Store) -> None:
    """Delete all keys of the mesh."""
    for name in sorted(_names(store)):
        files.remove_file(store.psk_dir / name)
    with contextlib.suppress(OSError):
        store.psk_dir.rmdir()


def _have(store: Store) -> set[str]:
    """Return the PSK ids of the intact keys on this node."""
    return {name for name in _names(store) if psk.psk_id((files.read_file(store.psk_dir / name) or "").strip()) == name}


def _names(store: Store) -> set[str]:
    """Return the names of all files in the folder; half-written ones begin with a dot."""
    try:
        return {path.name for path in store.psk_dir.iterdir()}
    except FileNotFoundError:
        return set()
