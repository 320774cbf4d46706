"""The ports that firewalls must open: all that a plan calls, and no others."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings

from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Endpoint
from saltext_wgmesh.core.planning.open_ports import OpenPort, describe_caller, open_ports
from saltext_wgmesh.core.planning.planner import plan_mesh
from tests.unit.harness import strategies
from tests.unit.harness.worlds import all_facts, leaf, mesh, relay


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.plans())
def test_each_call_of_plan_is_listed(plan):
    """Each endpoint in a view belongs to a port on which the called node listens, and no other port is listed."""
    listed = {(n, p.port, p.endpoint, c) for n, found in open_ports(plan).items() for p in found for c in p.callers}
    listening = {(n, p.node): i.listen_port for n, v in plan.views.items() for i in v.interfaces for p in i.peers}
    called = {
        (p.node, listening[p.node, caller], p.endpoint, caller)
        for caller, view in plan.views.items()
        for i in view.interfaces
        for p in i.peers
        if p.endpoint
    }
    assert listed == {call for call in called if call[1]}


def test_forwarded_port_keeps_both_numbers():
    """The node listens on one port, and is called at another."""
    there = replace(relay("r1"), endpoint=Endpoint(host="203.0.113.1", port=4000))
    plan = plan_mesh(mesh(there, leaf("a")), all_facts("r1", "a"), Allocations())
    assert open_ports(plan) == {"r1": (OpenPort(port=51820, endpoint="203.0.113.1:4000", callers=("a",)),)}


def test_caller_behind_nat_has_any_address():
    """Its packets come from a router that the plan does not know."""
    plan = plan_mesh(mesh(relay("r1"), leaf("a", nat=True), leaf("b")), all_facts("r1", "a", "b"), Allocations())
    assert describe_caller(plan.members["a"]) == "a (any address, by NAT)"
    assert describe_caller(plan.members["b"]) == f"b ({', '.join(plan.members['b'].underlay)})"
