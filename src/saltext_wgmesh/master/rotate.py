"""Rotation of keys, as far as it needs the ledger and the fleet; ``core.rotation`` decides."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from saltext_wgmesh.core import rotation as rotating
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.moves import pair
from saltext_wgmesh.core.rotation import Look, Rotation
from saltext_wgmesh.core.types import Facts, MeshPolicy, Plan
from saltext_wgmesh.master.ledger import Head, Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One mesh as a run finds it: what its rotation is decided from."""

    plan: Plan
    head: Head
    health: Health
    now: float

    def look(self, ledger: Ledger) -> Look:
        """What is known of it. Who runs what is read only where it matters: it is one record a node."""
        members = self.plan.members
        next_keys = {n: key for n in members if (key := members[n].next_key)}
        had = {n: self.head.facts[n].next_key for n in next_keys if n in self.head.facts}
        around: dict[str, set[str]] = {node: set() for node in members}
        for link in self.plan.links:
            around[link.a].add(link.b)
            around[link.b].add(link.a)
        return Look(
            neighbours={node: frozenset(others) for node, others in around.items()},
            relays={n for n, m in members.items() if m.is_relay},
            next_keys=next_keys,
            held={n: key for n, key in next_keys.items() if had.get(n) == key},
            runs={n for n in members if self._runs(ledger, n)} if next_keys else frozenset(),
            down=self.health.down,
            # Nothing goes by an idle link: it is no other way.
            cut=self.health.cut | {pair(node, relay) for node, member in members.items() for relay in member.idle},
            now=self.now,
        )

    def _runs(self, ledger: Ledger, node: str) -> bool:
        digest = self.head.digests.get(node)
        return digest is not None and ledger.acknowledged(node).get("digests", {}).get(self.plan.mesh) == digest


def asked_for(plan: Plan, names: Iterable[str]) -> set[str]:
    """The members that *names*, ids and globs, mean."""
    return {node for name in names for node in fnmatch.filter(plan.members, name)}


def remembered(head: Head) -> dict[str, object]:
    """What stands in *head* of the mesh's rotation, and whose time has come since."""
    known = head.rotation
    return rotating.as_dict(rotating.due(known, head.facts, known.period, time.time()))


def step(ledger: Ledger, policy: MeshPolicy, scene: Scene, names: Iterable[str]) -> Rotation:
    """The mesh's rotation from now on; *names* are ids and globs of those who somebody wants to have another key."""
    members = scene.plan.members
    found = rotating.due(scene.head.rotation, members, policy.rotate_after, scene.now)
    found = rotating.want(found, asked_for(scene.plan, names))
    idle = not (found.wanted or found.turns or found.rests or any(m.next_key for m in members.values()))
    return found if idle else rotating.step(found, scene.look(ledger))


def waiting(ledger: Ledger, scene: Scene) -> dict[str, str]:
    """Node that is about to get another key → what it waits for."""
    known = scene.head.rotation
    idle = not (known.wanted or any(m.next_key for m in scene.plan.members.values()))
    return {} if idle else rotating.waiting(known, scene.look(ledger))


def warnings(head: Head, facts: Mapping[str, Facts], wanted: Container[str]) -> list[str]:
    """What is strange about keys that are new since *head* was written; *wanted* are nodes that were asked for one."""
    found = []
    for node, own in facts.items():
        before = head.facts.get(node)
        if before is None or own.salt_key != before.salt_key:
            continue
        if own.public_key not in before.keys:
            found.append(f"{node}: it has another key than it announced: was its disk replaced?")
        elif own.next_key not in (None, before.next_key) and node not in wanted:
            found.append(f"{node}: it has made another key that nobody asked for: was its key file lost?")
    return found


def goes_on(ledger: Ledger, policy: MeshPolicy, scene: Scene) -> bool:
    """Whether a run at once would give somebody the turn."""
    before = scene.head.rotation
    return bool(step(ledger, policy, scene, ()).turns.keys() - before.turns.keys())


def check(ledger: Ledger, name: str) -> None:
    """LedgerError if *name*, an id or a glob, is that of no node of a published mesh."""
    known = {node for mesh in ledger.meshes() for node in ledger.head(mesh).facts}
    if not fnmatch.filter(known, name):
        raise LedgerError(f"no node of a published mesh is named {name}: 'salt-run wgmesh.status' lists them")
