"""The errors of the package, one class for each thing that a caller can do about it.

Each message says what is wrong, where, and what to do. Salt modules turn them into Salt's own exception in one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One problem, in words for the operator who can solve it."""

    path: str
    """The object: a path in the policy (``wgmesh:wg0:nodes:db1:address``) or ``node db1``."""
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}; {self.remedy}"


class WgmeshError(Exception):
    """Base class of all errors; it is never raised itself."""


class ProblemsError(WgmeshError):
    """All problems that one pass found, sorted by path."""

    title = "problems"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        count = len(self.problems)
        lines = [f"{self.title} ({count}), nothing was changed:", *(f"  - {p}" for p in self.problems)]
        super().__init__("\n".join(lines))


class PolicyError(ProblemsError):
    """The policy can't be used: correct the pillar."""

    title = "the policy has errors"


class NoPolicyError(PolicyError):
    """There is no policy yet: write one."""

    title = "there is no policy"


class PlanError(ProblemsError):
    """Policy and facts are well-formed but allow no mesh: correct the policy or the nodes that the problems name."""

    title = "no plan can be made"


class ViewError(WgmeshError):
    """The pillar of this node holds no view of this version: install the same version on master and minions."""


class ProofError(ProblemsError):
    """A plan fails its proof, for instance since a required pair can't reach each other.

    The plan is not published, and the last published plan stays in force.
    """

    title = "the plan fails its proof"


class HostError(WgmeshError):
    """A command on this node failed; the message has the command and its output, and never a secret."""


class RolledBack(WgmeshError):
    """A view failed the node's health check, and the node restored the view before it: correct the policy."""

    def __init__(self, why: str, digest: str | None) -> None:
        super().__init__(f"rolled back: {why}")
        self.digest = digest
        """Digest of the restored view; None: the node had no view before."""


class LedgerError(WgmeshError):
    """The ledger has no such generation or has another schema."""


class FleetError(WgmeshError):
    """The master can't reach any node: correct the master."""


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Within the block, an error of the operating system names *path*, unless it names a path itself.

    A write to a full disk fails without any name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
