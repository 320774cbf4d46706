"""Rotation of keys in one run: ``core.keys.rotation`` decides, this module gives it what is known of the mesh."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.keys import rotation as rotating
from saltext_wgmesh.core.keys.rotation import Rotation, RotationInput
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.pairs import node_pair
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.master.records.acknowledgement import NO_ACK
from saltext_wgmesh.master.records.mesh_head import MeshHead
from saltext_wgmesh.master.records.mesh_records import Acks


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationContext:
    """One mesh at one moment of a run: what its rotation is decided from."""

    plan: Plan
    head: MeshHead
    health: Health
    acks: Acks
    now: float
    """Seconds since the epoch."""

    def inputs(self) -> RotationInput:
        """The inputs of ``core.keys.rotation``."""
        members = self.plan.members
        next_keys = {n: key for n in members if (key := members[n].next_key)}
        published_before = {n: self.head.facts[n].next_key for n in next_keys if n in self.head.facts}
        neighbours: dict[str, set[str]] = {node: set() for node in members}
        for link in self.plan.links:
            neighbours[link.a].add(link.b)
            neighbours[link.b].add(link.a)
        return RotationInput(
            neighbours={node: frozenset(others) for node, others in neighbours.items()},
            relays={n for n, m in members.items() if m.is_relay},
            next_keys=next_keys,
            published_next_keys={n: key for n, key in next_keys.items() if published_before.get(n) == key},
            # Without a next key no acknowledgement matters, and a large mesh has many.
            acknowledged={n for n in members if self._has_applied(n)} if next_keys else frozenset(),
            down=self.health.down_nodes,
            # No route leads over an unrouted link, so it is no second path.
            down_links=self.health.down_links
            | {node_pair(node, relay) for node, member in members.items() for relay in member.unrouted_relays},
            now=self.now,
        )

    def _has_applied(self, node: str) -> bool:
        digest = self.head.digests.get(node)
        return digest is not None and self.acks.get(node, NO_ACK).digests.get(self.plan.mesh) == digest


def matching_members(plan: Plan, patterns: Iterable[str]) -> set[str]:
    """The members of *plan* that *patterns*, minion ids and globs, match."""
    return {node for pattern in patterns for node in fnmatch.filter(plan.members, pattern)}


def rotation_fingerprint(head: MeshHead, now: float) -> dict[str, object]:
    """The recorded rotation of a mesh, with the requests that the policy has made until *now*."""
    known = head.rotation
    return rotating.rotation_as_dict(rotating.request_due(known, head.facts, known.period, now))


def advance_rotation(
    policy: MeshPolicy, context: RotationContext, patterns: Iterable[str], forced: Iterable[str] = ()
) -> Rotation:
    """The mesh's rotation from now on.

    *patterns* are minion ids and globs whose keys the operator wants rotated. Those of *forced* do not wait for nodes
    that have not acknowledged.
    """
    members = context.plan.members
    found = rotating.request_due(context.head.rotation, members, policy.rotate_after, context.now)
    found = rotating.request(found, matching_members(context.plan, patterns))
    found = rotating.force(found, matching_members(context.plan, forced))
    stored = (found.requested, found.activated, found.backed_off_until, found.open_since)
    is_idle = not (any(stored) or any(m.next_key for m in members.values()))
    return found if is_idle else rotating.advance(found, context.inputs())


def rotation_blockers(context: RotationContext) -> dict[str, str]:
    """Node that is about to get another key → what it waits for."""
    known = context.head.rotation
    is_idle = not (known.requested or any(m.next_key for m in context.plan.members.values()))
    return {} if is_idle else rotating.blockers(known, context.inputs())


def unconfirmed_activations(context: RotationContext) -> frozenset[str]:
    """The nodes that were told a while ago to activate a key, and have not published that they did."""
    known = context.head.rotation
    return rotating.unconfirmed(known, context.inputs()) if known.activated else frozenset()


def warnings(head: MeshHead, facts: Mapping[str, Facts], requested: Container[str]) -> list[str]:
    """Warnings about unexpected keys that are new since *head* was written.

    *requested* are the nodes that were told to make another key.
    """
    found = []
    for node, own in facts.items():
        before = head.facts.get(node)
        if before is None or own.salt_key != before.salt_key:
            continue
        if own.public_key not in before.keys:
            found.append(f"{node}: it has another key than it announced: was its disk replaced?")
        elif own.next_key not in (None, before.next_key) and node not in requested:
            found.append(f"{node}: it has made another key that was not requested: was its key file lost?")
    return found


def rotation_can_continue(policy: MeshPolicy, context: RotationContext) -> bool:
    """Whether a run at once would let another node activate its next key."""
    before = context.head.rotation
    return bool(advance_rotation(policy, context, ()).activated.keys() - before.activated.keys())


def require_match(pattern: str, nodes: Collection[str]) -> None:
    """LedgerError if *pattern*, a minion id or a glob, matches none of *nodes*, which are those of published meshes."""
    if not fnmatch.filter(nodes, pattern):
        raise LedgerError(f"no node of a published mesh is named {pattern}: 'salt-run wgmesh.status' lists them")
