"""Where a mesh stands, as the ledger keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.inputs import facts_format
from saltext_wgmesh.core.keys import psk_rollover as secrecy_module
from saltext_wgmesh.core.keys import rotation as rotation_module
from saltext_wgmesh.core.keys.psk_rollover import PskRollover
from saltext_wgmesh.core.keys.rotation import Rotation
from saltext_wgmesh.core.model.addresses import read_addresses
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.transition import state
from saltext_wgmesh.core.transition.state import Transition
from saltext_wgmesh.master.records.assignment import AssignmentKind


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshHead:
    """Where a mesh stands: what is published, and what must outlive it."""

    generation: int = 0
    """0: never published."""
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Node → digest of its published assignment."""
    without_view: Mapping[str, AssignmentKind] = field(default_factory=lambda: MappingProxyType({}))
    """Node among these that has no view → its kind of assignment."""
    allocations: Allocations = field(default_factory=Allocations)
    facts: Mapping[str, Facts] = field(default_factory=lambda: MappingProxyType({}))
    """Node → its last trusted facts."""
    published_at: float = 0.0
    """Seconds since the epoch."""
    drained: frozenset[str] = frozenset()
    """Nodes that no other node is to depend on, by the operator's command."""
    transition: Transition = state.NO_TRANSITION
    """All that the published plan has only because the plan before had it."""
    rotation: Rotation = rotation_module.NO_ROTATION
    psk_rollover: PskRollover = field(default_factory=PskRollover)
    """Which of the mesh's secrets the PSKs are made from. The secrets themselves are in no ledger."""

    @property
    def placed(self) -> frozenset[str]:
        """The nodes that have a view."""
        return frozenset(self.digests.keys() - self.without_view.keys())

    def is_member_or_leaving(self, node: str) -> bool:
        """Whether *node* is published as a member, or was one and is told to leave."""
        kind = self.without_view.get(node, AssignmentKind.VIEW)
        return node in self.digests and kind in (AssignmentKind.VIEW, AssignmentKind.LEAVE)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger; ``from_dict`` is the inverse."""
        return {
            "generation": self.generation,
            "digests": dict(self.digests),
            "without_view": {node: kind.value for node, kind in self.without_view.items()},
            "allocations": allocations_as_dict(self.allocations),
            "facts": {node: facts_format.facts_as_dict(value) for node, value in self.facts.items()},
            "published_at": self.published_at,
            "drained": sorted(self.drained),
            "transition": state.transition_as_dict(self.transition),
            "rotation": rotation_module.rotation_as_dict(self.rotation),
            "psk_rollover": secrecy_module.rollover_as_dict(self.psk_rollover),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> MeshHead:
        """The head that ``as_dict`` wrote; an empty mapping gives that of a mesh which was never published."""
        if not raw:
            return cls()
        return cls(
            generation=raw["generation"],
            digests=raw["digests"],
            without_view={node: AssignmentKind(kind) for node, kind in raw["without_view"].items()},
            allocations=allocations_from_dict(raw["allocations"]),
            facts={node: facts_from_ledger(node, value) for node, value in raw["facts"].items()},
            published_at=raw["published_at"],
            drained=frozenset(raw["drained"]),
            transition=state.transition_from_dict(raw["transition"]),
            rotation=rotation_module.rotation_from_dict(raw["rotation"]),
            psk_rollover=secrecy_module.rollover_from_dict(raw["psk_rollover"]),
        )


def allocations_as_dict(allocations: Allocations) -> dict[str, Any]:
    """Plain values for the ledger; ``allocations_from_dict`` is the inverse."""
    return {
        "addresses": {node: list(value) for node, value in allocations.addresses.items()},
        "relay_numbers": dict(allocations.relay_numbers),
        "relays": {node: list(value) for node, value in allocations.relays.items()},
    }


def allocations_from_dict(raw: Mapping[str, Any]) -> Allocations:
    """The allocations that ``allocations_as_dict`` wrote."""
    return Allocations(
        addresses={node: read_addresses(value) for node, value in raw["addresses"].items()},
        relay_numbers=dict(raw["relay_numbers"]),
        relays={node: tuple(value) for node, value in raw["relays"].items()},
    )


def facts_from_ledger(node: str, raw: Mapping[str, Any]) -> Facts:
    """The facts of *node* that ``facts_format.facts_as_dict`` wrote.

    They were validated before they were written. Validating them at each run again takes seconds on a large fleet.
    """
    return Facts(
        node=node,
        public_key=raw["public_key"],
        salt_key=raw["salt_key"],
        underlay=tuple(raw["underlay"]),
        networks=tuple(raw["networks"]),
        # Nodes of former versions do not publish them.
        lans=tuple(raw["lans"]) if raw.get("lans") is not None else None,
        ipv6=raw["ipv6"],
        next_key=raw.get("next_key"),
    )
