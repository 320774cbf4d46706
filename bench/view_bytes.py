"""Size of a leaf's view, which must not grow with the mesh."""

from __future__ import annotations

import json
import statistics

from bench import fleet
from bench.rows import Measure
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.planning import planner


def run() -> list[Measure]:
    """Return the median bytes of a leaf's view, at 100 and at 10,000 nodes."""
    small, large = leaf_bytes(100), leaf_bytes(10_000)
    return [
        Measure(metric="leaf's view, 100 nodes", value=small, unit="bytes"),
        Measure(metric="leaf's view, 10000 nodes", value=large, unit="bytes"),
        Measure(metric="leaf's view, 10000 / 100 nodes", value=large / small, unit="x", goal="<= 1.1"),
    ]


def leaf_bytes(nodes: int) -> float:
    """Return the median size of a leaf's view as JSON."""
    plan = planner.plan_mesh(*fleet.partial(nodes), Allocations())
    sizes = [len(json.dumps(view.as_dict())) for node, view in plan.views.items() if not plan.members[node].is_relay]
    return statistics.median(sizes)
