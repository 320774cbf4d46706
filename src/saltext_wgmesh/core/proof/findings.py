"""The findings of the proof: every problem is counted, and a few examples of each kind are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from saltext_wgmesh.core.errors import Problem

MAX_EXAMPLES = 5
"""Examples of each kind that are reported. A plan of ten thousand nodes may repeat one mistake ten thousand times."""
DEFAULT_REMEDY = "the last plan stays in force; report this as a defect of the planner"


@dataclass(slots=True)
class Findings:
    """Problems collected by the checks, which run in a fixed order, so that the examples are always the same."""

    _examples: dict[str, list[Problem]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, path: str, message: str, remedy: str = DEFAULT_REMEDY) -> None:
        """Add one problem; *kind* names the problems of its sort, in the plural."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(Problem(path=path, message=message, remedy=remedy))

    def add_duplicates(self, path: str, noun: str, values: Sequence[str]) -> None:
        """Add a problem for each of *values*, things of the sort *noun*, that occurs more than once."""
        if len(values) > len(set(values)):
            for value in sorted(v for v, n in Counter(values).items() if n > 1):
                self.add("duplicates", path, f"it has the {noun} {value} twice")

    def problems(self) -> tuple[Problem, ...]:
        """Return the examples, sorted, with one more problem for each kind that has more of them than are shown."""
        listed_problems = {problem for examples in self._examples.values() for problem in examples}
        for kind, count in self._counts.items():
            if count > MAX_EXAMPLES:
                message = f"{kind}: {count} in all, {MAX_EXAMPLES} shown"
                listed_problems.add(Problem(path="plan", message=message, remedy=DEFAULT_REMEDY))
        return tuple(sorted(listed_problems))

    @property
    def total(self) -> int:
        """The number of problems added so far."""
        return sum(self._counts.values())


def listed(words: Iterable[str], most: int = 4) -> str:
    """Return *words* in order, separated by commas: at most *most* of them, and the number of the others."""
    words = sorted(words)
    return (", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")) or "none"
