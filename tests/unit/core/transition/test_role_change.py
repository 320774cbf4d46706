"""Nodes that become a leaf or a relay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.plan import AccessSocket, Allocations
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.transition import role_change
from saltext_wgmesh.core.transition.evidence import Evidence
from saltext_wgmesh.core.transition.published_step import PublishedStep
from saltext_wgmesh.core.transition.state import RoleChange, Transition
from tests.unit.harness import worlds

NO_TROUBLE = Health()


SOCKET = AccessSocket(listen_port=51820, endpoint=None, interface="wg0")


def dead(node: str) -> Health:
    return Health(down_nodes=frozenset({node}))


@pytest.mark.parametrize(
    ("now", "gone", "expected"),
    [
        # The relay that was left is used again as it is, and so are the other relays of the goal.
        (
            RoleChange(socket=SOCKET, relays=("r2",), unrouted_relays=("r3",), trunk_linked_relays=("r2", "r3")),
            "r2",
            ("r3", "r4"),
        ),
        (RoleChange(socket=SOCKET, relays=("r2", "r3"), trunk_linked_relays=("r2",)), "r2", ("r3", "r4")),
        # Without two relays there is no second path: the node is a leaf at once.
        (
            RoleChange(socket=SOCKET, relays=("r2",), unrouted_relays=("r3",), trunk_linked_relays=("r2", "r3")),
            "r4",
            None,
        ),
    ],
)
def test_role_change_that_loses_relay_uses_others(now, gone, expected) -> None:
    """Even if some nodes did not apply the last step."""
    rules = [worlds.relay(f"r{n}", f"203.0.113.{n}") for n in range(2, 5)]
    names = ("r2", "r3", "r4", "a")
    made = planner.plan_mesh(worlds.mesh(*rules, worlds.leaf("a")), worlds.all_facts(*names), Allocations())
    relays = ("r3", "r4") if expected else ("r3",)
    goal = replace(made, members={**made.members, "a": replace(made.members["a"], relays=relays)})
    evidence = Evidence(has_applied=lambda _: False, link_up=lambda _: True, link_carries=lambda _: False)
    transition = Transition(role_changes={"a": now})
    published = PublishedStep(plan=made, transition=transition, health=dead(gone), evidence=evidence)
    found = role_change.role_changes(published, goal).get("a")
    assert (found and found.relays) == expected
    assert not found or not {gone} & {*found.relays, *found.unrouted_relays, *found.trunk_linked_relays}
