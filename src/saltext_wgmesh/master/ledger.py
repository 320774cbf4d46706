"""The master's memory of its meshes, in Salt's own cache, so that it lives where the master's data lives.

Banks and keys (``wgmesh`` first, so that nobody else's are met):

========================  ============  ==================================================================
bank                      key           value
========================  ============  ==================================================================
``wgmesh/mesh``           ``<mesh>``    the number of the current generation, and nothing else: every pillar reads it
``wgmesh/head``           ``<mesh>``    Head: digests, register, last good facts, rotation of keys
``wgmesh/generation``     ``<mesh>.N``  what generation N was planned from: policy, facts, register
``wgmesh/node``           ``<minion>``  the node's views, per mesh the last few with their generations
``wgmesh/acknowledged``   ``<minion>``  per mesh, the digest that the node said it has applied
``wgmesh/health``         ``<mesh>``    what is down, since when, and who says so
``wgmesh/guard``          ``<mesh>``    what is held because it drops too much, and what may go and has not yet
``wgmesh/pin``            ``<mesh>``    the policy of an earlier generation, where the mesh was rolled back to it
``wgmesh/runs``           ``last``      what the last run that left nothing to do was planned from
========================  ============  ==================================================================

A generation is complete before its number stands in ``wgmesh/mesh``: readers look there first, and take from
a node's record the newest view that is not newer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import salt.cache

from saltext_wgmesh.core import facts as facts_module
from saltext_wgmesh.core import health as health_module
from saltext_wgmesh.core import rollout
from saltext_wgmesh.core import rotation as rotation_module
from saltext_wgmesh.core import secrecy as secrecy_module
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.rollout import Kept
from saltext_wgmesh.core.rotation import Rotation
from saltext_wgmesh.core.secrecy import Secrecy
from saltext_wgmesh.core.types import Facts, Register

SCHEMA = 1
KEPT_GENERATIONS = 10
"""Generations that can be looked at, or returned to."""

_CURRENT = "wgmesh/mesh"
_HEADS = "wgmesh/head"
_GENERATIONS = "wgmesh/generation"
_NODES = "wgmesh/node"
_ACKNOWLEDGED = "wgmesh/acknowledged"
_HEALTH = "wgmesh/health"
_GUARD = "wgmesh/guard"
_PINS = "wgmesh/pin"
_RUNS = "wgmesh/runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a mesh stands."""

    generation: int = 0
    """0: never published."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Node → digest of what it should have applied."""
    register: Register = field(default_factory=Register)
    facts: Mapping[str, Facts] = field(default_factory=dict)
    """Node → the last facts of it that were believed."""
    published_at: float = 0.0
    """Seconds since the epoch."""
    drained: frozenset[str] = frozenset()
    """Nodes that nobody is to depend on, by the operator's word."""
    kept: Kept = rollout.NOTHING
    """Links that the plan has only because the one before it had them: it is a step on the way to another."""
    rotation: Rotation = rotation_module.NOTHING
    secrecy: Secrecy = field(default_factory=Secrecy)
    """Which of the mesh's secrets the preshared keys are made from; the secrets themselves are in no ledger."""


