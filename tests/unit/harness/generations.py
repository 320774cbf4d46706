"""Generations and assignments for tests of the ledger, told apart by a mark."""

from __future__ import annotations

from typing import Any

from saltext_wgmesh.core.inputs import policy as policy_module
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Bfd, Role
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.master.records.assignment import Assignment, AssignmentKind
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.mesh_head import MeshHead
from saltext_wgmesh.master.records.plan_inputs import Generation, PlanInputs


def view(node: str, mark: int) -> View:
    """A view of *node* that *mark* tells from others: it is the MTU."""
    return View(
        mesh="wg0",
        node=node,
        role=Role.LEAF,
        addresses=("10.0.0.1",),
        networks=("10.0.0.0/16",),
        forward=False,
        mtu=mark,
        bfd=Bfd(),
        interfaces=(),
        routes=(),
    )


def assignment(node: str, mark: int) -> Assignment:
    """That view as an assignment."""
    return Assignment(kind=AssignmentKind.VIEW, digest=f"{node}{mark}", view=view(node, mark))


def raw_policy(mark: int) -> dict[str, Any]:
    """A policy that *mark* tells from others."""
    nodes = {"r1": {"role": "relay", "endpoint": "203.0.113.1"}}
    return {"network": "10.0.0.0/16", "listen_port": 1024 + mark, "nodes": nodes}


def generation(policy_mark: int = 0, **changes: Any) -> Generation:
    """A generation by that policy."""
    raw = raw_policy(policy_mark)
    policy = policy_module.parse_policy({"wg0": raw}).meshes["wg0"]
    inputs = PlanInputs(policy=policy, facts={}, allocations=Allocations(), health=Health(), raw_policy=raw)
    return Generation(**{"inputs": inputs, "reasons": {}, "published_at": 0.0, **changes})


def publish(ledger: Ledger, number: int, policy_mark: int = 0, **marks: int) -> None:
    """Generation *number*: *marks* are those of the nodes whose views are new in it."""
    changed = {node: assignment(node, mark) for node, mark in marks.items()}
    digests = {node: one.digest for node, one in changed.items()}
    head = MeshHead(generation=number, digests=digests, allocations=Allocations(relay_numbers={"r": number}))
    ledger.publish("wg0", head, changed, generation(policy_mark))


def marks(ledger: Ledger, *nodes: str) -> list[int]:
    """The marks of the views that *nodes* get now."""
    return [ledger.assignments(node)["wg0"]["mtu"] for node in nodes]
