"""Time and memory to plan and prove 100, 1,000 and 10,000 nodes, compared with json.dumps of the same views."""

from __future__ import annotations

import gc
import itertools
import json
import multiprocessing
import time
import tracemalloc
from collections.abc import Callable
from statistics import median
from typing import Any

from bench import fleet
from bench.rows import Measure
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof import prove

SIZES = (100, 1_000, 10_000)
RUNS = 7


def run() -> list[Measure]:
    """Measure each size in a process of its own, so that the peak of memory belongs to that size."""
    found = {}
    for size in SIZES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[size] = pool.apply(measure, (size,))
    rows = []
    for size, figures in found.items():
        goal = "<= 3" if size == max(SIZES) else ""
        rows += [
            Measure(metric=f"views as JSON, {size} nodes", value=figures["bytes"], unit="bytes"),
            Measure(metric=f"json.dumps of the views, {size} nodes", value=figures["dumps"], unit="s", runs=RUNS),
            Measure(metric=f"plan, {size} nodes", value=figures["plan"], unit="s", runs=RUNS),
            Measure(metric=f"re-plan with register, {size} nodes", value=figures["replan"], unit="s", runs=RUNS),
            Measure(metric=f"proof, {size} nodes", value=figures["proof"], unit="s", runs=RUNS),
            Measure(
                metric=f"plan / dumps, {size} nodes",
                value=figures["plan_ratio"],
                unit="x",
                goal=goal,
                runs=RUNS,
            ),
            Measure(
                metric=f"proof / dumps, {size} nodes",
                value=figures["proof_ratio"],
                unit="x",
                goal=goal,
                runs=RUNS,
            ),
            Measure(metric=f"memory of plan and proof, {size} nodes", value=figures["memory"], unit="MiB"),
        ]
    for small, large in itertools.pairwise(SIZES):
        for what in ("plan", "proof", "memory"):
            growth = found[large][what] / found[small][what]
            rows.append(Measure(metric=f"growth of {what}, {small} to {large} nodes", value=growth, unit="x"))
    return rows


def measure(size: int) -> dict[str, float]:
    """Return the figures of one size: medians of several runs in seconds, and the peak of memory in MiB."""
    mesh, facts = fleet.partial(size)
    tracemalloc.start()
    plan = planner.plan_mesh(mesh, facts, Allocations())
    problems = prove.prove(plan)
    memory = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert not problems, problems[:3]
    views = [view.as_dict() for view in plan.views.values()]
    text = json.dumps(views)
    works = {
        "dumps": lambda: json.dumps(views),
        "plan": lambda: planner.plan_mesh(mesh, facts, Allocations()),
        "replan": lambda: planner.plan_mesh(mesh, facts, plan.allocations),
        "proof": lambda: prove.prove(plan),
    }
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(RUNS)]
    found = {name: median(r[name] for r in rounds) for name in works}
    ratios = {f"{name}_ratio": median(r[name] / r["dumps"] for r in rounds) for name in ("plan", "proof")}
    return {"bytes": len(text), "memory": memory, **found, **ratios}


def seconds(work: Callable[[], Any]) -> float:
    """Return the seconds of one run. Garbage of the run before is collected first."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
