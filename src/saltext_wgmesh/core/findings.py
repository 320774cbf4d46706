"""What a proof found wrong: all of it counted, a few examples of each kind told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from saltext_wgmesh.core.errors import Problem

EXAMPLES = 5
"""Told of each kind. A plan of ten thousand nodes with one mistake may have it ten thousand times."""
FAULT = "the last plan stays in force; report this as a defect of the planner"


@dataclass(slots=True)
class Findings:
    """A collection that is filled in a fixed order, so that its examples are always the same."""

    _examples: dict[str, list[Problem]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, where: str, what: str, do: str = FAULT) -> None:
        """Note one problem; *kind* is what problems of its sort have in common, in the plural."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(Problem(where=where, what=what, do=do))

    def add_twice(self, where: str, what: str, values: Sequence[str]) -> None:
        """Note which of *values* are there more than once."""
        if len(values) > len(set(values)):
            for value in sorted(v for v, n in Counter(values).items() if n > 1):
                self.add("things there twice", where, f"it has the {what} {value} twice")

    def problems(self) -> tuple[Problem, ...]:
        """The examples, and one more problem for each kind of which there are more, sorted."""
        found = {problem for examples in self._examples.values() for problem in examples}
        for kind, count in self._counts.items():
            if count > EXAMPLES:
                found.add(Problem(where="plan", what=f"{kind}: {count} in all, {EXAMPLES} shown", do=FAULT))
        return tuple(sorted(found))

    @property
    def total(self) -> int:
        """How many were noted so far."""
        return sum(self._counts.values())


def listed(words: Iterable[str], most: int = 4) -> str:
    """The words in order, separated by commas, or the first of them and how many there are more."""
    words = sorted(words)
    return (", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")) or "none"
