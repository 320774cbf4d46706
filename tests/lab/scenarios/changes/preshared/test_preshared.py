"""Each link gets a preshared key of its own, without a disturbance."""

from __future__ import annotations

import hashlib
import time

from ....disruption import PLANNED
from ....lossless import undisturbed
from ....mesh import Mesh
from ....sessions import sessions
from ....wait import wait_until
from ..edits import TALKS, converge, edited, policy

RENEWED = 240
"""Seconds in which each session in use is renewed, with a margin."""
memory: dict[str, dict[frozenset[str], set[str]]] = {}


def _on(mesh: dict) -> None:
    mesh["preshared_keys"] = True


def pairs(mesh: Mesh) -> dict[frozenset[str], set[str]]:
    """Return link → digests of the preshared keys of both ends. A missing key is the empty text."""
    underlay = mesh.lab.underlay
    owners = {underlay[n].run("wg", "show", mesh.name, "public-key").strip(): n for n in mesh.members}
    found: dict[frozenset[str], set[str]] = {}
    for node in mesh.members:
        for line in underlay[node].run("wg", "show", "all", "preshared-keys").splitlines():
            _, peer, key = line.split("\t")
            digest = "" if key == "(none)" else hashlib.sha256(key.encode()).hexdigest()
            found.setdefault(frozenset((node, owners.get(peer, peer))), set()).add(digest)
    return found


def _all_have(mesh: Mesh) -> bool:
    found = pairs(mesh)
    return all(len(digests) == 1 and "" not in digests for digests in found.values())


def _oldest(mesh: Mesh) -> int:
    """Return the start of the oldest session, in seconds since the epoch; 0 if there is a peer without one."""
    return min(session.handshake for session in sessions(mesh).peers.values())


def test_each_link_gets_own_preshared_key(mesh: Mesh):
    """All links have different keys with equal ends, and sessions that start with these keys lose no packet."""
    with undisturbed(mesh, "preshared keys on", talks=TALKS):
        converge(mesh, edited(_on), lambda: _all_have(mesh))
        after = time.time()
        wait_until(lambda: _oldest(mesh) > after, RENEWED, "every session to be renewed", every=2.0)
    memory["first"] = found = pairs(mesh)
    assert len({next(iter(digests)) for digests in found.values()}) == len(found)
    assert mesh.faults() == []


def test_preshared_keys_are_rotated(mesh: Mesh):
    """Every link gets another preshared key, without a disturbance."""

    def all_other() -> bool:
        now = pairs(mesh)
        return _all_have(mesh) and not any(digests & memory["first"].get(link, set()) for link, digests in now.items())

    with undisturbed(mesh, "preshared keys rotated", talks=TALKS):
        mesh.lab.salt.salt_run("wgmesh.rotate_preshared", mesh.name)
        wait_until(all_other, 10 * PLANNED, "all to have other keys", every=1.0)
        mesh.settle(deadline=2 * PLANNED)
    assert mesh.faults() == []


def test_preshared_keys_are_turned_off(mesh: Mesh):
    """No link has a preshared key after the policy turned them off."""
    with undisturbed(mesh, "preshared keys off", talks=TALKS):
        converge(mesh, policy(), lambda: set.union(*pairs(mesh).values()) == {""})
    assert mesh.faults() == []
