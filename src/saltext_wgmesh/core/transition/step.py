"""The next step from the published plan to the goal, so that no packet is lost whichever nodes have applied it.

Links are created before they are used, and are removed after the last use. Each step is a generation. There are six
kinds of change:

- other relays of a leaf, and direct links that are removed: ``core.transition.relay_links``;
- another port, endpoint or interface name of a node: ``core.transition.relocation``;
- other addresses of nodes, and other networks of the mesh: ``core.transition.renumbering``;
- another gateway of a subnet: ``core.transition.gateway_move_step``;
- a relay that becomes a leaf, or a leaf that becomes a relay: ``core.transition.role_change``;
- a new relay, on which no node depends until all its neighbours hear it: ``core.transition.role_change``.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from types import MappingProxyType

from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.transition.gateway_move_step import next_moves
from saltext_wgmesh.core.transition.published_step import PublishedStep
from saltext_wgmesh.core.transition.relay_links import direct_links_to_keep, relay_links_to_keep
from saltext_wgmesh.core.transition.relocation import previous_sockets
from saltext_wgmesh.core.transition.renumbering import dual_addresses, former_networks, waiting_nodes
from saltext_wgmesh.core.transition.role_change import role_changes, unproven_relays
from saltext_wgmesh.core.transition.state import Transition


def next_transition(
    published: PublishedStep, goal: Plan, make: Callable[[Transition], Plan]
) -> tuple[Transition, Plan]:
    """Return the next transition from what is published to *goal*, and the plan with it.

    *make* returns the plan of the same policy and facts as *goal*, with the transition that it is given.
    """
    unproven = unproven_relays(published, goal)
    # Whether a node changes its role must not depend on relays that the next plan does not use yet.
    without_unproven = make(Transition(unproven_relays=unproven)) if unproven else goal
    changing = role_changes(published, without_unproven)
    # A node that changes its role is a leaf until the change is over, so no node depends on it as a relay.
    unproven -= changing.keys()
    if changing or unproven:
        goal = make(Transition(role_changes=changing, unproven_relays=unproven))
    links = links_to_keep(published, goal, changing)
    transition = replace(links, role_changes=changing, unproven_relays=unproven)
    return transition, make(transition) if transition else goal


def links_to_keep(published: PublishedStep, after: Plan, changing_role: Container[str] = ()) -> Transition:
    """Return what *after* must keep of the published plan in the next step: links, sockets, addresses and gateways.

    Links to nodes that left are not kept, nor are dead links. A link in hold-down is kept if it carries, since nodes
    without another link use it. The links of nodes that are *changing_role* are as *after* has them.

    Raises PlanError as ``renumbering.dual_addresses`` does.
    """
    dual = dual_addresses(published, after)
    former = former_networks(published.plan, after, dual)
    previous_relays, unrouted = relay_links_to_keep(published, after, changing_role)
    return Transition(
        previous_relays=previous_relays,
        unrouted_relays=unrouted,
        previous_direct_links=direct_links_to_keep(published, after),
        previous_sockets=MappingProxyType(previous_sockets(published, after)),
        dual_addresses=MappingProxyType(dual),
        former_networks=former,
        waiting_nodes=waiting_nodes(published, after, former, dual),
        gateway_moves=MappingProxyType(next_moves(published, after)),
    )
