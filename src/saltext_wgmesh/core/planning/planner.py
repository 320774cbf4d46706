"""Policy, facts and allocations → the plan of one mesh. ``plan_mesh`` is the algorithm, step by step."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType

from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.inputs import node_matching
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.pairs import NodePair
from saltext_wgmesh.core.model.plan import AccessSocket, Allocations, Link, Member, Plan
from saltext_wgmesh.core.model.policy import MeshPolicy, NodeRule, Role
from saltext_wgmesh.core.model.view import Kind, View
from saltext_wgmesh.core.planning import (
    addresses,
    direct_links,
    networks,
    openers,
    relay_assignment,
    relay_choice,
    relay_numbers,
    views,
)
from saltext_wgmesh.core.planning.prune_guard import Membership
from saltext_wgmesh.core.planning.relay_assignment import Pool, RelayOrder
from saltext_wgmesh.core.planning.relay_choice import RelayChoice
from saltext_wgmesh.core.transition import gateway_move, state
from saltext_wgmesh.core.transition.state import NO_TRANSITION, Transition

NO_TROUBLE = Health()


def plan_mesh(
    mesh: MeshPolicy,
    facts: Mapping[str, Facts],
    allocations: Allocations,
    health: Health = NO_TROUBLE,
    *,
    drained: frozenset[str] = frozenset(),
    transition: Transition = NO_TRANSITION,
) -> Plan:
    """Return the plan for all nodes with facts that a rule of the mesh matches.

    Nodes that are down or *drained* stay in the plan, so that they can come back. Other nodes depend on them only where
    there is no alternative. Links of *transition* stay in the plan, and carry traffic only where its other links
    are down. A node that can't be placed yet is in ``unplaced``. The order of *facts* does not matter. A node that
    joins or leaves does not change the addresses and numbers of other nodes.

    Raises PlanError with all problems that prevent a plan.
    """
    # An unproven relay is treated like a drained one: it is linked, and used only where there is no other.
    drained |= transition.unproven_relays
    policy, mesh = mesh, networks.with_former_networks(mesh, transition.former_networks)
    inputs = _PlanInputs(
        mesh=mesh,
        families=frozenset(n.version for n in policy.networks),
        facts=facts,
        allocations=allocations,
        health=health,
        drained=drained,
        transition=transition,
    )
    rules, unplaced = _with_a_way(inputs, *_placeable(inputs))
    relays = _relays(mesh, rules)
    leaves = {node: rule.site for node, rule in rules.items() if rule.role is Role.LEAF}

    assigned, problems = addresses.assign_addresses(policy, rules, allocations)
    # A node in transition has its former addresses too, and only these while it waits for another node.
    in_use = assigned | {n: own for n, own in transition.dual_addresses.items() if n in assigned}
    # A node that changes its role is a leaf with links of a relay, which are named after its number.
    numbers = relay_numbers.number_relays(
        [*relays, *sorted(transition.role_changes.keys() & rules.keys())], allocations
    )
    problems += relay_numbers.unusable_numbers(mesh, relays, numbers) + networks.subnets_without_gateway(policy)
    allocated, chosen = _choose_relays(inputs, rules, leaves, relays)
    pools = relay_assignment.nearest_pools(mesh, leaves, relays)
    choice = relay_choice.choice_of(mesh, in_use, pools)
    spread = {n: r for n, r in _spread_relays(inputs, chosen, pools).items() if choice.has_area(in_use[n])}
    members = _members(inputs, rules, in_use, _relays_in_use(inputs, chosen), spread)
    linked, direct = _direct_links(inputs, [members[leaf] for leaf in leaves])
    if not relays:
        problems += direct_links.unreachable_pairs(mesh, members, direct)
    if problems:
        raise PlanError(problems)

    return Plan(
        mesh=mesh.name,
        networks=tuple(str(n) for n in mesh.networks),
        members=members,
        links=_links(members, relays, direct),
        views=_views(inputs, linked, members, direct, numbers, choice),
        unplaced=unplaced,
        allocations=Allocations(
            addresses=addresses.updated_addresses(allocations, assigned, in_use),
            relay_numbers=numbers,
            relays=dict(sorted({**allocations.relays, **allocated}.items())),
        ),
    )


def membership(mesh: MeshPolicy, facts: Mapping[str, Facts]) -> Membership:
    """Return the members and direct links of every plan of *mesh* with *facts*, in any health and transition."""
    families = frozenset(n.version for n in mesh.networks)
    inputs = _PlanInputs(mesh=mesh, families=families, facts=facts, allocations=Allocations())
    rules, _ = _placeable(inputs)
    leaves = {node for node, rule in rules.items() if rule.role is Role.LEAF}
    # Direct links depend on neither addresses nor relays, so the members need none.
    members = _members(inputs, rules, dict.fromkeys(rules, ()), {})
    pairs = direct_links.direct_pairs(mesh, (members[leaf] for leaf in leaves))
    return Membership(leaves=frozenset(leaves), relays=frozenset(rules.keys() - leaves), pairs=frozenset(pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlanInputs:
    """The inputs of one plan."""

    mesh: MeshPolicy
    """With the former networks."""
    families: frozenset[int]
    """Those of the policy's networks."""
    facts: Mapping[str, Facts]
    allocations: Allocations
    health: Health = NO_TROUBLE
    drained: frozenset[str] = frozenset()
    """Nodes that no other node should depend on: by the operator's request, or unproven relays."""
    transition: Transition = NO_TRANSITION

    @property
    def last_resorts(self) -> frozenset[str]:
        """The nodes that are a gateway, or a relay that traffic is spread over, only where there is no other."""
        return self.health.down_nodes | self.health.recovering | self.drained


