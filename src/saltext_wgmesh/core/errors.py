"""The few errors of the package, named for what the caller can do about them.

Each message says what is wrong, where, and what to do. Shells turn them into Salt's own exception once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One thing that is wrong, in words for the person who can mend it."""

    where: str
    """A path in the policy (``wgmesh:wg0:nodes:db1:address``) or ``node db1``."""
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.do}"


class WgmeshError(Exception):
    """Base of all; never raised itself."""


class ProblemsError(WgmeshError):
    """Several problems found in one pass, all of them listed, in order of place."""

    title = "problems"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        count = len(self.problems)
        lines = [f"{self.title} ({count}), nothing was changed:", *(f"  - {p}" for p in self.problems)]
        super().__init__("\n".join(lines))


class PolicyError(ProblemsError):
    """The policy can't be used: mend the pillar."""

    title = "the policy has errors"


class PlanError(ProblemsError):
    """Policy and facts are well-formed but allow no mesh: mend the policy or the nodes named."""

    title = "no plan can be made"


class ViewError(WgmeshError):
    """What the pillar holds for this node is not a view of this version: update master and minion alike."""


class ProofError(ProblemsError):
    """A plan would cut off or loop a required pair. It was not published; the last one stays."""

    title = "the plan fails its proof"


class HostError(WgmeshError):
    """A command on this node failed; the message carries the command (never a secret) and what it said."""


class TakenBack(WgmeshError):
    """A view broke the node, by the node's own check, and the node holds the one before again: mend the policy."""

    def __init__(self, why: str, digest: str | None) -> None:
        super().__init__(f"taken back: {why}")
        self.digest = digest
        """Of the view that holds; None: there was none before."""


class LedgerError(WgmeshError):
    """The master's record holds no such generation or is of another schema."""


class FleetError(WgmeshError):
    """Nodes can't be spoken to, whatever they are: mend the master."""
