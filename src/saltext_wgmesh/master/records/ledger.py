"""The master's memory of its meshes, in Salt's own cache, so that it lives where the master's data lives.

Banks and keys (all banks begin with ``wgmesh/``, so that they meet no others):

========================  ============  ==================================================================
bank                      key           value
========================  ============  ==================================================================
``wgmesh/mesh``           ``<mesh>``    the number of the current generation, and nothing else: every pillar reads it
``wgmesh/head``           ``<mesh>``    ``MeshHead``: digests, allocations, last trusted facts, rotation of keys
``wgmesh/head-copy``      ``<mesh>``    the same once more: each is written after the other one is on the disk
``wgmesh/generation``     ``<mesh>.N``  ``Generation``: what generation N was planned from
``wgmesh/node``           ``<minion>``  the node's assignments, per mesh the last few with their generations
``wgmesh/acknowledged``   ``<minion>``  ``Ack``: what the node said it has applied, and the push that it has not
``wgmesh/health``         ``<mesh>``    ``Health``: what is down, since when, and the nodes that report it
``wgmesh/guard``          ``<mesh>``    ``GuardRecord``: a loss that is held, and one that is approved
``wgmesh/pin``            ``<mesh>``    ``Pin``: the policy of an earlier generation that the mesh was rolled back to
``wgmesh/runs``           ``last``      ``LastRun``: what it planned from if it left nothing to do, or how it failed
``wgmesh/runs``           ``ledger``    the name of this ledger, and in ``ledger-copy`` once more
========================  ============  ==================================================================

A damaged record is never taken for an empty one. One of a node costs that node at most: it is pushed to once more, or
its views are published once more. A damaged head is read from its copy. Any other damaged record is a LedgerError.

A generation is complete before its number stands in ``wgmesh/mesh``: readers look there first, and take from a node's
record the newest assignment that is not newer.

Every record carries the number of its schema. One of the previous schema is migrated when it is read, and is written
in the present schema whenever it changes next (``records.migration``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import salt.cache

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import LedgerError, PolicyError
from saltext_wgmesh.core.liveness import mesh_health as health_module
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.master.records import banks
from saltext_wgmesh.master.records.acknowledgement import NO_ACK, Ack
from saltext_wgmesh.master.records.assignment import Assignment, StoredAssignment
from saltext_wgmesh.master.records.decisions import FailedRun, GuardRecord, LastRun, Pin
from saltext_wgmesh.master.records.mesh_head import MeshHead
from saltext_wgmesh.master.records.plan_inputs import Generation
from saltext_wgmesh.master.records.stored_records import DamagedRecord, StoredRecords, parsed, require_readable

log = logging.getLogger(__name__)

KEPT_GENERATIONS = 10
"""Generations that can be inspected, or returned to."""
_LAST_RUN = "last"
_NAMES = ("ledger", "ledger-copy")


class Ledger(StoredRecords):
    """Reads and writes the master's records. There is one writer at a time: the caller holds the run queue's lock."""

    @classmethod
    def of(cls, opts: dict[str, Any]) -> Ledger:
        """The ledger of the master with these options; LedgerError if this process may not read its folders.

        Salt's cache takes a record in such a folder for one that does not exist, and so a mesh for a new one.
        """
        if opts.get("cache", "localfs") == "localfs":
            root = Path(opts.get("cachedir", ""), banks.ROOT)
            for folder in (root, *(root.parent / bank for bank in banks.ALL)):
                require_readable(folder)
            return cls(salt.cache.factory(opts), root.parent)
        return cls(salt.cache.factory(opts))

    # -- heads and generations --------------------------------------------------------------------------

    def meshes(self) -> list[str]:
        """The meshes that were ever published, sorted."""
        return sorted({*self._list(banks.HEADS), *self._list(banks.HEAD_COPIES)})

    def head(self, mesh: str) -> MeshHead:
        """The head of *mesh*; an empty one if it was never published."""
        head = self._sound_head(mesh)
        if (self._number(mesh) or 0) < head.generation:
            # A run died between the last two writes of publish, and all but the number was written. The opposite is
            # no crash: a reader without the lock may find a number that is newer than the head it read before.
            self._store(banks.CURRENT, mesh, {"generation": head.generation})
        return head

    def _sound_head(self, mesh: str) -> MeshHead:
        """The head, or its copy if it is damaged or gone; DamagedRecord if a later generation was published."""
        try:
            head = self._stored_head(banks.HEADS, mesh)
            if head and head.generation and not self._exists(banks.GENERATIONS, f"{mesh}.{head.generation}"):
                of = f"of generation {head.generation}"
                raise DamagedRecord(f"the ledger's {banks.HEADS} {mesh} is {of}, which has no record")
            if head:
                return head
            damage = DamagedRecord(f"the ledger's {banks.HEADS} {mesh} is gone")
        except DamagedRecord as error:
            damage = error
        copy = self._stored_head(banks.HEAD_COPIES, mesh)
        number, of_copy = self._number(mesh) or 0, copy.generation if copy else 0
        # An older copy lacks the addresses and relay numbers that were given out since: they would be given out twice.
        if of_copy < number:
            raise DamagedRecord(
                f"{damage}; generation {number} was published, and {banks.HEAD_COPIES} {mesh} is of generation "
                f"{of_copy}: restore both from a backup of the master's cachedir"
            )
        if copy:
            log.warning("wgmesh: used the copy in %s: %s", banks.HEAD_COPIES, damage)
        elif self._exists(banks.HEADS, mesh):
            raise damage
        return copy or MeshHead()

    def _stored_head(self, bank: str, mesh: str) -> MeshHead | None:
        raw = self._fetch(bank, mesh)
        return parsed(bank, mesh, lambda: MeshHead.from_dict(raw)) if raw else None

    def publish(self, mesh: str, head: MeshHead, changed: Mapping[str, Assignment], generation: Generation) -> None:
        """Make *head* the current one. Interrupted at any point, readers see the generation before.

        *changed* are the assignments that differ from the generation before, *generation* the inputs of the plan.
        """
        # A run that died before it wrote the head left assignments of this generation, perhaps to other nodes.
        for node in sorted(self._nodes_of(mesh, head.generation) - changed.keys()):
            self._put_assignments(mesh, head.generation, node)
        # The list of nodes comes before their assignments: after a crash the next run knows which ones to take back.
        self._store(banks.GENERATIONS, f"{mesh}.{head.generation}", {**generation.as_dict(), "nodes": sorted(changed)})
        for node, assignment in sorted(changed.items()):
            self._put_assignments(mesh, head.generation, node, assignment)
        # The head comes after all that it refers to. Readers ignore entries of a later generation than the current one.
        self.save_head(mesh, head)
        # Last: a run that dies before this keeps one generation too many, and never one too few.
        self._drop_old(mesh, head.generation - KEPT_GENERATIONS)

    def _nodes_of(self, mesh: str, generation: int) -> set[str]:
        """The nodes that may have an assignment of that generation, which no run has finished."""
        try:
            raw = self._fetch(banks.GENERATIONS, f"{mesh}.{generation}")
            return parsed(banks.GENERATIONS, f"{mesh}.{generation}", lambda: set(raw.get("nodes", ())))
        except DamagedRecord:
            return {node for node in self.nodes() if self.has_assignments(node, mesh)}

    def _drop_old(self, mesh: str, last: int) -> None:
        """Drop the generations up to *last*, but the last one of each of KEPT_GENERATIONS policies.

        So a mesh can be rolled back to a policy however many generations followed it for new keys and dead links.
        """
        if last <= 0:
            return
        if self.raw_policy(mesh, last) == self.raw_policy(mesh, last + 1):
            self._flush(banks.GENERATIONS, f"{mesh}.{last}")
        for number in [n for n in self.generations(mesh) if n <= last][:-KEPT_GENERATIONS]:
            self._flush(banks.GENERATIONS, f"{mesh}.{number}")

    def save_head(self, mesh: str, head: MeshHead) -> None:
        """Write the head alone, as when facts or allocations changed and no assignment did."""
        # If only the head was written, ``head`` completes the number. The copy follows both, so that one of the two
        # heads is whole at any moment.
        self._store(banks.HEADS, mesh, head.as_dict())
        self._store(banks.CURRENT, mesh, {"generation": head.generation})
        self._store(banks.HEAD_COPIES, mesh, head.as_dict())

    def generation(self, mesh: str, number: int) -> Generation:
        """The inputs of that generation; LedgerError if it is no longer kept."""
        raw = self._fetch(banks.GENERATIONS, f"{mesh}.{number}")
        if not raw:
            raise LedgerError(
                f"{mesh}: generation {number} is not in the ledger, which keeps the last {KEPT_GENERATIONS} and the "
                "last one of each earlier policy"
            )
        try:
            return parsed(banks.GENERATIONS, f"{mesh}.{number}", lambda: Generation.from_dict(mesh, raw))
        except PolicyError as error:
            raise LedgerError(
                f"the ledger's {banks.GENERATIONS} {mesh}.{number} has a policy that this version refuses: {error}"
            ) from error

    def raw_policy(self, mesh: str, number: int) -> Any:
        """The mesh's policy in the pillar when that generation was planned; None if the generation is not kept.

        It is not parsed: a policy of long ago may be one that this version refuses.
        """
        return self._fetch(banks.GENERATIONS, f"{mesh}.{number}").get("policy")

    def generations(self, mesh: str) -> list[int]:
        """The generations of *mesh* that are kept and were published, sorted."""
        found = (key.rpartition(".") for key in self._list(banks.GENERATIONS))
        current = self._current(mesh)
        numbers = (int(number) for name, _, number in found if name == mesh and number.isdecimal())
        return sorted(number for number in numbers if number <= current)

    # -- nodes ------------------------------------------------------------------------------------------

    def name(self) -> str:
        """The name by which nodes tell this ledger from that of another master; empty if it has none yet.

        DamagedRecord if it had one, and neither the record nor its copy can be read.
        """
        found = [self._stored_name(key) for key in _NAMES]
        name = next((name for name in found if isinstance(name, str) and name), "")
        damage = next((name for name in found if isinstance(name, DamagedRecord)), None)
        if damage and not name:
            raise damage
        return name

    def _stored_name(self, key: str) -> str | DamagedRecord:
        try:
            raw = self._fetch(banks.RUNS, key)
            return parsed(banks.RUNS, key, lambda: _named(raw))
        except DamagedRecord as error:
            return error

    def ensure_name(self, new_name: Callable[[], str]) -> None:
        """The ledger has a name: that which *new_name* returned at the first run, also on another machine later."""
        name = self.name() or new_name()
        for key in _NAMES if name else ():
            if self._stored_name(key) != name:
                self._store(banks.RUNS, key, {"name": name})

    def assignments(self, node: str, problems: list[str] | None = None) -> dict[str, dict[str, Any]]:
        """Mesh → the current assignment of *node* in plain values, with its generation: what its pillar gets.

        A mesh whose records can't be read is left out, and *problems* gets the reason; without it, LedgerError.
        """
        found = {}
        for mesh, entries in sorted(self._entries(node).items()):
            try:
                current = self._current(mesh)
            except LedgerError as error:
                if problems is None:
                    raise
                problems.append(str(error))
                continue
            known = [entry for entry in entries if entry.generation <= current]
            if known:
                found[mesh] = known[-1].as_dict()
        name = self._name_for_nodes() if found else ""
        return {mesh: {**entry, constants.LEDGER_KEY: name} for mesh, entry in found.items()} if name else found

    def _name_for_nodes(self) -> str:
        """The ledger's name; empty if it is damaged. A node compares it only if it is given one."""
        try:
            return self.name()
        except DamagedRecord as error:
            log.warning("wgmesh: views are given out without the name of the ledger: %s", error)
            return ""

    def view_with_digest(self, node: str, mesh: str, digest: str | None) -> View | None:
        """The view of *node* with that digest; None if it is not one of the last few, or of another version."""
        try:
            entries = self._entries(node).get(mesh, [])
        except DamagedRecord:
            return None
        return next((entry.view() for entry in reversed(entries) if entry.digest == digest), None)

    def has_assignments(self, node: str, mesh: str, *, in_full: bool = False) -> bool:
        """Whether the record of *node* is sound and has an assignment in *mesh*; *in_full*: also in its content."""
        try:
            entries = self._entries(node).get(mesh, [])
            return bool(entries) and not (in_full and entries[-1].is_damaged)
        except DamagedRecord as error:
            log.warning("wgmesh: the views of %s are published once more: %s", node, error)
            return False

    def _entries(self, node: str) -> dict[str, list[StoredAssignment]]:
        """Mesh → the last assignments of *node*, oldest first."""
        raw = self._fetch(banks.NODES, node)
        return parsed(banks.NODES, node, lambda: _stored_assignments(raw["meshes"]) if raw else {})

    def forget(self, node: str) -> None:
        """Drop the records of a node whose key is gone. Its addresses stay allocated."""
        # ``nodes`` lists a node until its last record is gone: a run that dies before is repeated.
        self._flush(banks.ACKS, node)
        self._flush(banks.NODES, node)

    def nodes(self) -> list[str]:
        """Every node that has an assignment, sorted."""
        return self._list(banks.NODES)

    def _current(self, mesh: str) -> int:
        number = self._number(mesh)
        return self._sound_head(mesh).generation if number is None else number

    def _number(self, mesh: str) -> int | None:
        """The number of the current generation; 0 if there is none, None if its record is damaged."""
        try:
            raw = self._fetch(banks.CURRENT, mesh)
            return parsed(banks.CURRENT, mesh, lambda: int(raw["generation"]) if raw else 0)
        except DamagedRecord:
            return None

    def _put_assignments(self, mesh: str, generation: int, node: str, *added: Assignment) -> None:
        """Keep the entries of *node* for *mesh* that are older than *generation*, and add those of *added*."""
        try:
            meshes = self._entries(node)
        except DamagedRecord:
            meshes = {}
        kept = [old for old in meshes.get(mesh, []) if old.generation < generation]
        new = (StoredAssignment.of(assignment, generation) for assignment in added)
        meshes[mesh] = [*kept[-(KEPT_GENERATIONS - 1) :], *new]
        plain = {name: [entry.as_dict() for entry in entries] for name, entries in meshes.items()}
        self._store(banks.NODES, node, {"meshes": plain})

    # -- acknowledgements -------------------------------------------------------------------------------

    def ack(self, node: str) -> Ack:
        """The acknowledgements of *node*; none if it was never pushed to, or if the record is damaged."""
        try:
            raw = self._fetch(banks.ACKS, node)
            return parsed(banks.ACKS, node, lambda: Ack.from_dict(raw))
        except DamagedRecord as error:
            log.warning("wgmesh: %s is pushed to once more: %s", node, error)
            return NO_ACK

    def acks(self, nodes: Iterable[str]) -> dict[str, Ack]:
        """Node → what it has acknowledged."""
        return {node: self.ack(node) for node in nodes}

    def save_ack(self, node: str, ack: Ack) -> None:
        """Keep what *node* answered."""
        self._store(banks.ACKS, node, ack.as_dict())

    # -- health -----------------------------------------------------------------------------------------

    def health(self, mesh: str) -> Health:
        """The last known health of the mesh; that of a mesh without trouble if there is none."""
        raw = self._fetch(banks.HEALTH, mesh)
        return parsed(banks.HEALTH, mesh, lambda: health_module.health_from_dict(raw))

    def save_health(self, mesh: str, health: Health) -> None:
        """Keep *health*."""
        self._store(banks.HEALTH, mesh, health_module.health_as_dict(health))

    # -- decisions --------------------------------------------------------------------------------------

    def guard(self, mesh: str) -> GuardRecord:
        """The prune guard's record of *mesh*; an empty one if there is none."""
        raw = self._fetch(banks.GUARD, mesh)
        return parsed(banks.GUARD, mesh, lambda: GuardRecord.from_dict(raw))

    def save_guard(self, mesh: str, record: GuardRecord) -> None:
        """Keep exactly *record*."""
        self._put(banks.GUARD, mesh, record.as_dict())

    def pin(self, mesh: str) -> Pin | None:
        """The policy that *mesh* is pinned to; None if it is planned by the pillar's."""
        raw = self._fetch(banks.PINS, mesh)
        return parsed(banks.PINS, mesh, lambda: Pin.from_dict(raw)) if raw else None

    def save_pin(self, mesh: str, pin: Pin | None) -> None:
        """Keep exactly *pin*."""
        self._put(banks.PINS, mesh, pin.as_dict() if pin else {})

    def _put(self, bank: str, key: str, raw: Mapping[str, Any]) -> None:
        if not raw:
            self._flush(bank, key)
        else:
            self._store(bank, key, dict(raw))

    # -- runs -------------------------------------------------------------------------------------------

    def idle_fingerprint(self) -> str:
        """The fingerprint of what the last run planned from, if that run left nothing to do; else empty."""
        return self._last_run().idle_fingerprint

    def _last_run(self) -> LastRun:
        """The end of the last run. A damaged record says nothing: the next run then plans, and writes it again."""
        try:
            raw = self._fetch(banks.RUNS, _LAST_RUN)
            return parsed(banks.RUNS, _LAST_RUN, lambda: LastRun.from_dict(raw))
        except DamagedRecord:
            return LastRun()

    def save_idle_fingerprint(self, fingerprint: str) -> None:
        """A run has ended. *fingerprint* is empty if it left something to do."""
        self._store(banks.RUNS, _LAST_RUN, LastRun(idle_fingerprint=fingerprint).as_dict())

    def failed_run(self) -> FailedRun | None:
        """The last run, if it failed; None if it did not."""
        return self._last_run().failed

    def save_failed_run(self, failed: FailedRun) -> None:
        """A run has ended with an error; the next one that ends without clears this."""
        self._store(banks.RUNS, _LAST_RUN, LastRun(failed=failed).as_dict())


def _stored_assignments(meshes: Mapping[str, Any]) -> dict[str, list[StoredAssignment]]:
    return {mesh: [StoredAssignment.from_dict(raw) for raw in entries] for mesh, entries in meshes.items()}


def _named(raw: Mapping[str, Any]) -> str:
    name = raw["name"] if raw else ""
    if not isinstance(name, str):
        raise TypeError("the name is no text")
    return name