# --- members -------------------------------------------------------------------------------------------


def _placeable(inputs: _PlanInputs) -> tuple[dict[str, NodeRule], dict[str, str]]:
    """Return node → rule for the members of the plan, and node → reason for those that can't be placed yet."""
    rules = {
        # A node that changes its role counts as a leaf until the change is complete.
        node: replace(rule, role=Role.LEAF) if node in inputs.transition.role_changes else rule
        for node, rule in node_matching.rules_for(inputs.mesh, inputs.facts).items()
    }
    unplaced = _unplaced(inputs, rules)
    return {node: rule for node, rule in rules.items() if node not in unplaced}, unplaced


def _unplaced(inputs: _PlanInputs, nodes: Mapping[str, NodeRule]) -> dict[str, str]:
    """Return node → why it can't be placed yet, and what to do, sorted."""
    mesh, versions = inputs.mesh, {n.version for n in inputs.mesh.networks}
    waits = "other nodes still leave addresses that it or its own network is to have; it joins once they have"
    reasons = dict.fromkeys(nodes.keys() & inputs.transition.waiting_nodes, waits)
    for node, rule in nodes.items():
        if inputs.facts[node].ipv6 or 6 not in versions:
            continue
        if 4 not in inputs.families:
            reasons[node] = "IPv6 is disabled on it and the mesh has no IPv4 network; enable IPv6 there"
        elif rule.role is Role.RELAY:
            # It would drop the IPv6 packets of all its leaves.
            reasons[node] = "it is a relay with IPv6 disabled in a mesh with IPv6; enable IPv6 there"
    # Without any relay, leaves of a mesh that has relays would get views that can't reach each other.
    relays_of_policy = tuple(rule.pattern for rule in mesh.nodes if rule.role is Role.RELAY)
    has_relay = any(rule.role is Role.RELAY and node not in reasons for node, rule in nodes.items())
    if relays_of_policy and not has_relay:
        for node, rule in nodes.items():
            if rule.role is Role.LEAF and node not in reasons:
                of_site = mesh.sites[rule.site].relays if rule.site is not None and rule.site in mesh.sites else ()
                relays = ", ".join(of_site or relays_of_policy)
                reasons[node] = f"none of its relays has published facts: {relays}; apply the formula there"
    return dict(sorted(reasons.items()))


def _with_a_way(
    inputs: _PlanInputs, rules: Mapping[str, NodeRule], unplaced: Mapping[str, str]
) -> tuple[dict[str, NodeRule], dict[str, str]]:
    """Return *rules* and *unplaced*, with the new nodes moved that could open no link."""
    stuck = openers.without_way(rules, _relays(inputs.mesh, rules), inputs.facts, inputs.allocations)
    placed = {node: rule for node, rule in rules.items() if node not in stuck}
    return placed, dict(sorted({**unplaced, **stuck}.items()))


def _in_rule_order(mesh: MeshPolicy, nodes: Mapping[str, NodeRule]) -> list[str]:
    """Return *nodes* in the operator's order; nodes of one glob are sorted by name."""
    position = {rule.pattern: i for i, rule in enumerate(mesh.nodes)}
    return sorted(nodes, key=lambda node: (position[nodes[node].pattern], node))


def _relays(mesh: MeshPolicy, nodes: Mapping[str, NodeRule]) -> list[str]:
    """Return the relays of *nodes*, in the operator's order."""
    return _in_rule_order(mesh, {n: r for n, r in nodes.items() if r.role is Role.RELAY})