class Ledger:
    """Reads and writes the master's records. One writer at a time: the caller holds the gate."""

    def __init__(self, cache: salt.cache.Cache) -> None:
        self._cache = cache

    @classmethod
    def of(cls, opts: dict[str, Any]) -> Ledger:
        """The ledger of the master with these options."""
        return cls(salt.cache.factory(opts))

    # -- heads and generations --------------------------------------------------------------------------

    def meshes(self) -> list[str]:
        """The meshes that were ever published, sorted."""
        return sorted(self._cache.list(_HEADS) or [])

    def head(self, mesh: str) -> Head:
        """The head of *mesh*; an empty one if it was never published."""
        raw = self._fetch(_HEADS, mesh)
        if not raw:
            return Head()
        if self._current(mesh) < raw["generation"]:
            # A run died between the last two writes of publish: all but the number was written. Whoever reads
            # without the gate may find a number newer than the head that it read before, and must leave it.
            self._store(_CURRENT, mesh, {"generation": raw["generation"]})
        return Head(
            generation=raw["generation"],
            digests=raw["digests"],
            register=register_from_dict(raw["register"]),
            facts={node: _facts_from_dict(node, value) for node, value in raw["facts"].items()},
            published_at=raw["published_at"],
            drained=frozenset(raw.get("drained", ())),
            kept=rollout.from_dict(raw.get("kept", {})),
            rotation=rotation_module.from_dict(raw.get("rotation", {})),
            secrecy=secrecy_module.from_dict(raw.get("secrecy", {})),
        )

    def publish(
        self, mesh: str, head: Head, entries: Mapping[str, Mapping[str, Any]], origin: Mapping[str, Any]
    ) -> None:
        """Make *head* the current one. *entries* are the records of the nodes that changed, *origin* what
        the plan was made from. Interrupted at any point, readers see the generation before."""
        key = f"{mesh}.{head.generation}"
        # A run that died before it set the head left entries of this generation, perhaps to other nodes.
        for node in sorted(set(self._fetch(_GENERATIONS, key).get("nodes", ())) - entries.keys()):
            self._put_entries(mesh, head.generation, node)
        self._store(_GENERATIONS, key, {**origin, "nodes": sorted(entries)})
        for node, entry in sorted(entries.items()):
            self._put_entries(mesh, head.generation, node, {**entry, "generation": head.generation})
        self.keep(mesh, head)
        self._thin(mesh, head.generation - KEPT_GENERATIONS)

    def _thin(self, mesh: str, last: int) -> None:
        """Of the generations up to *last*, the last one of each of KEPT_GENERATIONS policies stays: one can go back to
        a policy though keys turned and links died ever so often since."""
        if last <= 0:
            return
        policies = [self._fetch(_GENERATIONS, f"{mesh}.{number}").get("policy") for number in (last, last + 1)]
        if policies[0] == policies[1]:
            self._cache.flush(_GENERATIONS, f"{mesh}.{last}")
        for number in [n for n in self.generations(mesh) if n <= last][:-KEPT_GENERATIONS]:
            self._cache.flush(_GENERATIONS, f"{mesh}.{number}")

    def keep(self, mesh: str, head: Head) -> None:
        """Write the head alone, as when facts or register changed and no view did."""
        self._store(
            _HEADS,
            mesh,
            {
                "generation": head.generation,
                "digests": dict(head.digests),
                "register": register_as_dict(head.register),
                "facts": {node: facts_module.as_dict(value) for node, value in head.facts.items()},
                "published_at": head.published_at,
                "drained": sorted(head.drained),
                "kept": rollout.as_dict(head.kept),
                "rotation": rotation_module.as_dict(head.rotation),
                "secrecy": secrecy_module.as_dict(head.secrecy),
            },
        )
        self._store(_CURRENT, mesh, {"generation": head.generation})

    def origin(self, mesh: str, generation: int) -> dict[str, Any]:
        """What a generation was planned from; LedgerError if it is no longer kept."""
        raw = self._fetch(_GENERATIONS, f"{mesh}.{generation}")
        if not raw:
            raise LedgerError(
                f"{mesh}: generation {generation} is not in the ledger; the last {KEPT_GENERATIONS} are, and the last "
                "of each policy before"
            )
        return raw

    def generations(self, mesh: str) -> list[int]:
        """The generations of *mesh* that are kept and were published, sorted."""
        found = (key.rpartition(".") for key in self._cache.list(_GENERATIONS) or ())
        current = self._current(mesh)
        return sorted(int(number) for name, _, number in found if name == mesh and int(number) <= current)

    # -- nodes ------------------------------------------------------------------------------------------

    def views(self, node: str) -> dict[str, dict[str, Any]]:
        """Mesh → the current record of *node*: its view as a dict with generation and digest, or a reason."""
        found = {}
        for mesh, entries in sorted(self._fetch(_NODES, node).get("meshes", {}).items()):
            current = self._current(mesh)
            known = [entry for entry in entries if entry["generation"] <= current]
            if known:
                found[mesh] = known[-1]
        return found

    def view_of(self, node: str, mesh: str, digest: str | None) -> dict[str, Any] | None:
        """The record of *node* with that digest, if it is one of the last few."""
        entries = self._fetch(_NODES, node).get("meshes", {}).get(mesh, [])
        return next((dict(entry) for entry in reversed(entries) if entry.get("digest") == digest), None)

    def forget(self, node: str) -> None:
        """Drop the records of a node whose key is gone. Its addresses stay in the register."""
        self._cache.flush(_NODES, node)
        self._cache.flush(_ACKNOWLEDGED, node)

    def nodes(self) -> list[str]:
        """Every node that has a record, sorted."""
        return sorted(self._cache.list(_NODES) or [])

    def _current(self, mesh: str) -> int:
        return int(self._fetch(_CURRENT, mesh).get("generation", 0))

    def _put_entries(self, mesh: str, generation: int, node: str, *entry: Mapping[str, Any]) -> None:
        """Of *node*'s entries for *mesh*, those before *generation* stay, and *entry* is added."""
        record = self._fetch(_NODES, node) or {"meshes": {}}
        kept = [old for old in record["meshes"].get(mesh, []) if old["generation"] < generation]
        record["meshes"][mesh] = [*kept[-(KEPT_GENERATIONS - 1) :], *entry]
        self._store(_NODES, node, record)

    # -- acknowledgements -------------------------------------------------------------------------------

    def acknowledged(self, node: str) -> dict[str, Any]:
        """Mesh → digest that *node* said it has applied; and ``silent``: pushes it left unanswered."""
        return self._fetch(_ACKNOWLEDGED, node)

    def acknowledge(self, node: str, record: Mapping[str, Any]) -> None:
        """Keep what *node* answered."""
        self._store(_ACKNOWLEDGED, node, dict(record))

    # -- health -----------------------------------------------------------------------------------------

    def health(self, mesh: str) -> Health:
        """What was last believed of the mesh's links; that of a mesh without trouble if nothing was."""
        return health_module.from_dict(self._fetch(_HEALTH, mesh))

    def keep_health(self, mesh: str, health: Health) -> None:
        """Believe *health* from now on."""
        if health != self.health(mesh):
            self._store(_HEALTH, mesh, health_module.as_dict(health))

    # -- the operator's word ----------------------------------------------------------------------------

    def guard(self, mesh: str) -> dict[str, Any]:
        """What ``master.guard`` keeps of *mesh*; empty if nothing."""
        return self._fetch(_GUARD, mesh)

    def keep_guard(self, mesh: str, raw: Mapping[str, Any]) -> None:
        """Keep exactly *raw*."""
        self._put(_GUARD, mesh, raw)

    def pin(self, mesh: str) -> dict[str, Any]:
        """What ``master.pinned`` keeps of *mesh*; empty if it was never rolled back."""
        return self._fetch(_PINS, mesh)

    def keep_pin(self, mesh: str, raw: Mapping[str, Any]) -> None:
        """Keep exactly *raw*."""
        self._put(_PINS, mesh, raw)

    def _put(self, bank: str, key: str, raw: Mapping[str, Any]) -> None:
        if not any(raw.values()):
            self._cache.flush(bank, key)
        elif {**raw, "schema": SCHEMA} != self._fetch(bank, key):
            self._store(bank, key, dict(raw))

    # -- runs -------------------------------------------------------------------------------------------

    def settled(self) -> str:
        """The basis of the last run of the planner, if that left nothing to do; else empty."""
        return str(self._fetch(_RUNS, "last").get("basis", ""))

    def settle(self, basis: str) -> None:
        """The planner ran; from *basis* it made what all nodes run already, or, if that is empty, something is left."""
        self._store(_RUNS, "last", {"basis": basis})

    # -- storage ----------------------------------------------------------------------------------------

    def _fetch(self, bank: str, key: str) -> dict[str, Any]:
        raw = self._cache.fetch(bank, key) or {}
        if raw and raw.get("schema") != SCHEMA:
            raise LedgerError(
                f"the ledger's {bank} {key} is of schema {raw.get('schema')!r}, this version writes {SCHEMA}: "
                "upgrade the master, or remove the bank to plan afresh (addresses are then assigned anew)"
            )
        return dict(raw)

    def _store(self, bank: str, key: str, value: dict[str, Any]) -> None:
        self._cache.store(bank, key, {**value, "schema": SCHEMA})


def register_as_dict(register: Register) -> dict[str, Any]:
    """The register as plain values."""
    return {
        "addresses": {node: list(value) for node, value in register.addresses.items()},
        "numbers": dict(register.numbers),
        "homes": {node: list(value) for node, value in register.homes.items()},
    }


def register_from_dict(raw: Mapping[str, Any]) -> Register:
    """The inverse of ``register_as_dict``."""
    return Register(
        addresses={node: tuple(value) for node, value in raw["addresses"].items()},
        numbers=dict(raw["numbers"]),
        homes={node: tuple(value) for node, value in raw["homes"].items()},
    )


def _facts_from_dict(node: str, raw: Mapping[str, Any]) -> Facts:
    return Facts(
        node=node,
        public_key=raw["public_key"],
        salt_key=raw["salt_key"],
        underlay=tuple(raw["underlay"]),
        networks=tuple(raw["networks"]),
        ipv6=raw["ipv6"],
        next_key=raw.get("next_key"),
    )
