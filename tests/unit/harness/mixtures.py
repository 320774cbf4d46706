"""Mixtures of plans: each node runs its own plan, and the packets that such a mesh loses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.pairs import NodePair
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.transition.evidence import Evidence
from saltext_wgmesh.core.transition.published_step import PublishedStep
from saltext_wgmesh.core.transition.state import NO_TRANSITION, Transition
from tests.unit.harness import oracle

ALL_APPLIED = Evidence(has_applied=lambda _: True, link_up=lambda _: True, link_carries=lambda _: True)
"""All nodes have applied their views, and all links are up."""


def everywhere(plan: Plan, transition: Transition = NO_TRANSITION) -> PublishedStep:
    """Return *plan* as published, without any trouble, after all nodes have applied it."""
    return PublishedStep(plan=plan, transition=transition, health=Health(), evidence=ALL_APPLIED)


def mixed(plans: dict[str, Plan], before: Plan) -> Plan:
    """Return a plan with each node as its own plan has it.

    Where a view names no endpoint, WireGuard keeps the endpoint that it had in *before*.
    """
    some = next(iter(plans.values()))
    had = {
        (n, i.name, p.node): p.endpoint for n, view in before.views.items() for i in view.interfaces for p in i.peers
    }

    def view(node: str, plan: Plan) -> View:
        return replace(
            plan.views[node],
            interfaces=tuple(
                replace(
                    i, peers=tuple(replace(p, endpoint=p.endpoint or had.get((node, i.name, p.node))) for p in i.peers)
                )
                for i in plan.views[node].interfaces
            ),
        )

    return replace(
        some,
        members={node: plan.members[node] for node, plan in plans.items()},
        views={node: view(node, plan) for node, plan in plans.items()},
    )


End = tuple[str, str, str]
"""One end of a link: node, neighbour, interface."""


def ends(plan: Plan) -> dict[End, bool]:
    """Return the ends of all links → whether it is a trunk: a trunk and an uplink are no common link."""
    listed = ((n, i, p) for n, view in plan.views.items() for i in view.interfaces for p in i.peers)
    return {(n, p.node, i.name): oracle.is_trunk(i) for n, i, p in listed}


def ends_up(plan: Plan) -> set[End]:
    """Return the ends of the links that both nodes have."""
    here = ends(plan)
    pairs = {(a, b, trunk) for (a, b, _), trunk in here.items()}
    return {(a, b, name) for (a, b, name), trunk in here.items() if (b, a, trunk) in pairs}


def one_ended(plan: Plan, known: set[End]) -> frozenset[NodePair]:
    """Return node and neighbour of the ends without another end, which were not *known* to be up before."""
    return frozenset((a, b) for a, b, _ in ends(plan).keys() - ends_up(plan) - known)


def lost_packets(plan: Plan, known: set[End], *whole: Plan) -> list[str]:
    """Return the packets that arrive in each of the *whole* plans and not in the mixture *plan*.

    A node does not use a new link without its other end. A link that was up before is *known*, and a node does not
    notice at once that the other end of such a link was removed.
    """
    down = one_ended(plan, known)
    required = set(oracle.trips(whole[0])).intersection(*(oracle.trips(one) for one in whole[1:]))
    found = []
    for a, source, b, to in sorted(required):
        how, hops = oracle.walk(plan, a, source, to, down)
        if how != "delivered":
            found.append(f"{source} of {a} to {to} of {b}: {how} {hops}")
    return found


def disconnected_pairs(plan: Plan, known: set[End], *whole: Plan) -> list[str]:
    """Return the pairs of nodes that reach each other in each of the *whole* plans, and in *plan* at no address."""
    down = one_ended(plan, known)
    required = set.intersection(*({(a, b) for a, _, b, _ in oracle.trips(one)} for one in whole))
    return [
        f"{a} to {b}"
        for a, b in sorted(required)
        if not any(
            oracle.walk(plan, a, source, to, down)[0] == "delivered"
            for source, to in product(plan.views[a].addresses, plan.views[b].addresses)
            if (":" in source) == (":" in to)
        )
    ]


def links_up(plan: Plan) -> Callable[[NodePair], bool]:
    """Whether the two of a pair have a link that both ends have."""
    """Return whether both nodes of a pair have their common link."""
    pairs = {(a, b) for a, b, _ in ends_up(plan)}
    return lambda pair: pair in pairs