def _gateways(inputs: _PlanInputs, rules: Mapping[str, NodeRule]) -> dict[str, list[str]]:
    """Return subnet → the gateways that have its family, in the operator's order and with the last resorts last."""
    found: dict[str, list[str]] = {}
    with_routes = {node: rule for node, rule in rules.items() if rule.routes}
    last_resorts = inputs.last_resorts
    for node in sorted(_in_rule_order(inputs.mesh, with_routes), key=last_resorts.__contains__):
        for subnet in with_routes[node].routes:
            if subnet.version == 4 or inputs.facts[node].ipv6:
                found.setdefault(str(subnet), []).append(node)
    moves = inputs.transition.gateway_moves
    return {subnet: gateway_move.gateways_in_order(subnet, gateways, moves) for subnet, gateways in found.items()}


def _members(
    inputs: _PlanInputs,
    rules: Mapping[str, NodeRule],
    assigned: Mapping[str, tuple[str, ...]],
    relays: Mapping[str, RelayOrder],
    spread: Mapping[str, RelayOrder] = MappingProxyType({}),
) -> dict[str, Member]:
    """Return node → member, in the order of *rules*.

    *assigned* is node → addresses, *relays* is leaf → its relays, *spread* is leaf → those over which it spreads.
    """
    active: dict[str, list[str]] = {}
    standby: dict[str, list[str]] = {}
    for subnet, (first, *others) in _gateways(inputs, rules).items():
        active.setdefault(first, []).append(subnet)
        for node in others:
            standby.setdefault(node, []).append(subnet)
    transition = inputs.transition
    members = {}
    for node, rule in rules.items():
        facts = inputs.facts[node]
        role_change = transition.role_changes.get(node)
        socket = _access_socket(inputs, node, rule)
        members[node] = Member(
            node=node,
            role=rule.role,
            site=rule.site,
            nat=rule.nat,
            public_key=facts.public_key,
            next_key=facts.next_key,
            listen_port=socket.listen_port,
            interface=socket.interface,
            endpoint=socket.endpoint,
            underlay=facts.underlay,
            networks=facts.networks,
            lans=facts.lans,
            # A kernel without IPv6 refuses such an address, and the whole apply would fail.
            addresses=tuple(a for a in assigned[node] if facts.ipv6 or address_family(a) == 4),
            subnets=tuple(sorted(active.get(node, ()), key=addresses.prefix_key)),
            standby_subnets=tuple(sorted(standby.get(node, ()), key=addresses.prefix_key)),
            relays=relays.get(node, ()),
            spread_relays=spread.get(node, ()),
            unrouted_relays=role_change.unrouted_relays if role_change else transition.unrouted_relays.get(node, ()),
            trunk_linked_relays=role_change.trunk_linked_relays if role_change else (),
        )
    return members


def _access_socket(inputs: _PlanInputs, node: str, rule: NodeRule) -> AccessSocket:
    """Return the socket of the node's access interface: its previous one while it moves, else that of the policy."""
    previous = inputs.transition.previous_sockets.get(node)
    role_change = inputs.transition.role_changes.get(node)
    if previous is None and role_change is not None:
        previous = role_change.socket
    return previous or AccessSocket(
        listen_port=inputs.mesh.listen_port, endpoint=rule.endpoint, interface=inputs.mesh.interface
    )


# --- relays --------------------------------------------------------------------------------------------


def _choose_relays(
    inputs: _PlanInputs, rules: Mapping[str, NodeRule], leaves: Mapping[str, str | None], relays: Sequence[str]
) -> tuple[dict[str, RelayOrder], dict[str, RelayOrder]]:
    """Return leaf → the relays that are allocated to it, and leaf → the relays that it is to have at present.

    The two differ for a leaf whose link to a relay is down or was lately. The word of one end is enough to take a link
    down, so it moves no leaf but this one. *leaves* is node → site.
    """
    health = inputs.health
    unstable = health.recovering | inputs.drained
    avoid = _relays_to_avoid(leaves, inputs.allocations, health, inputs.drained)
    unopenable = openers.unopenable_relays(rules, inputs.facts)
    avoid |= {leaf: avoid.get(leaf, frozenset()) | useless for leaf, useless in unopenable.items()}
    allocated = relay_assignment.assign_relays(inputs.mesh, leaves, relays, inputs.allocations, avoid, unstable)
    down = _far_ends(health.down_links, leaves)
    lately = {leaf: ends.union(down.get(leaf, ())) for leaf, ends in _far_ends(health.links, leaves).items()}
    chosen = relay_assignment.without_links(inputs.mesh, leaves, relays, allocated, avoid, (down, lately))
    # To be avoided is no ban, but a link that can't be opened is of no use. A leaf keeps at least one.
    for leaf, useless in unopenable.items():
        for found in (allocated, chosen):
            found[leaf] = tuple(r for r in found[leaf] if r not in useless) or found[leaf]
    return allocated, chosen


