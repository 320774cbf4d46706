"""The reports of a run, for the runner's return, the event and the run queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.master.records.decisions import HeldLoss, PolicyPin

_ALWAYS = ("mesh", "generation", "published")
"""Fields that ``MeshReport.as_dict`` has even if they are empty."""


def _none() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshReport:
    """The changes that a run made to one mesh, and what is left to do."""

    mesh: str
    generation: int
    published: bool = False
    """Whether this run published that generation."""
    changed: tuple[str, ...] = ()
    """Nodes whose assignments are new in it."""
    applied: tuple[str, ...] = ()
    """Nodes that were pushed to and applied it, in the order of the push."""
    failed: Mapping[str, str] = field(default_factory=_none)
    """Nodes that were pushed to and answered with an error → that."""
    silent: tuple[str, ...] = ()
    """Nodes that were pushed to and did not answer, in the order of the push."""
    not_acknowledged: tuple[str, ...] = ()
    """Nodes that do not run what is published, whether this run pushed to them or not."""
    unplaced: Mapping[str, str] = field(default_factory=_none)
    """Nodes with facts that are not in the plan → why."""
    rejected: tuple[str, ...] = ()
    """Facts that are not trusted, and why, as text."""
    down: tuple[str, ...] = ()
    """Nodes that are down, and links (``a--b``) that are down between nodes that are not."""
    needs_attention: tuple[str, ...] = ()
    """Nodes with an accepted key whose facts were rejected."""
    enrolling: tuple[str, ...] = ()
    """Nodes with a place in this mesh that were told to apply the formula."""
    held_loss: HeldLoss | None = None
    """The loss that is not planned for, because it is too large."""
    newly_held: bool = False
    """Whether the run before did not hold exactly that."""
    psk_laggards: tuple[str, ...] = ()
    """Nodes that have not taken up the last PSKs. Their neighbours keep the PSKs before with them."""
    psk_unacknowledged: tuple[str, ...] = ()
    """Nodes among these that were pushed the last PSKs and have not acknowledged them.

    The next runs follow at once: either the nodes answer, or their neighbours go back.
    """
    newly_unresponsive: tuple[str, ...] = ()
    """Nodes that did not answer for the first time when they were asked for their links: they are asked once more."""
    newly_unanswered: tuple[str, ...] = ()
    """Nodes that left a push unanswered for the first time, and are not known to be down: they are asked once more."""
    push_blocked_by: str = ""
    """Why nodes that have another view to apply were not told of it; empty if all were."""
    transition_waits_for: tuple[str, ...] = ()
    """The obstacles to the next step of a transition, as ``Transition.describe`` gives them."""
    policy_pin: PolicyPin | None = None
    """The pin by which the mesh is planned; None if it has none."""
    rotating: Mapping[str, str] = field(default_factory=_none)
    """Nodes that are about to get another key → what they wait for."""
    warnings: tuple[str, ...] = ()
    has_follow_up: bool = False
    """Whether the next step, of a transition or of a rotation, can be taken in seconds."""

    @property
    def made_changes(self) -> bool:
        """Whether there is anything to announce."""
        return bool(self.published or self.applied or self.failed or self.enrolling or self.newly_held)

    @property
    def is_clean(self) -> bool:
        """Whether no operator is needed: all that is published runs, no loss is held, no facts were rejected."""
        return not (self.failed or self.not_acknowledged or self.needs_attention or self.held_loss)

    @property
    def leaves_nothing_to_do(self) -> bool:
        """Whether the next run would find the same, if nothing changes until then."""
        unfinished = self.made_changes or self.transition_waits_for or self.rotating or self.psk_laggards
        return self.is_clean and not unfinished

    def merged_with(self, earlier: MeshReport) -> MeshReport:
        """This report, with what the *earlier* round of the same run did besides."""
        behind = set(self.not_acknowledged)
        still_silent = {node for node in earlier.silent if node in behind and node not in self.failed}
        still_failed = {node: error for node, error in earlier.failed.items() if node in behind}
        return replace(
            self,
            published=self.published or earlier.published,
            changed=_union(earlier.changed, self.changed),
            applied=_union(earlier.applied, self.applied),
            enrolling=_union(earlier.enrolling, self.enrolling),
            newly_held=self.newly_held or earlier.newly_held,
            # The mine of a node whose key is gone is deleted, so that a later round no longer rejects it.
            rejected=tuple(dict.fromkeys((*earlier.rejected, *self.rejected))),
            silent=_union(self.silent, still_silent),
            failed={**still_failed, **self.failed},
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values by the names of the fields; what is empty is left out."""
        values = {name: getattr(self, name) for name in (f.name for f in fields(self)) if name != "newly_held"}
        return {name: _plain(value) for name, value in values.items() if value or name in _ALWAYS}


def merge_rounds(rounds: Iterable[list[MeshReport]]) -> dict[str, MeshReport]:
    """Mesh → the report of the last round, with what the rounds before it did."""
    found: dict[str, MeshReport] = {}
    for reports in rounds:
        for report in reports:
            earlier = found.get(report.mesh)
            found[report.mesh] = report.merged_with(earlier) if earlier else report
    return found


def _union(*some: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({node for nodes in some for node in nodes}))


def _plain(value: Any) -> Any:
    if isinstance(value, (HeldLoss, PolicyPin)):
        return value.as_dict()
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
