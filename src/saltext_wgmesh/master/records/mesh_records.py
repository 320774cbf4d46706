"""The ledger as one run reads it: once, into values that the run's steps are given."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.master.records.acknowledgement import NO_ACK, Ack
from saltext_wgmesh.master.records.decisions import GuardRecord, Pin
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.mesh_head import MeshHead
from saltext_wgmesh.master.records.plan_inputs import Generation

Acks = Mapping[str, Ack]
"""Node → what it has acknowledged, in all of its meshes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The kept generations of one mesh.

    A mesh keeps up to twenty of them, and each is as large as its fleet. So each is read when a step first asks for
    it, and once: ``History.of`` gives functions that remember what they returned.
    """

    numbers: Callable[[], Sequence[int]]
    """The numbers of all that are kept, sorted."""
    raw_policy: Callable[[int], Any]
    """Number → the mesh's policy in the pillar then, unparsed; None if the generation is not kept."""
    generation: Callable[[int], Generation]
    """Number → that generation; LedgerError if it is not kept."""
    current: Callable[[], Generation]
    """The published one; LedgerError if there is none."""
    current_plan: Callable[[], Plan]
    """The published plan, without PSKs; LedgerError as above."""

    @classmethod
    def of(cls, ledger: Ledger, mesh: str, current: int) -> History:
        """The history of *mesh*, whose published generation is *current*."""
        generation = functools.cache(functools.partial(ledger.generation, mesh))
        return cls(
            numbers=functools.cache(functools.partial(ledger.generations, mesh)),
            raw_policy=functools.cache(functools.partial(ledger.raw_policy, mesh)),
            generation=generation,
            current=lambda: generation(current),
            current_plan=functools.cache(lambda: generation(current).inputs.plan()),
        )


def _nothing_published(*_: int) -> Any:
    raise LedgerError("nothing was published of this mesh yet")


NO_HISTORY = History(
    numbers=tuple,
    raw_policy=lambda _: None,
    generation=_nothing_published,
    current=_nothing_published,
    current_plan=_nothing_published,
)
"""The history of a mesh that was never published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshRecords:
    """The ledger's records of one mesh."""

    mesh: str
    acks: Acks
    head: MeshHead = field(default_factory=MeshHead)
    health: Health = field(default_factory=Health)
    guard: GuardRecord = field(default_factory=GuardRecord)
    pin: Pin | None = None
    history: History = field(default_factory=lambda: NO_HISTORY, compare=False)

    def has_applied(self, node: str) -> bool:
        """Whether *node* has acknowledged what is published for it; False if nothing is."""
        digest = self.head.digests.get(node)
        return digest is not None and self.ack(node).digests.get(self.mesh) == digest

    def ack(self, node: str) -> Ack:
        """The acknowledgements of *node*, in all of its meshes."""
        return self.acks.get(node, NO_ACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSnapshot:
    """The ledger's records of all meshes, as they were at one moment."""

    meshes: Mapping[str, MeshRecords]
    """Name → records, sorted; all meshes that were ever published."""
    acks: Acks
    """The acknowledgements of every node that has an assignment."""
    idle_fingerprint: str
    """As ``Ledger.idle_fingerprint`` gives it."""

    def mesh(self, name: str) -> MeshRecords:
        """The records of that mesh; empty ones if it was never published."""
        return self.meshes.get(name) or MeshRecords(mesh=name, acks=self.acks)

    def with_health(self, health: Mapping[str, Health]) -> LedgerSnapshot:
        """The same with the *health* of meshes, by name."""
        return self._with({name: replace(self.meshes[name], health=known) for name, known in health.items()})

    def with_pins(self, pins: Mapping[str, Pin | None]) -> LedgerSnapshot:
        """The same with the *pins* of meshes, by name."""
        return self._with({name: replace(self.meshes[name], pin=pin) for name, pin in pins.items()})

    def with_acks(self, acks: Acks) -> LedgerSnapshot:
        """The same with the *acks* of some nodes."""
        merged = MappingProxyType({**self.acks, **acks})
        meshes = {name: replace(records, acks=merged) for name, records in self.meshes.items()}
        return replace(self, acks=merged, meshes=meshes)

    def _with(self, changed: Mapping[str, MeshRecords]) -> LedgerSnapshot:
        return replace(self, meshes={**self.meshes, **changed})


def read_snapshot(ledger: Ledger) -> LedgerSnapshot:
    """The present records of all meshes. Each is read once."""
    heads = {mesh: ledger.head(mesh) for mesh in ledger.meshes()}
    acks = MappingProxyType(ledger.acks(sorted({node for head in heads.values() for node in head.digests})))
    meshes = {
        mesh: MeshRecords(
            mesh=mesh,
            head=head,
            health=ledger.health(mesh),
            guard=ledger.guard(mesh),
            pin=ledger.pin(mesh),
            acks=acks,
            history=History.of(ledger, mesh, head.generation),
        )
        for mesh, head in heads.items()
    }
    return LedgerSnapshot(meshes=meshes, acks=acks, idle_fingerprint=ledger.idle_fingerprint())


def without_lost_assignments(ledger: Ledger, snapshot: LedgerSnapshot, named: Collection[str]) -> LedgerSnapshot:
    """*snapshot*, with empty digests where the record of a node is damaged or gone: its views are published once more.

    The records of nodes that have not acknowledged are looked at, and in full those of the *named*: these may have
    failed for such a record. To read the records of all nodes would take seconds.
    """
    changed = {}
    for mesh, records in snapshot.meshes.items():
        digests = records.head.digests
        doubtful = sorted(node for node in digests if node in named or not records.has_applied(node))
        lost = {node: "" for node in doubtful if not ledger.has_assignments(node, mesh, in_full=node in named)}
        if lost:
            changed[mesh] = replace(records, head=replace(records.head, digests={**digests, **lost}))
    return replace(snapshot, meshes={**snapshot.meshes, **changed}) if changed else snapshot