def _far_ends(pairs: Iterable[NodePair], leaves: Container[str]) -> dict[str, frozenset[str]]:
    """Return leaf → the other ends of those of *pairs* that it is in."""
    found: dict[str, set[str]] = {}
    for a, b in pairs:
        for leaf, other in ((a, b), (b, a)):
            if leaf in leaves:
                found.setdefault(leaf, set()).add(other)
    return {leaf: frozenset(others) for leaf, others in found.items()}


def _relays_to_avoid(
    leaves: Iterable[str], allocations: Allocations, health: Health, drained: frozenset[str]
) -> dict[str, frozenset[str]]:
    """Return leaf → the relays that it should not depend on, whatever its own links are like.

    An unresponsive leaf can't be given other relays, so it keeps its own. A recovering relay is avoided only by leaves
    that do not use it.
    """
    if not (health.down_nodes or health.recovering or drained):
        return {}
    down = health.down_nodes | drained
    return {
        leaf: down | health.recovering.difference(allocations.relays.get(leaf, ()))
        for leaf in leaves
        if leaf not in health.unresponsive or leaf in health.down_nodes
    }


def _spread_relays(inputs: _PlanInputs, chosen: Mapping[str, RelayOrder], pools: Mapping[str, Pool]) -> dict[str, Pool]:
    """Return leaf → those of its *chosen* relays over which it spreads its packets.

    A leaf that changes its role takes its relays in order, and so does a gateway of a subnet that moves: the steps of
    both changes depend on that order.
    """
    transition = inputs.transition
    in_order = {gateway for move in transition.gateway_moves.values() for gateway in move.order}
    free = {leaf: relays for leaf, relays in chosen.items() if leaf not in in_order | transition.role_changes.keys()}
    avoid = _relays_to_avoid(free, inputs.allocations, inputs.health, inputs.drained)
    cut = _far_ends(inputs.health.down_links, free)
    avoid |= {leaf: avoid.get(leaf, frozenset()) | ends for leaf, ends in cut.items()}
    return relay_choice.spread_relays(inputs.mesh.topology, free, pools, avoid, inputs.last_resorts)


def _relays_in_use(inputs: _PlanInputs, chosen: Mapping[str, RelayOrder]) -> dict[str, RelayOrder]:
    """Return leaf → the relays that it has in this plan: the *chosen* ones, and those that it is still to leave."""
    transition = inputs.transition
    used = {
        leaf: state.relays_in_order(relays, transition.previous_relays.get(leaf, ())) for leaf, relays in chosen.items()
    }
    used |= {leaf: change.relays for leaf, change in transition.role_changes.items() if leaf in chosen}
    return gateway_move.separate_first_relays(used, transition.gateway_moves, inputs.health)


# --- links and views -----------------------------------------------------------------------------------


def _direct_links(inputs: _PlanInputs, leaves: Sequence[Member]) -> tuple[MeshPolicy, list[NodePair]]:
    """Return the policy with the previous direct links as ``links``, and the directly linked pairs of *leaves*.

    A previous link is opened like one that the operator asks for, if it still can be. A node that changes its role gets
    no other direct links until the change is complete.
    """
    previous = inputs.transition.previous_direct_links
    linked = replace(inputs.mesh, links=tuple(sorted({*inputs.mesh.links, *previous})))
    pairs = direct_links.direct_pairs(linked, leaves)
    changing = inputs.transition.role_changes.keys()
    return linked, [pair for pair in pairs if pair in previous or not changing & set(pair)]


def _views(
    inputs: _PlanInputs,
    mesh: MeshPolicy,
    members: Mapping[str, Member],
    direct: Sequence[NodePair],
    numbers: Mapping[str, int],
    choice: RelayChoice,
) -> dict[str, View]:
    """Return node → view; *mesh* is the policy with the previous direct links."""
    transition = inputs.transition
    moves = transition.gateway_moves
    avoided_links = inputs.health.down_links | transition.previous_direct_links
    return views.build_views(
        mesh,
        members,
        direct,
        numbers,
        choice,
        avoided_links=avoided_links | gateway_move.links_to_avoid(members, direct, moves),
        drained=inputs.drained,
        gateway_moves=moves,
        renumbered=transition.dual_addresses.keys(),
    )


def _links(members: Mapping[str, Member], relays: Iterable[str], direct: Iterable[NodePair]) -> tuple[Link, ...]:
    """Return all links, sorted by their ends."""
    links = [
        Link(a=leaf.node, b=relay, kind=Kind.UPLINK)
        for leaf in members.values()
        for relay in (*leaf.relays, *leaf.unrouted_relays)
    ]
    links += [Link(a=a, b=b, kind=Kind.TRUNK) for a, b in combinations(sorted(relays), 2)]
    links += [Link(a=a, b=b, kind=Kind.ACCESS) for a, b in direct]
    return tuple(sorted(links, key=lambda link: (link.a, link.b)))
