"""The values that the steps of a run hand each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saltext_wgmesh.core.keys import psk_rollover
from saltext_wgmesh.master.drafting.draft import Draft
from saltext_wgmesh.master.drafting.next_step import ReportsByNode
from saltext_wgmesh.master.drafting.policy_pin import Blame
from saltext_wgmesh.master.fleet.push import PushResult
from saltext_wgmesh.master.records.inventory import Inventory
from saltext_wgmesh.master.records.mesh_head import MeshHead
from saltext_wgmesh.master.records.mesh_records import LedgerSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """All that is known before anything is planned."""

    pillar_policy: Any
    """The raw policy of the pillar."""
    inventory: Inventory
    """With the effective policy, which is another one for a mesh that is rolled back."""
    snapshot: LedgerSnapshot
    """The ledger's records, with the health, acknowledgements and pins of now."""
    reports: ReportsByNode
    """The link reports of this run."""
    blames: Mapping[str, Blame]
    """The meshes that this run rolls back → why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One draft as it stands in the ledger."""

    draft: Draft
    head: MeshHead
    was_published: bool
    """Whether there is a new generation: some assignment changed."""
    newly_held: bool
    notified: tuple[str, ...]
    """Nodes that are to be told now to make another key."""

    @property
    def mesh(self) -> str:
        """The name of the mesh."""
        return self.draft.policy.name


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """All that a run did and found."""

    before: LedgerSnapshot
    """The ledger's records when the run began."""
    found: Assessment
    published: Sequence[Publication]
    """In order of the meshes' names."""
    pushed: PushResult
    enrolling: Mapping[str, tuple[str, ...]]
    """Mesh → nodes with a place in it that were told to apply the formula."""
    now: float
    """When the push had ended, in seconds since the epoch."""

    @property
    def heads(self) -> dict[str, MeshHead]:
        """Mesh → its head after the push: nodes that applied their views have the last PSKs."""
        return {one.mesh: self._head(one) for one in self.published}

    def behind(self, one: Publication) -> tuple[str, ...]:
        """The nodes that do not run what is published in that mesh, sorted."""
        acks, digests = self.pushed.acks, one.head.digests
        return tuple(sorted(n for n, digest in digests.items() if acks[n].digests.get(one.mesh) != digest))

    def _head(self, one: Publication) -> MeshHead:
        applied = one.head.digests.keys() - set(self.behind(one))
        return replace(one.head, psk_rollover=psk_rollover.record_acks(one.head.psk_rollover, applied))
