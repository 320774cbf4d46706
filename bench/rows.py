"""The results of a measurement: rows in bench/results/<name>.json, and a table and a plot of them."""

from __future__ import annotations

import json
import operator
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
_COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure. ``goal`` is like ``<= 1.3``, or empty if the figure is only for comparison."""

    metric: str
    value: float
    unit: str
    goal: str = ""
    runs: int = 1

    @property
    def holds(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return _COMPARE[sign](self.value, float(bound))


def write(name: str, measures: Sequence[Measure], *, partial: bool = False) -> Path:
    """Write these figures, the commit and the machine to bench/results/<name>.json.

    If they are only a part of the benchmark, the other figures in the file stay."""
    common = {"commit": _commit(), "machine": _machine()}
    rows = [{**asdict(m), "value": float(f"{m.value:.6g}"), "holds": m.holds, **common} for m in measures]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    if partial and path.exists():
        new = {row["metric"] for row in rows}
        rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if row["metric"] not in new] + rows
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return path


def table(measures: Sequence[Measure]) -> str:
    """Return the figures as a table for a terminal."""
    verdict = {True: "holds", False: "MISSED", None: ""}
    lines = [
        (m.metric, f"{m.value:,.4g} {m.unit}", m.goal, verdict[m.holds], f"{m.runs} runs" if m.runs > 1 else "")
        for m in measures
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _commit() -> str:
    """Return the commit that was measured, with ``-dirty`` if the tree differs from it in more than earlier results."""
    head = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain", "--", ":!bench/results") else head


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()


def _machine() -> str:
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
