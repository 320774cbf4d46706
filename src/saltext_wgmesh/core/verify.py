"""The proof of a plan: finished views in, what is wrong out. It shares no code with what made them.

``structure`` looks at each member and link, ``nexthops`` at each Route, ``reachability`` walks packets. Together they
hold for every ordered pair of members and every subnet, with nothing down and with each one relay or link down; loops
are excluded however much is down.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from saltext_wgmesh.core import nexthops, reachability, structure
from saltext_wgmesh.core.errors import Problem
from saltext_wgmesh.core.findings import Findings
from saltext_wgmesh.core.graph import Graph
from saltext_wgmesh.core.index import Index
from saltext_wgmesh.core.outage import cut_off, outage, shared_address
from saltext_wgmesh.core.types import Plan
from saltext_wgmesh.core.walker import Outcome, Walk, Walker, walk, walk_with

__all__ = ["Outcome", "Walk", "check", "cut_off", "outage", "paths", "walk"]


def check(plan: Plan) -> tuple[Problem, ...]:
    """All that is wrong with *plan*, sorted; empty: it is proven.

    Of each kind of problem, some examples and how many there are.
    """
    with _no_collection():
        found, index = Findings(), Index(plan)
        graph = Graph(index)
        structure.check(index, found)
        nexthops.check(index, graph, found)
        reachability.check(index, graph, found)
        return found.problems()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's cycle collector rests. The proof makes no cycles, and each collection amid it would go over the
    whole plan for nothing: a quarter of the time at 10,000 nodes."""
    resting = not gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not resting:
            gc.enable()


def paths(plan: Plan) -> dict[str, dict[str, tuple[str, ...]]]:
    """Source → destination → the nodes on the way, both ends included; for meshes of which a person looks at all pairs.

    Each pair in the first family that both have. A pair without one, or whose packets don't arrive, is left out.
    """
    walker = Walker(plan)
    return {source: dict(_row(plan, walker, source)) for source in plan.members}


def _row(plan: Plan, walker: Walker, source: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for destination in plan.members:
        shared = shared_address(plan, source, destination)
        if destination != source and shared is not None:
            way = walk_with(walker, source, shared, ())
            if way.delivered:
                yield destination, way.hops
