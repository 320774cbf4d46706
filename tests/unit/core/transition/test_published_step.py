"""The published plan as the start of the next step."""

from __future__ import annotations

from dataclasses import replace

from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.transition.evidence import Evidence
from tests.unit.harness import worlds
from tests.unit.harness.mixtures import everywhere


def test_dead_links_are_down_and_carry_nothing() -> None:
    """A link in hold-down that carries is not dead."""
    world = worlds.mesh(worlds.relay("r", "203.0.113.1"), worlds.leaf("a"))
    plan = planner.plan_mesh(world, worlds.all_facts("r", "a"), Allocations())
    published = replace(everywhere(plan), health=Health(down_links=frozenset({("a", "r")})))
    silent = Evidence(has_applied=lambda _: True, link_up=lambda _: False, link_carries=lambda _: False)
    assert replace(published, evidence=silent).dead_links() == {("a", "r")}
    assert published.dead_links() == frozenset()
