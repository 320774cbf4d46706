"""One round of a converge: what was asked of it, and what it did to each mesh."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the callers of one round want looked at. None of it is believed."""

    hints: frozenset[str] = frozenset()
    """Nodes that may know of a link that is down, or up again."""
    suspects: frozenset[str] = frozenset()
    """Nodes that those links may lead to."""
    started: frozenset[str] = frozenset()
    """Nodes whose minion may have started just now."""
    drifted: frozenset[str] = frozenset()
    """Nodes that may no longer hold what they applied."""
    again: frozenset[str] = frozenset()
    """Nodes to be pushed to even if they left earlier pushes unanswered."""
    step: frozenset[str] = frozenset()
    """Not empty: a rollout is under way, and may go its next step."""
    drain: frozenset[str] = frozenset()
    """Nodes that nobody is to depend on from now on."""
    undrain: frozenset[str] = frozenset()
    """Nodes that may be depended on again."""
    confirm: frozenset[str] = frozenset()
    """Digests of what is held and may go, by the operator's word."""
    rebalance: frozenset[str] = frozenset()
    """Not empty: what rests may be used as before."""
    rotate: frozenset[str] = frozenset()
    """Minion ids and globs: such members are to get another key."""
    renew: frozenset[str] = frozenset()
    """Meshes, not nodes: their preshared keys are to be made from another secret."""

    @property
    def insists(self) -> bool:
        """Whether there is something to do even if nothing changed."""
        words = (self.started, self.drifted, self.again, self.step, self.drain, self.undrain, self.confirm)
        return any((*words, self.rebalance, self.rotate, self.renew))

    @classmethod
    def of(cls, words: Iterable[tuple[str, ...]]) -> Asked:
        """From the gate's words: pairs of one of the fields' names and a minion id, mesh or digest, or empty."""
        found: dict[str, set[str]] = {}
        for kind, node in filter(None, words):
            found.setdefault(kind, set()).add(node)
        return cls(**{kind: frozenset(nodes) for kind, nodes in found.items()})


NOTHING = Asked()


@dataclass(slots=True, kw_only=True)
class Report:
    """What a converge did to one mesh; ``as_dict`` is what the runner returns and the event carries."""

    mesh: str
    generation: int
    published: bool = False
    changed: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    not_acknowledged: list[str] = field(default_factory=list)
    """Who does not run what is published, whether it was asked in this run or not."""
    left_out: dict[str, str] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    down: list[str] = field(default_factory=list)
    """Nodes that count as down, and links (``a--b``) between nodes that don't."""
    to_mend: list[str] = field(default_factory=list)
    """Of the nodes whose facts were rejected, those that still have an accepted key."""
    enrolling: list[str] = field(default_factory=list)
    """Nodes with a place in this mesh that were told to apply the formula."""
    held: dict[str, Any] = field(default_factory=dict)
    """What is not planned for, because it would drop too much: ``digest``, ``nodes``, ``links``, ``why``, ``do``."""
    newly_held: bool = False
    """Whether the run before did not hold exactly that."""
    other_preshared_key: list[str] = field(default_factory=list)
    """Nodes that have not taken up the last preshared keys: with them their neighbours stay at those before, too."""
    told_in_vain: list[str] = field(default_factory=list)
    """Those of them that did not answer or failed just now: the runs that follow at once have them answer after all, or
    have all go back with them."""
    unheard: list[str] = field(default_factory=list)
    """Nodes that were asked how their links are and for the first time did not answer: they are asked once more."""

    stopped: str = ""
    """Why nodes that have another view to take up were not told of it."""
    waiting: list[str] = field(default_factory=list)
    """What the next step of a rollout waits for: links (``a--b``) that are kept until others carry, and nodes
    that are heard where they were until others have moved."""
    rotating: dict[str, str] = field(default_factory=dict)
    """Nodes that are about to get another key → what they wait for."""
    warnings: list[str] = field(default_factory=list)
    goes_on: bool = False
    """Whether the next step, of a rollout or of a rotation, can be taken in seconds."""

    @property
    def eventful(self) -> bool:
        """Whether there is anything to tell: a run that found nothing to do is silent."""
        return bool(self.published or self.applied or self.failed or self.enrolling or self.newly_held)

    @property
    def clean(self) -> bool:
        """Whether nobody needs to look at it: all that was published runs, nothing is held, no facts were bad."""
        return not (self.failed or self.not_acknowledged or self.to_mend or self.held)

    def following(self, earlier: Report) -> Report:
        """This report, with what *earlier*, of the round before in the same run, did besides."""
        self.published = self.published or earlier.published
        self.changed = sorted({*earlier.changed, *self.changed})
        self.applied = sorted({*earlier.applied, *self.applied})
        self.enrolling = sorted({*earlier.enrolling, *self.enrolling})
        self.newly_held = self.newly_held or earlier.newly_held
        behind = set(self.not_acknowledged)
        self.silent = sorted({*self.silent, *(n for n in earlier.silent if n in behind and n not in self.failed)})
        self.failed = {**{n: e for n, e in earlier.failed.items() if n in behind}, **self.failed}
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain values; what is empty is left out."""
        pairs = {n: getattr(self, n) for n in self.__dataclass_fields__ if n != "newly_held"}
        return {name: value for name, value in pairs.items() if value or name in ("generation", "published")}


def together(rounds: Iterable[list[Report]]) -> dict[str, Report]:
    """Mesh → the report of the last round, with what the rounds before it did."""
    found: dict[str, Report] = {}
    for reports in rounds:
        for report in reports:
            earlier = found.get(report.mesh)
            found[report.mesh] = report.following(earlier) if earlier else report
    return found
